"""SerpApi: Bing's or Google's image results as JSON (`options = {"engine": "google_images"}`), no licence stated.

Known of it: answers are empty now and then, so an empty one is asked for once more; filters may be ignored; `original` may
be no image, which the download will find out.
"""

from __future__ import annotations

from typing import Any

from collect.errors import unknown_name
from collect.records import Candidate, Licence
from collect.sources.http import Client, Declined, typed
from collect.sources.source import Outcome, Page, SourceSettings, needed_key, or_stated, page_of, stated_licence

BASE_URL = "https://serpapi.com"
PAGE_SIZE = 150
ENGINES = ("bing_images", "google_images")
_NOTHING = "hasn't returned any results"


class SerpApi:
    """Searches through SerpApi; each page costs the user a search."""

    terms = "restricted"

    def __init__(self, name: str, settings: SourceSettings) -> None:
        self.name = name
        self._settings = settings
        self._key = needed_key(name, settings)
        self._engine = settings.options.get("engine", ENGINES[0])
        if self._engine not in ENGINES:
            raise unknown_name("engine of SerpApi", self._engine, ENGINES)
        self._client = Client(name, settings)
        self._url = f"{(settings.base_url or BASE_URL).rstrip('/')}/search.json"
        self._stated = stated_licence(settings)

    @typed
    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        place = int(cursor or 0)
        document = self._ask(query, place)
        if not document.get("images_results"):
            document = self._ask(query, place)
        items = document.get("images_results") or []
        candidates = [self._candidate(item, query, class_name, rank) for rank, item in enumerate(items, place) if item.get("original")]
        if items and not candidates:
            raise Declined(Outcome.LAYOUT_CHANGED, f"{self.name}: {len(items)} results, and none has 'original'")
        following = place + (len(items) if self._engine == "bing_images" else 1)
        return page_of(candidates, str(following) if items else None, suggestions=_suggestions(document))

    def close(self) -> None:
        self._client.close()

    def _ask(self, query: str, place: int) -> dict[str, Any]:
        parameters: dict[str, Any] = {"engine": self._engine, "q": query, "api_key": self._key}
        parameters |= {"first": place + 1, "count": PAGE_SIZE} if self._engine == "bing_images" else {"ijn": place}
        document = self._client.document(self._url, parameters | dict(self._settings.options))
        error = str(document.get("error") or "")
        if error and _NOTHING not in error:
            raise Declined(Outcome.BLOCKED, f"{self.name}: {error}")
        return document

    def _candidate(self, item: dict[str, Any], query: str, class_name: str, rank: int) -> Candidate:
        title = str(item.get("title") or "")
        return Candidate(
            url=str(item["original"]),
            source=self.name,
            query=query,
            class_name=class_name,
            rank=rank,
            page_url=str(item.get("link") or ""),
            thumbnail_url=str(item.get("thumbnail") or ""),
            title=title,
            width=int(item.get("original_width") or 0),
            height=int(item.get("original_height") or 0),
            licence=or_stated(Licence(title=title), self._stated),
        )


def _suggestions(document: dict[str, Any]) -> tuple[str, ...]:
    offers = [*(document.get("suggested_searches") or ()), *(document.get("related_searches") or ())]
    texts = [str(offer.get("query") or offer.get("name") or "") for offer in offers if isinstance(offer, dict)]
    return tuple(dict.fromkeys(text for text in texts if text))

"""Brave Search, images: one page of up to 200 results, no licence stated. Its terms restrict what results may be used for."""

from __future__ import annotations

from typing import Any

from collect.records import Candidate, Licence
from collect.sources.http import Client, Declined, typed
from collect.sources.source import Outcome, Page, SourceSettings, needed_key, or_stated, page_of, stated_licence

BASE_URL = "https://api.search.brave.com"
PAGE_SIZE = 200


class Brave:
    """Searches Brave's image index."""

    terms = "restricted"

    def __init__(self, name: str, settings: SourceSettings) -> None:
        self.name = name
        self._settings = settings
        self._headers = {"X-Subscription-Token": needed_key(name, settings), "Accept": "application/json"}
        self._client = Client(name, settings, interval_s=1.0)
        self._url = f"{(settings.base_url or BASE_URL).rstrip('/')}/res/v1/images/search"
        self._stated = stated_licence(settings)

    @typed
    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        """The one page there is; `cursor` says nothing here."""
        del cursor
        language, _, country = self._settings.market.partition("-")
        parameters = {
            "q": query,
            "country": country or "ALL",
            "search_lang": language,
            "count": PAGE_SIZE,
            "safesearch": "off" if self._settings.safe_search.casefold() == "off" else "strict",
            "spellcheck": 0,
        }
        document = self._client.document(self._url, parameters | dict(self._settings.options), self._headers)
        items = document.get("results")
        if not isinstance(items, list):
            raise Declined(Outcome.LAYOUT_CHANGED, f"{self.name}: the answer has no list 'results'")
        candidates = [self._candidate(item, query, class_name, place) for place, item in enumerate(items) if _properties(item).get("url")]
        if items and not candidates:
            raise Declined(Outcome.LAYOUT_CHANGED, f"{self.name}: {len(items)} results, and none has 'properties.url'")
        return page_of(candidates, None)

    def close(self) -> None:
        self._client.close()

    def _candidate(self, item: dict[str, Any], query: str, class_name: str, rank: int) -> Candidate:
        properties, title = _properties(item), str(item.get("title") or "")
        return Candidate(
            url=str(properties["url"]),
            source=self.name,
            query=query,
            class_name=class_name,
            rank=rank,
            page_url=str(item.get("url") or ""),
            thumbnail_url=str((item.get("thumbnail") or {}).get("src") or ""),
            title=title,
            width=int(properties.get("width") or 0),
            height=int(properties.get("height") or 0),
            licence=or_stated(Licence(title=title), self._stated),
        )


def _properties(item: dict[str, Any]) -> dict[str, Any]:
    properties = item.get("properties")
    return properties if isinstance(properties, dict) else {}

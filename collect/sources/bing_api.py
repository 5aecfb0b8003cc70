"""Bing Image Search v7: retired by Microsoft in August 2025, still what compatible gateways speak.

Pages by `nextOffset` (`offset + count` overlaps). Suspected abuse is answered by 200 with an empty body. The source of the
format is Microsoft's bing-docs, "Image Search API v7 reference".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from collect.errors import unknown_name
from collect.licenses import family, spdx_from_name
from collect.records import Candidate, Licence
from collect.sources.http import Client, Declined, said, typed
from collect.sources.source import Outcome, Page, SourceSettings, needed_key, or_stated, page_of, stated_licence

BASE_URL = "https://api.bing.microsoft.com"
PAGE_SIZE = 150
#: What `SourceSettings.options` may set besides what is set here.
OPTIONS = frozenset(
    {
        "mkt", "cc", "setLang", "count", "safeSearch", "license", "imageType", "minWidth", "maxWidth", "minHeight", "maxHeight", "width",
        "height", "minFileSize", "maxFileSize", "size", "aspect", "color", "freshness", "imageContent",
    }
)  # fmt: skip


def license_filter(allow_list: Iterable[str]) -> str:
    """The narrowest value of Bing's `license` that covers an allow-list of SPDX ids and families.

    Entries that are not Creative Commons cannot be filtered for and widen it to "All".

    >>> license_filter(["CC0-1.0", "CC-BY", "CC-BY-SA"]), license_filter(["PDM-1.0"]), license_filter(["CC-BY-NC"])
    ('ModifyCommercially', 'Public', 'Modify')
    """
    families = {family(entry) for entry in allow_list}
    if not families or not all(entry.startswith("CC-BY") or entry in {"CC0", "PDM"} for entry in families):
        return "All"
    if families <= {"CC0", "PDM"}:
        return "Public"
    non_commercial = any("-NC" in entry for entry in families)
    no_derivatives = any("-ND" in entry for entry in families)
    return ("Share" if no_derivatives else "Modify") + ("" if non_commercial else "Commercially")


class BingApi:
    """Searches a gateway that speaks Bing Image Search v7."""

    terms = "restricted"

    def __init__(self, name: str, settings: SourceSettings) -> None:
        for option in settings.options:
            if option not in OPTIONS:
                raise unknown_name("parameter of Bing Image Search", option, OPTIONS)
        self.name = name
        self._settings = settings
        self._headers = {"Ocp-Apim-Subscription-Key": needed_key(name, settings)}
        self._client = Client(name, settings)
        self._url = f"{(settings.base_url or BASE_URL).rstrip('/')}/v7.0/images/search"
        self._stated = stated_licence(settings)

    @typed
    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        offset = int(cursor or 0)
        document = self._client.document(self._url, self._parameters(query, offset), self._headers)
        if document.get("_type") == "ErrorResponse":
            raise Declined(Outcome.BLOCKED, f"{self.name}: {said(document)}")
        items = document.get("value")
        if not isinstance(items, list):
            raise Declined(Outcome.LAYOUT_CHANGED, f"{self.name}: the answer is a '{document.get('_type')}' without a list 'value'")
        candidates = [
            self._candidate(item, query, class_name, offset + place)
            for place, item in enumerate(items)
            if isinstance(item, dict) and item.get("contentUrl")
        ]
        if items and not candidates:
            raise Declined(Outcome.LAYOUT_CHANGED, f"{self.name}: {len(items)} results, and none has a 'contentUrl'")
        return page_of(candidates, _next_cursor(document, offset, len(items)), suggestions=tuple(suggestions(document)))

    def close(self) -> None:
        self._client.close()

    def _parameters(self, query: str, offset: int) -> dict[str, Any]:
        settings = self._settings
        parameters: dict[str, Any] = {
            "q": query,
            "mkt": settings.market,
            "count": PAGE_SIZE,
            "offset": offset,
            "safeSearch": settings.safe_search,
            "license": "All" if settings.license else license_filter(settings.licenses),
            "imageType": "Photo",
        }
        if settings.min_side_px:
            parameters |= {"minWidth": settings.min_side_px, "minHeight": settings.min_side_px}
        if "cc" in settings.options:  # the reference: set one of the two, not both
            del parameters["mkt"]
        return parameters | dict(settings.options)

    def _candidate(self, item: dict[str, Any], query: str, class_name: str, rank: int) -> Candidate:
        page_url = str(item.get("hostPageUrl") or "")
        stated = str(item.get("creativeCommons") or "")
        licence = Licence(spdx=spdx_from_name(stated), title=str(item.get("name") or ""), evidence=page_url if stated else "")
        return Candidate(
            url=str(item["contentUrl"]),
            source=self.name,
            query=query,
            class_name=class_name,
            rank=rank,
            page_url=page_url,
            thumbnail_url=str(item.get("thumbnailUrl") or ""),
            title=str(item.get("name") or ""),
            width=_pixels(item.get("width")),
            height=_pixels(item.get("height")),
            licence=or_stated(licence, self._stated),
        )


def suggestions(document: dict[str, Any]) -> list[str]:
    """Further queries that an answer offers, each once: `queryExpansions`, `relatedSearches`, `pivotSuggestions`."""
    offers = [*_list(document, "queryExpansions"), *_list(document, "relatedSearches")]
    for pivot in _list(document, "pivotSuggestions"):
        offers += _list(pivot, "suggestions")
    return list(dict.fromkeys(str(offer["text"]) for offer in offers if offer.get("text")))


def _list(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = document.get(key)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _next_cursor(document: dict[str, Any], offset: int, num_items: int) -> str | None:
    following = document.get("nextOffset")
    total = document.get("totalEstimatedMatches")
    if not num_items or not isinstance(following, int) or following <= offset:
        return None
    if isinstance(total, int) and total and following >= total:
        return None
    return str(following)


def _pixels(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0

"""Wikimedia Commons: `generator=search` with `imageinfo`, whose `extmetadata` values are HTML.

A batch may come in pieces (`continue` without `batchcomplete`): the same pages again, each time with more of their
properties; they are merged before anything is read. `maxlag` makes a busy server refuse, which is passed on as BLOCKED.
"""

from __future__ import annotations

import json
from typing import Any

from collect.clock import now
from collect.licenses import licence_url, spdx_from_name
from collect.records import Candidate, Licence
from collect.sources.http import Client, Declined, said, typed
from collect.sources.markup import first_link, text_of
from collect.sources.source import Outcome, Page, SourceSettings, page_of

BASE_URL = "https://commons.wikimedia.org"
PAGE_SIZE = 100
_MAX_PIECES = 20
_THUMBNAIL_PX = 320
_BITMAPS = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp", "image/tiff", "image/bmp", "image/x-bmp"})


class Wikimedia:
    """Searches Wikimedia Commons for bitmap files."""

    terms = "open"

    def __init__(self, name: str, settings: SourceSettings) -> None:
        self.name = name
        self._client = Client(name, settings, interval_s=1.0)
        self._options = dict(settings.options)
        least = settings.min_side_px - 1
        self._size = f"filew:>{least} fileh:>{least} " if least > 0 else ""  # CirrusSearch's filters by size
        self._url = f"{(settings.base_url or BASE_URL).rstrip('/')}/w/api.php"

    @typed
    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        carry: dict[str, str] = json.loads(cursor) if cursor else {}
        pages: dict[str, dict[str, Any]] = {}
        for _ in range(_MAX_PIECES):
            document = self._ask(query, carry)
            merge(pages, document)
            carry = document.get("continue") or {}
            if "batchcomplete" in document or not carry:
                break
        found = sorted(pages.values(), key=lambda page: int(page.get("index") or 0))
        candidates = [
            candidate for place, page in enumerate(found) if (candidate := candidate_of(page, self.name, query, class_name, place))
        ]
        if pages and not any(page.get("imageinfo") for page in found):
            raise Declined(Outcome.LAYOUT_CHANGED, f"{self.name}: {len(pages)} files, and none has 'imageinfo'")
        return page_of(candidates, json.dumps(carry, sort_keys=True) if carry else None)

    def close(self) -> None:
        self._client.close()

    def _ask(self, query: str, carry: dict[str, str]) -> dict[str, Any]:
        parameters = {
            "action": "query",
            "format": "json",
            "formatversion": 2,
            "maxlag": 5,
            "generator": "search",
            "gsrnamespace": 6,
            "gsrsearch": f"filetype:bitmap {self._size}{query}",
            "gsrlimit": PAGE_SIZE,
            "prop": "imageinfo",
            "iiprop": "url|size|mime|sha1|extmetadata",
            "iiurlwidth": _THUMBNAIL_PX,
        }
        answer = self._client.get(self._url, parameters | self._options | carry)
        document = self._client.parsed(answer)
        if "error" in document:
            raise Declined(Outcome.BLOCKED, f"{self.name}: {said(document)}", answer.retry_after_s or 5.0)
        return document


def merge(pages: dict[str, dict[str, Any]], document: dict[str, Any]) -> None:
    """Lay the pages of one piece over those known, by page id; both of the API's formats are read."""
    query = document.get("query")
    given = query.get("pages") if isinstance(query, dict) else None
    for page in given.values() if isinstance(given, dict) else given or []:
        if isinstance(page, dict):
            pages.setdefault(str(page.get("pageid") or page.get("title")), {}).update(page)


def candidate_of(page: dict[str, Any], source: str, query: str, class_name: str, rank: int) -> Candidate | None:
    """A page of the File namespace as a candidate; None where it is no bitmap, or was given without its URL."""
    info: dict[str, Any] = next(iter(page.get("imageinfo") or []), {})
    if not info.get("url") or info.get("mime", "image/jpeg") not in _BITMAPS:
        return None
    meta = {key: str(entry.get("value") or "") for key, entry in (info.get("extmetadata") or {}).items() if isinstance(entry, dict)}
    title = text_of(meta.get("ObjectName", "")) or str(page.get("title") or "").removeprefix("File:")
    page_url = str(info.get("descriptionurl") or "")
    restrictions = [f"restriction:{name}" for name in meta.get("Restrictions", "").split("|") if name]
    return Candidate(
        url=str(info["url"]),
        source=source,
        query=query,
        class_name=class_name,
        rank=rank,
        page_url=page_url,
        thumbnail_url=str(info.get("thumburl") or ""),
        title=title,
        width=int(info.get("width") or 0),
        height=int(info.get("height") or 0),
        sha1=str(info.get("sha1") or ""),
        tags=(*restrictions, *(name for name in meta.get("Categories", "").split("|") if name)),
        licence=licence_of(meta, title, str(info.get("user") or ""), page_url),
    )


def licence_of(meta: dict[str, str], title: str, user: str, page_url: str) -> Licence:
    """The licence in `extmetadata`; the uploader stands in for an author that is not named."""
    name = text_of(meta.get("LicenseShortName", "")) or text_of(meta.get("UsageTerms", ""))
    url = meta.get("LicenseUrl", "")
    spdx = spdx_from_name(name, url=url) or spdx_from_name(meta.get("License", ""))
    if "flickr.com/commons/usage" in url:
        spdx = "LicenseRef-NKC"
    if text_of(meta.get("NonFree", "")).casefold() == "true":  # fair use, as wikis other than Commons keep it
        spdx = ""
    creator = text_of(meta.get("Artist", "")) or user
    credit = text_of(meta.get("Attribution", "")) or " ".join(part for part in (f'"{title}"', f"by {creator}" if creator else "") if part)
    return Licence(
        spdx=spdx,
        url=url or licence_url(spdx),
        creator=creator,
        creator_url=first_link(meta.get("Artist", "")),
        title=title,
        attribution=f"{credit}, {name}, via Wikimedia Commons" if name else credit,
        evidence=page_url,
        checked_at=now(),
    )

"""Flickr: `flickr.photos.search` with the user's key; licence ids are asked for, not known by heart.

Only the first 4,000 results of a query are distinct, so a range of upload dates with more is halved until it has fewer. The
cursor is the list of ranges still to do, as JSON: `[[first, last, page], …]` in unix seconds, newest first.
"""

from __future__ import annotations

import json
import time
from typing import Any

from collect.clock import now
from collect.licenses import allows, licence_url, spdx_from_name
from collect.records import Candidate, Licence
from collect.sources.http import Client, Declined, said, typed
from collect.sources.source import Outcome, Page, SourceSettings, common_tags, key_variable, needed_key, page_of

BASE_URL = "https://api.flickr.com"
PAGE_SIZE = 500
MOST_DISTINCT = 4000
#: Flickr began in February 2004.
_BEGINNING = 1_075_593_600
#: Sizes from the largest down: original, 2048, 1600, 1024, 800, 640, 500, 320, 240 pixels on the longer side.
_SIZES = "okhlczmns"
_BAD_KEY = 100
_BUSY = frozenset({105, 106})


class Flickr:
    """Searches Flickr's public photographs."""

    terms = "open"

    def __init__(self, name: str, settings: SourceSettings) -> None:
        self.name = name
        self._settings = settings
        self._key = needed_key(name, settings)
        self._client = Client(name, settings, interval_s=1.0)
        self._url = f"{(settings.base_url or BASE_URL).rstrip('/')}/services/rest/"
        self._licences: dict[str, Licence] = {}

    @typed
    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        ranges: list[list[int]] = json.loads(cursor) if cursor else [[_BEGINNING, int(time.time()), 1]]
        while True:
            first, last, number = ranges[0]
            photos = self._photos(query, first, last, number)
            if int(photos.get("total") or 0) <= MOST_DISTINCT or last <= first:
                break
            middle = (first + last) // 2
            ranges[:1] = [[middle + 1, last, 1], [first, middle, 1]]
        more = number < min(int(photos.get("pages") or 0), MOST_DISTINCT // PAGE_SIZE)
        ranges[:1] = [[first, last, number + 1]] if more else []
        candidates = [
            candidate
            for place, photo in enumerate(photos["photo"], (number - 1) * PAGE_SIZE)
            if (candidate := self._candidate(photo, query, class_name, place))
        ]
        return page_of(candidates, json.dumps(ranges) if ranges else None, suggestions=common_tags(candidates, query))

    def close(self) -> None:
        self._client.close()

    def _photos(self, query: str, first: int, last: int, number: int) -> dict[str, Any]:
        parameters = {
            "text": query,
            "page": number,
            "per_page": PAGE_SIZE,
            "min_upload_date": first,
            "max_upload_date": last,
            "content_type": 1,
            "media": "photos",
            "safe_search": 1,
            "sort": "relevance",
            "extras": ",".join(["license", "owner_name", "o_dims", "original_format", "tags", *(f"url_{size}" for size in _SIZES)]),
        }
        if wanted := self._wanted_licences():
            parameters["license"] = wanted
        photos = self._call("flickr.photos.search", parameters | dict(self._settings.options)).get("photos")
        if not isinstance(photos, dict) or not isinstance(photos.get("photo"), list):
            raise Declined(Outcome.LAYOUT_CHANGED, f"{self.name}: the answer has no list 'photos.photo'")
        return photos

    def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        base = {"method": method, "format": "json", "nojsoncallback": 1, "api_key": self._key}
        document = self._client.document(self._url, base | parameters)
        if document.get("stat") != "ok":
            code = int(document.get("code") or 0)
            hint = f"; check the key in {key_variable(self.name)}" if code == _BAD_KEY else ""
            raise Declined(Outcome.BLOCKED, f"{self.name}: {said(document)}{hint}", 60.0 if code in _BUSY else 0.0)
        return document

    def _known_licences(self) -> dict[str, Licence]:
        """Flickr's licence ids with what they stand for, asked for once."""
        if not self._licences:
            listed = self._call("flickr.photos.licenses.getInfo", {}).get("licenses", {}).get("license", [])
            for entry in listed:
                name, url = str(entry.get("name") or ""), str(entry.get("url") or "")
                spdx = spdx_from_name(name, url=url)
                self._licences[str(entry["id"])] = Licence(spdx=spdx, url=url or licence_url(spdx), title=name)
            if not self._licences:
                raise Declined(Outcome.LAYOUT_CHANGED, f"{self.name}: the list of licences is empty")
        return self._licences

    def _wanted_licences(self) -> str:
        """Ids of the licences that the definition allows, for the parameter `license`; "" = no filter."""
        known = self._known_licences()
        return ",".join(number for number, licence in known.items() if allows(self._settings.licenses, licence.spdx))

    def _candidate(self, photo: dict[str, Any], query: str, class_name: str, rank: int) -> Candidate | None:
        size = next((size for size in _SIZES if photo.get(f"url_{size}")), None)
        if size is None:
            return None
        owner, title, creator = str(photo.get("owner") or ""), _text(photo.get("title")), str(photo.get("ownername") or "")
        page_url = f"https://www.flickr.com/photos/{owner}/{photo.get('id')}"
        known = self._known_licences().get(str(photo.get("license")), Licence())
        return Candidate(
            url=str(photo[f"url_{size}"]),
            source=self.name,
            query=query,
            class_name=class_name,
            rank=rank,
            page_url=page_url,
            thumbnail_url=str(photo.get("url_n") or photo.get("url_s") or ""),
            title=title,
            width=int(photo.get(f"width_{size}") or 0),
            height=int(photo.get(f"height_{size}") or 0),
            tags=tuple(str(photo.get("tags") or "").split()),
            licence=Licence(
                spdx=known.spdx,
                url=known.url,
                creator=creator,
                creator_url=f"https://www.flickr.com/photos/{owner}",
                title=title,
                attribution=f'"{title}" by {creator}, {known.title}, via Flickr',
                evidence=page_url,
                checked_at=now(),
            ),
        )


def _text(value: Any) -> str:
    """Flickr writes a text as it is, or as `{"_content": …}`."""
    return str(value.get("_content") or "") if isinstance(value, dict) else str(value or "")

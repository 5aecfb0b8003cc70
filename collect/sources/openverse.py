"""Openverse: openly licensed images with licence, creator and attribution for each. The default source.

Anonymous requests get 20 results a page, 5 requests in an hour at once and 100 a day; a key (`CLIENT_ID:CLIENT_SECRET`, OAuth2 client
credentials) gets more. A query ends after about 240 results, key or not. Format: api.openverse.org, "v1 images".
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from collect.clock import now
from collect.errors import UsageError
from collect.licenses import family, licence_url, spdx_from_name
from collect.records import Candidate, Licence
from collect.sources.http import Client, Declined, typed
from collect.sources.source import Outcome, Page, SourceSettings, common_tags, key_variable, page_of

BASE_URL = "https://api.openverse.org"
PAGE_SIZE_ANONYMOUS = 20
PAGE_SIZE_WITH_KEY = 240
_MAX_QUERY = 200


def license_filter(allow_list: Iterable[str]) -> str:
    """Openverse's `license` for an allow-list; "" where an entry is none of its licences.

    >>> license_filter(["CC0-1.0", "CC-BY", "CC-BY-SA-4.0"])
    'by,by-sa,cc0'
    """
    families = {family(entry) for entry in allow_list}
    if not all(entry.startswith("CC-BY") or entry in {"CC0", "PDM"} for entry in families):
        return ""
    return ",".join(sorted(entry.removeprefix("CC-").casefold() for entry in families))


class Openverse:
    """Searches Openverse."""

    terms = "open"

    def __init__(self, name: str, settings: SourceSettings) -> None:
        if settings.key and ":" not in settings.key:
            raise UsageError(f"{key_variable(name)} must be CLIENT_ID:CLIENT_SECRET, as Openverse's registration gives them")
        self.name = name
        self._settings = settings
        self._client = Client(name, settings, interval_s=1.0)
        self._base = (settings.base_url or BASE_URL).rstrip("/")
        self._token, self._token_ends_at = "", 0.0

    @typed
    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        number = int(cursor or 1)
        page_size = PAGE_SIZE_WITH_KEY if self._settings.key else PAGE_SIZE_ANONYMOUS
        parameters = {"q": query[:_MAX_QUERY], "page": number, "page_size": page_size, **self._settings.options}
        if licenses := license_filter(self._settings.licenses):
            parameters["license"] = licenses
        answer = self._client.get(f"{self._base}/v1/images/", parameters, self._authorization())
        if number > 1 and answer.status in {400, 404}:
            return page_of([], None, detail="Openverse gives no more pages for this query")
        document = self._client.parsed(answer)
        items = document.get("results")
        if not isinstance(items, list):
            raise Declined(Outcome.LAYOUT_CHANGED, f"{self.name}: the answer has no list 'results'")
        rank = (number - 1) * page_size
        candidates = [self._candidate(item, query, class_name, rank + place) for place, item in enumerate(items) if item.get("url")]
        more = bool(items) and number < int(document.get("page_count") or 0)
        return page_of(candidates, str(number + 1) if more else None, suggestions=common_tags(candidates, query))

    def close(self) -> None:
        self._client.close()

    def _authorization(self) -> dict[str, str]:
        if not self._settings.key:
            return {}
        if time.monotonic() >= self._token_ends_at:
            client_id, _, secret = self._settings.key.partition(":")
            form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
            document = self._client.parsed(self._client.post(f"{self._base}/v1/auth_tokens/token/", form))
            self._token = str(document.get("access_token") or "")
            self._token_ends_at = time.monotonic() + float(document.get("expires_in") or 0) * 0.9
            if not self._token:
                raise Declined(Outcome.LAYOUT_CHANGED, f"{self.name}: the answer to the key has no 'access_token'")
        return {"Authorization": f"Bearer {self._token}"}

    def _candidate(self, item: dict[str, Any], query: str, class_name: str, rank: int) -> Candidate:
        page_url = str(item.get("foreign_landing_url") or "")
        url = str(item.get("license_url") or "")
        spdx = spdx_from_name(str(item.get("license") or ""), str(item.get("license_version") or ""), url)
        licence = Licence(
            spdx=spdx,
            url=url or licence_url(spdx),
            creator=str(item.get("creator") or ""),
            creator_url=str(item.get("creator_url") or ""),
            title=str(item.get("title") or ""),
            attribution=str(item.get("attribution") or ""),
            evidence=page_url,
            checked_at=now(),
        )
        return Candidate(
            url=str(item["url"]),
            source=self.name,
            query=query,
            class_name=class_name,
            rank=rank,
            page_url=page_url,
            thumbnail_url=str(item.get("thumbnail") or ""),
            title=licence.title,
            width=int(item.get("width") or 0),
            height=int(item.get("height") or 0),
            tags=tuple(str(tag["name"]) for tag in item.get("tags") or () if isinstance(tag, dict) and tag.get("name")),
            licence=licence,
        )

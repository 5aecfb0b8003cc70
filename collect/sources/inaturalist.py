"""iNaturalist: photographs of living things by their name, a licence for each photograph, no key.

Sixty requests a minute are asked for. Pages go down by observation id (`id_below`), which has no end at 10,000 as page numbers do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from collect.clock import now
from collect.licenses import family, licence_url, spdx_from_name
from collect.records import Candidate, Licence
from collect.sources.http import Client, Declined, typed
from collect.sources.source import Outcome, Page, SourceSettings, page_of

BASE_URL = "https://api.inaturalist.org"
PAGE_SIZE = 200
#: iNaturalist's licence codes carry no version; its help names version 4.0 of the Creative Commons licences.
_VERSION = "4.0"
_MOST_SUGGESTIONS = 10


def license_filter(allow_list: Iterable[str]) -> str:
    """INaturalist's `photo_license` for an allow-list; "" where an entry is none of its licences.

    >>> license_filter(["CC0-1.0", "CC-BY", "CC-BY-SA-4.0"])
    'cc-by,cc-by-sa,cc0'
    """
    families = {family(entry) for entry in allow_list} - {"PDM"}
    if not all(entry.startswith("CC-BY") or entry == "CC0" for entry in families):
        return ""
    return ",".join(sorted(entry.casefold() for entry in families))


class INaturalist:
    """Searches observations of research grade by the name of a taxon."""

    terms = "open"

    def __init__(self, name: str, settings: SourceSettings) -> None:
        self.name = name
        self._settings = settings
        self._client = Client(name, settings, interval_s=1.0)
        self._url = f"{(settings.base_url or BASE_URL).rstrip('/')}/v1/observations"

    @typed
    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        parameters = {
            "taxon_name": query,
            "photos": "true",
            "quality_grade": "research",
            "order_by": "id",
            "order": "desc",
            "per_page": PAGE_SIZE,
        }
        if licenses := license_filter(self._settings.licenses):
            parameters["photo_license"] = licenses
        if cursor:
            parameters["id_below"] = cursor
        document = self._client.document(self._url, parameters | dict(self._settings.options))
        observations = document.get("results")
        if not isinstance(observations, list):
            raise Declined(Outcome.LAYOUT_CHANGED, f"{self.name}: the answer has no list 'results'")
        candidates = [
            self._candidate(observation, photo, query, class_name, place)
            for place, observation in enumerate(observations)
            for photo in observation.get("photos") or ()
            if photo.get("url")
        ]
        lowest = min((int(observation["id"]) for observation in observations), default=0)
        more = len(observations) == PAGE_SIZE
        return page_of(candidates, str(lowest) if more else None, suggestions=_taxa(observations, query))

    def close(self) -> None:
        self._client.close()

    def _candidate(self, observation: dict[str, Any], photo: dict[str, Any], query: str, class_name: str, rank: int) -> Candidate:
        code = str(photo.get("license_code") or "")
        spdx = spdx_from_name(code, _VERSION)
        user = observation.get("user") or {}
        taxon = observation.get("taxon") or {}
        page_url = str(observation.get("uri") or f"https://www.inaturalist.org/observations/{observation['id']}")
        size = photo.get("original_dimensions") or {}
        title = str(taxon.get("preferred_common_name") or taxon.get("name") or "")
        return Candidate(
            url=str(photo["url"]).replace("/square.", "/original."),
            source=self.name,
            query=query,
            class_name=class_name,
            rank=rank,
            page_url=page_url,
            thumbnail_url=str(photo["url"]),
            title=title,
            width=int(size.get("width") or 0),
            height=int(size.get("height") or 0),
            tags=tuple(str(taxon[key]) for key in ("name", "preferred_common_name", "iconic_taxon_name") if taxon.get(key)),
            licence=Licence(
                spdx=spdx,
                url=licence_url(spdx),
                creator=str(user.get("name") or user.get("login") or ""),
                creator_url=f"https://www.inaturalist.org/people/{user['login']}" if user.get("login") else "",
                title=title,
                attribution=str(photo.get("attribution") or ""),
                evidence=page_url,
                checked_at=now(),
            ),
        )


def _taxa(observations: list[dict[str, Any]], query: str) -> tuple[str, ...]:
    """The kinds that were found, by their common names: narrower queries."""
    names = [str((entry.get("taxon") or {}).get("preferred_common_name") or "") for entry in observations]
    return tuple(dict.fromkeys(name for name in names if name and name.casefold() != query.casefold()))[:_MOST_SUGGESTIONS]

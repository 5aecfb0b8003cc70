"""The contract of every place that offers images, and the table of those there are.

A source answers `search` with a page of candidates and a typed outcome; "no images, success" cannot happen, since a page
without candidates is never OK. What the other side refuses, or fails to answer, is an outcome and not an exception, so
that one source in trouble leaves the others at work; exceptions are for what is wrong here (no key, no browser).
"""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib import metadata
from typing import Protocol, cast

from collect.clock import now
from collect.definition import Definition
from collect.errors import UsageError, unknown_name
from collect.licenses import check_entry, licence_url
from collect.records import Candidate, Licence


class Outcome(StrEnum):
    """How a search ended."""

    OK = "OK"
    EMPTY = "EMPTY"
    BLOCKED = "BLOCKED"
    LAYOUT_CHANGED = "LAYOUT_CHANGED"
    CONSENT = "CONSENT"


@dataclass(frozen=True)
class Page:
    """One page of results.

    `next_cursor` is where the next page starts, in the source's own terms; None = there is none. `suggestions` are
    further queries that the source offers (expansions, related searches, tags). `detail` is a sentence for a person.
    `retry_after_s` is what the source asked for, 0 = nothing said.

    After BLOCKED, CONSENT and LAYOUT_CHANGED the query stands where it stood: ask again with the cursor that was given.
    """

    candidates: tuple[Candidate, ...]
    outcome: Outcome
    next_cursor: str | None = None
    suggestions: tuple[str, ...] = ()
    detail: str = ""
    retry_after_s: float = 0.0

    def __post_init__(self) -> None:
        if self.outcome is Outcome.OK and not self.candidates:
            raise ValueError("a page without candidates cannot be OK; say why it has none")

    @property
    def dry(self) -> bool:
        """Whether this query has nothing more to give; False where it was only refused."""
        return self.outcome in {Outcome.OK, Outcome.EMPTY} and self.next_cursor is None


def page_of(
    candidates: list[Candidate], next_cursor: str | None, *, suggestions: tuple[str, ...] = (), detail: str = "nothing found"
) -> Page:
    """OK with the candidates, or EMPTY with `detail` where there are none."""
    if candidates:
        return Page(tuple(candidates), Outcome.OK, next_cursor, suggestions)
    return Page((), Outcome.EMPTY, next_cursor, suggestions, detail)


def common_tags(candidates: Sequence[Candidate], query: str, most: int = 5) -> tuple[str, ...]:
    """Narrower queries made of the query and a tag that at least a fifth of its results carry."""
    known = set(query.casefold().split())
    counts = Counter(tag.casefold() for candidate in candidates for tag in dict.fromkeys(candidate.tags))
    needed = max(3, len(candidates) // 5)
    return tuple(f"{query} {tag}" for tag, number in counts.most_common() if number >= needed and tag not in known)[:most]


@dataclass(frozen=True)
class SourceSettings:
    """What a source is told.

    `base_url` None = the provider's own. `licenses` is the definition's allow-list, for sources that can filter;
    `license` is the user's word (an SPDX id) for sources that carry none. `allow_addresses` are addresses, else refused
    as private, that a browser may visit. `polite` False = no pauses, for one's own servers. `options` are the
    provider's own parameters, laid over those that a source sets itself.
    """

    base_url: str | None = None
    key: str | None = None
    contact: str = ""
    licenses: tuple[str, ...] = ()
    min_side_px: int = 0
    timeout_s: float = 30.0
    license: str | None = None
    allow_addresses: tuple[str, ...] = ()
    polite: bool = True
    market: str = "en-US"
    safe_search: str = "Moderate"
    options: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """A place that offers images. `terms` is "restricted" where its terms limit what results may be used for."""

    name: str
    terms: str

    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        """The page of results for `query` that starts at `cursor`; None = the first.

        Raises:
            MissingServiceError: a browser or a file that this source stands on is not here.
        """

    def close(self) -> None:
        """Let go of connections and processes; may be called twice."""


class LocalSource(Source, Protocol):
    """A source whose candidates lie on this machine, at `file:` URLs."""

    def read(self, candidate: Candidate) -> bytes:
        """The encoded bytes of a candidate's image.

        Raises:
            NotFoundError: the file is gone or cannot be read.
        """


#: name -> where it is implemented.
SOURCES: dict[str, str] = {
    "openverse": "collect.sources.openverse:Openverse",
    "wikimedia": "collect.sources.wikimedia:Wikimedia",
    "flickr": "collect.sources.flickr:Flickr",
    "inaturalist": "collect.sources.inaturalist:INaturalist",
    "open-images": "collect.sources.open_images:OpenImages",
    "bing-api": "collect.sources.bing_api:BingApi",
    "brave": "collect.sources.brave:Brave",
    "serpapi": "collect.sources.serpapi:SerpApi",
    "bing-images": "collect.sources.bing_images:BingImages",
    "google-images": "collect.sources.google_images:GoogleImages",
}
#: prefix -> where it is implemented; what follows the prefix is a URL, a file or a folder.
PREFIXED: dict[str, str] = {
    "page:": "collect.sources.page:AnyPage",
    "urls:": "collect.sources.local:UrlList",
    "folder:": "collect.sources.local:Folder",
    "video:": "collect.sources.video:Video",
}
#: Entry-point group by which other packages add sources: a callable that takes a name and settings.
OUTSIDERS = "boxwright.sources"


class _Opener(Protocol):
    def __call__(self, name: str, settings: SourceSettings) -> Source: ...


def open_source(name: str, settings: SourceSettings) -> Source:
    """The source of that name, ready to be searched; nothing is requested yet.

    Raises:
        UsageError: no such source (lists those there are), or its key is missing.
        NotFoundError: its file or folder is not there.
    """
    place = SOURCES.get(name) or next((place for prefix, place in PREFIXED.items() if name.startswith(prefix) and name != prefix), None)
    if place is not None:
        module, _, attribute = place.partition(":")
        return cast("_Opener", getattr(importlib.import_module(module), attribute))(name, settings)
    outside = {entry.name: entry for entry in metadata.entry_points(group=OUTSIDERS)}
    if name not in outside:
        raise unknown_name("source", name, [*SOURCES, *outside, "page:URL", "urls:FILE", "folder:DIR", "video:FILE"])
    return cast("_Opener", outside[name].load())(name, settings)


def check_names(definition: Definition) -> None:
    """See that `base_urls` and `options` name sources that take them.

    Raises:
        UsageError: one of them does not; names the nearest.
    """
    known = [*SOURCES, *(entry.name for entry in metadata.entry_points(group=OUTSIDERS))]
    for key, names, valid in (
        ("base_urls", definition.collect.base_urls, known),
        ("options", definition.collect.options, [*known, "video"]),
    ):
        for name in names:
            if name not in valid:
                raise unknown_name(f"source in [collect]'s {key}", name, valid)


def key_variable(name: str) -> str:
    """The environment variable that holds a source's key.

    >>> key_variable("bing-api")
    'BOXWRIGHT_BING_API_KEY'
    """
    return f"BOXWRIGHT_{name.upper().replace('-', '_')}_KEY"


def settings_for(name: str, definition: Definition, environ: Mapping[str, str] = os.environ) -> SourceSettings:
    """The settings that a definition and the environment give a source; the command's own are laid over with `replace`."""
    policy = definition.collect
    return SourceSettings(
        base_url=policy.base_urls.get(name),
        key=environ.get(key_variable(name)) or None,
        contact=definition.contact,
        licenses=policy.licenses,
        min_side_px=policy.min_side_px,
        options=policy.options.get(name.partition(":")[0], {}),
    )


def needed_key(name: str, settings: SourceSettings) -> str:
    """The key of a source that does not work without one.

    Raises:
        UsageError: there is none; names the variable to set.
    """
    if not settings.key:
        raise UsageError(f"the source '{name}' needs a key; set the environment variable {key_variable(name)}")
    return settings.key


def stated_licence(settings: SourceSettings, evidence: str = "user") -> Licence:
    """The licence that the user states for a source which carries none; unknown where nothing was stated.

    Raises:
        UsageError: the statement is no SPDX id.
    """
    if not settings.license:
        return Licence()
    spdx = check_entry(settings.license)
    return Licence(spdx=spdx, url=licence_url(spdx), evidence=evidence, checked_at=now())


def or_stated(licence: Licence, stated: Licence) -> Licence:
    """A licence as a source gives it; where it names none, the user's word, with the credit that the source gives."""
    if licence.spdx or not stated.spdx:
        return licence
    return replace(licence, spdx=stated.spdx, url=stated.url, evidence=stated.evidence, checked_at=stated.checked_at)

"""Visiting the sources of kept images again: what was taken down, opted out or relicensed is revoked, all else untouched.

Only a clear word counts. 404 and 410 mean taken down, and so do a web page in the image's place that says so, and a
stand-in: a drawn placeholder, or the same other picture under the addresses of several images. robots.txt, X-Robots-Tag and
TDM reservations mean opted out; a licence that the source states now and the definition does not allow means relicensed. A
server that fails, a page that asks for a password, a robots.txt that cannot be read, an image that was encoded anew or that
a search no longer lists: these say nothing, and nothing is done.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from typing import Any

from yarl import URL

from collect.definition import Definition
from collect.errors import BoxwrightError
from collect.images.limits import InspectLimits
from collect.images.similarity import confirmed
from collect.images.workers import InspectWorkers
from collect.ledger import Ledger
from collect.licenses import allows
from collect.net.address import AddressGuard
from collect.net.fetch import Fetcher, FetchLimits, Lost, LostError, Reply
from collect.net.robots import RobotsCache, opted_out, tdm_header
from collect.net.throttle import Throttle
from collect.net.visit import HTML_TYPES
from collect.net.wire import Answer
from collect.pipeline import DownloadSettings
from collect.planner import is_explicit
from collect.records import ImageRecord, Picture, Reason, State
from collect.sources.markup import text_of
from collect.sources.source import Outcome, Source, SourceSettings, open_source
from collect.version import user_agent

_AT_ONCE = 256
_GONE = {404, 410}
#: Where large hosts lead, with status 200, for pictures that were removed: Flickr, Imgur, Photobucket and the like.
_TOMBSTONE = re.compile(r"/(photo_unavailable(_\w+)?|image_unavailable|unavailable|removed|image[-_]not[-_]found)\.(gif|jpe?g|png|webp)$")
#: How web pages in a picture's place say that it is gone.
_SAYS_GONE = re.compile(
    r"\b404\b|not (be )?found|no longer (available|exists?|here)|does(n['’]t| not) exist|(been|was|were) (removed|deleted|taken down)"
    r"|(photo|image|picture|page) (is )?unavailable|nicht gefunden|nicht (mehr )?(verfügbar|vorhanden)|gelöscht|introuvable|supprimée?"
    r"|no encontrad[ao]|eliminad[ao]|não encontrad[ao]|non trovat[ao]|niet gevonden|не найден|удал[её]н|見つかりません|不存在",
    re.IGNORECASE,
)
_FINE = Lost(State.KEPT, Reason.NONE)
#: The score from which a picture in another's place is an 'image not available'.
_DRAWN = 0.95
#: Searches that state no licence: asking them again tells nothing.
_SILENT = {"bing-images", "google-images", "brave", "serpapi"}
log = logging.getLogger(__name__)


@dataclass
class Rechecked:
    """What a recheck found: images revoked by reason, and how many of the others could not be reached or were not on the web."""

    checked: int = 0
    revoked: Counter[str] = field(default_factory=Counter)
    unreachable: int = 0
    skipped: int = 0
    pages_asked: Counter[str] = field(default_factory=Counter)
    not_asked: dict[str, str] = field(default_factory=dict)


class Recheck:
    """One recheck of a dataset's kept images. Hold the dataset's lock while it runs."""

    def __init__(self, ledger: Ledger, definition: Definition, settings: DownloadSettings, *, dry_run: bool = False) -> None:
        self._ledger, self._definition, self._settings, self._dry_run = ledger, definition, settings, dry_run
        self.result = Rechecked()

    def run(self, source_settings: Callable[[str], SourceSettings], on_progress: Callable[[int], None] = lambda _count: None) -> Rechecked:
        """Ask the sources for licences, then visit every image that is still kept."""
        self._ask_sources(source_settings)
        records = [record for record in self._ledger.images() if self._is_on_the_web(record)]
        asyncio.run(self._visit_all(records, on_progress))
        return self.result

    def _is_on_the_web(self, record: ImageRecord) -> bool:
        on_the_web = record.source_url.startswith(("http://", "https://"))
        self.result.skipped += not on_the_web
        return on_the_web

    def _revoke(self, sha256: str, reason: Reason) -> None:
        self.result.revoked[reason] += 1
        if not self._dry_run:
            self._ledger.set_image_state(sha256, State.REVOKED, reason)

    # Licences

    def _ask_sources(self, source_settings: Callable[[str], SourceSettings]) -> None:
        """Walk the searches that brought kept images, without their licence filter, and compare what they state now."""
        rows = self._ledger.rows(
            "SELECT source, query, class_name, source_url, sha256 FROM images WHERE state = 'KEPT' ORDER BY source, query, class_name"
        )
        for name, group in groupby(rows, key=lambda row: str(row["source"])):
            entries = list(group)
            if not name or is_explicit(name) or name in _SILENT:
                continue
            try:
                source = open_source(name, replace(source_settings(name), licenses=(), license=None))
            except BoxwrightError as error:
                self.result.not_asked[name] = str(error)
                continue
            try:
                self._ask(source, entries)
            finally:
                source.close()

    def _ask(self, source: Source, entries: list[Any]) -> None:
        for (query, class_name), group in groupby(entries, key=lambda row: (row["query"], row["class_name"])):
            wanted = {str(row["source_url"]): str(row["sha256"]) for row in group}
            cursor: str | None = None
            while wanted:
                page = source.search(query, class_name, cursor)
                self.result.pages_asked[source.name] += 1
                if page.outcome not in {Outcome.OK, Outcome.EMPTY}:
                    self.result.not_asked[source.name] = f"{page.outcome}: {page.detail}"
                    return
                for candidate in page.candidates:
                    sha256, spdx = wanted.pop(candidate.url, ""), candidate.licence.spdx
                    if sha256 and spdx and not allows(self._definition.collect.licenses, spdx):
                        log.info("%s is now under %s", candidate.url, spdx)
                        self._revoke(sha256, Reason.RELICENSED)
                if page.next_cursor is None:
                    break
                cursor = page.next_cursor

    # Visits

    async def _visit_all(self, records: Iterable[ImageRecord], on_progress: Callable[[int], None]) -> None:
        policy = self._definition.collect
        throttle = Throttle(policy.concurrency, policy.per_domain, polite=self._settings.polite)
        guard = AddressGuard(self._settings.allow_addresses, self._settings.lookup)
        limits = FetchLimits(round(policy.max_megabytes * 1e6), deadline_s=policy.deadline_s)
        pictures = InspectLimits(limits.max_bytes, round(policy.max_megapixels * 1e6), policy.max_frames)
        with InspectWorkers(pictures, self._settings.num_decoders, self._settings.decode_deadline_s) as workers:
            agent = user_agent(self._definition.contact)
            async with Fetcher(guard, throttle, limits, agent) as fetcher, RobotsCache(fetcher) as robots:
                visitor = _Visitor(fetcher, robots if self._settings.polite else None, workers)
                waiting = iter(records)
                while part := list(islice(waiting, _AT_ONCE)):
                    verdicts = await asyncio.gather(*(visitor.visit(record) for record in part))
                    for record, verdict in zip(part, verdicts, strict=True):
                        self._note(record, verdict)
                    on_progress(len(part))
        for sha256s in visitor.others_shown.values():
            if len(sha256s) > 1:
                for sha256 in sha256s:
                    self._revoke(sha256, Reason.TAKEN_DOWN)

    def _note(self, record: ImageRecord, verdict: Reason | None) -> None:
        self.result.checked += 1
        if verdict is None:
            self.result.unreachable += 1
        elif verdict:
            self._revoke(record.sha256, verdict)


class _Visitor:
    """Asks an image's site whether it still offers it, to us; a body is read only where its length is another than it was.

    Attributes:
        others_shown: sha256 of each other picture that came -> the images in whose place it came.
    """

    def __init__(self, fetcher: Fetcher, robots: RobotsCache | None, workers: InspectWorkers) -> None:
        self._fetcher, self._robots, self._workers = fetcher, robots, workers
        self.others_shown: defaultdict[str, list[str]] = defaultdict(list)

    async def visit(self, record: ImageRecord) -> Reason | None:
        """TAKEN_DOWN, OPTED_OUT, NONE (all is well), or None where nobody can tell."""
        reserved = is_page = False

        async def check(hop: URL) -> None:
            nonlocal reserved
            if self._robots is None:
                return
            rules = await self._robots.rules(hop)
            if rules.lost is not None:  # a robots.txt that cannot be read forbids fetching, but takes nothing back
                raise LostError(rules.lost)
            if rules.refusal(str(hop)):
                raise LostError(Lost(State.REVOKED, Reason.OPTED_OUT))
            reserved = reserved or rules.reserved(hop.path)

        def wanted(answer: Answer) -> None:
            nonlocal is_page
            if answer.status in _GONE or _TOMBSTONE.search(answer.url.path):
                raise LostError(Lost(State.REVOKED, Reason.TAKEN_DOWN))
            said = tdm_header(answer.headers)
            if opted_out(answer.headers) or (reserved if said is None else said):
                raise LostError(Lost(State.REVOKED, Reason.OPTED_OUT))
            if answer.status != 200:
                raise LostError(Lost(State.RETRY, Reason.HTTP_4XX))
            is_page = answer.content_type in HTML_TYPES
            if not is_page and answer.content_length == record.num_bytes:
                raise LostError(_FINE)

        reply = await self._fetcher.fetch(record.source_url, check, wanted)
        if isinstance(reply, Lost):
            return reply.reason if reply.state in {State.KEPT, State.REVOKED} else None
        if is_page:
            return Reason.TAKEN_DOWN if _SAYS_GONE.search(text_of(reply.body.decode(errors="replace"))) else None
        return await self._compare(record, reply)

    async def _compare(self, record: ImageRecord, reply: Reply) -> Reason | None:
        """What other bytes than were expected say: the same picture, a stand-in, or nothing."""
        if hashlib.sha256(reply.body).hexdigest() == record.sha256:
            return Reason.NONE
        picture = await asyncio.to_thread(self._workers.inspect, reply.body)
        if not isinstance(picture, Picture):
            return None
        if confirmed(picture.signature, str(record.extra.get("signature", ""))):
            return Reason.NONE
        if picture.quality["placeholder"] >= _DRAWN:
            return Reason.TAKEN_DOWN
        self.others_shown[picture.sha256].append(record.sha256)
        return Reason.NONE

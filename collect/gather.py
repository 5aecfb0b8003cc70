"""A collection in motion: one thread per source searches, while the pipeline downloads what they have found.

The planner says what to ask, the ledger holds what is known; everything here can be killed and started again.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeGuard

from collect.definition import Definition
from collect.errors import MissingServiceError, NotFoundError
from collect.ledger import Ledger
from collect.ledger_rows import Counts, Lease, Settlement
from collect.licenses import allows
from collect.pipeline import DownloadSettings, Pipeline
from collect.planner import Planner
from collect.records import Candidate, Licence, Reason, State
from collect.sources.local import path_of
from collect.sources.source import LocalSource, Source
from collect.workspace import Dataset

#: A search may bring a failing server's whole catalogue: the first rest is short, and doubled each time.
_FIRST_REST_S = 4.0
#: Seconds of doing nothing but wait for URLs that rest before a retry, in all; what rests longer is left to the next call.
PATIENCE_S = 45.0
_JOIN_S = 3.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gathered:
    """What one call did: URLs by state and by `STATE(reason)`, and why it ended, as a whole and for each class (`ends`).

    `closed` are sources given up, and why.
    """

    states: dict[str, int]
    reasons: dict[str, int]
    seconds: float
    verdict: str
    closed: dict[str, str] = field(default_factory=dict)
    waiting: int = 0
    ends: dict[str, str] = field(default_factory=dict)

    @property
    def images_per_second(self) -> float:
        """New images in the store per second: kept, and quarantined for want of a licence."""
        return (self.states.get(State.KEPT, 0) + self.states.get(State.QUARANTINED, 0)) / max(self.seconds, 1e-9)


class LimitedPipeline(Pipeline):
    """A pipeline that never keeps more than `limit` images in its life (0 = no limit): it leases no more than may be kept."""

    limit = 0

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return bool(self.limit) and self.progress.states[State.KEPT] >= self.limit

    def lease(self, limit: int, busy: Collection[str]) -> tuple[list[Lease], list[Settlement]]:
        if self.limit:
            under_way = self.progress.in_flight + self.progress.waiting
            limit = min(limit, self.limit - self.progress.states[State.KEPT] - under_way)
        return super().lease(limit, busy) if limit > 0 else ([], [])


class Gathering:
    """One call of `boxwright collect`. Hold the dataset's lock while it runs. `engine` is where downloads run."""

    def __init__(
        self,
        dataset: Dataset,
        definition: Definition,
        sources: Mapping[str, Source],
        settings: DownloadSettings,
        engine: type[LimitedPipeline] = LimitedPipeline,
    ) -> None:
        self._engine = engine
        self._dataset, self._definition, self._sources = dataset, definition, sources
        self._settings = replace(settings, retries=replace(settings.retries, first_s=_FIRST_REST_S))
        self._lock = threading.Lock()  # the planner and its connection
        self._stop, self._news = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._planner: Planner
        #: After an interrupt: why the call ended for each class, as in :class:`Gathered`; {} where it had not begun to search.
        self.ends: dict[str, str] = {}

    def run(self, limit: int = 0, *, restart: bool = False) -> Gathered:
        """Search and download until the quotas or the limit are met, or no source has more.

        `restart` asks queries again that had no more: the user knows of news, or states another licence now.

        Raises:
            MissingServiceError: what the only source stands on (a browser, say) is not there.
            StorageError: the disk is full; what was settled is kept.
        """
        began = time.monotonic()
        pipeline: LimitedPipeline
        with (
            Ledger(self._dataset.ledger) as ledger,
            self._telling_ends(),
            self._engine(self._dataset, self._definition, ledger, self._settings) as pipeline,
        ):
            before = ledger.counts()
            pipeline.limit = limit
            self._reopen(ledger)
            self._planner = Planner(ledger, self._definition, list(self._sources), limit, restart=restart)
            for name, source in self._sources.items():
                if _is_local(source):
                    self._take_local(name, source, pipeline)
            with self._searching() as threads:
                self._download(pipeline, ledger, threads)
            self._free(ledger)
            states, reasons = _gained(before, after := ledger.counts())
            waiting = sum(after.states.get(state, 0) for state in (State.FOUND, State.ALLOWED, State.RETRY))
            planner = self._planner
            return Gathered(states, reasons, time.monotonic() - began, planner.verdict(), planner.closed(), waiting, planner.ends())

    @contextmanager
    def _telling_ends(self) -> Iterator[None]:
        """Note at an interrupt why each class ended: outside the pipeline, which has settled then what had arrived."""
        try:
            yield
        except KeyboardInterrupt:
            if hasattr(self, "_planner"):
                with self._lock:  # a search that would not end in time
                    self.ends = self._planner.ends(interrupted=True)
            raise

    def _reopen(self, ledger: Ledger) -> None:
        """Try again what was refused by rules that no longer stand: licences, caps, addresses, robots.txt of one's own servers."""
        denied = {key for key in ledger.counts().reasons if key.startswith(State.DENIED)}
        if f"{State.DENIED}({Reason.LICENCE})" in denied:
            rows = ledger.rows(
                "SELECT DISTINCT json_extract(finds.licence, '$.spdx') FROM urls JOIN finds ON finds.url_id = urls.id"
                " WHERE urls.state = 'DENIED' AND urls.reason = 'licence'"
            )
            ledger.reopen(Reason.LICENCE, [spdx for (spdx,) in rows if spdx and allows(self._definition.collect.licenses, spdx)])
        if f"{State.DENIED}({Reason.CAP})" in denied:
            ledger.reopen(Reason.CAP)  # counted anew; nothing is requested for those still above
        if self._settings.allow_addresses and f"{State.DENIED}({Reason.ADDRESS})" in denied:
            ledger.reopen(Reason.ADDRESS)
        if not self._settings.polite and f"{State.DENIED}({Reason.ROBOTS})" in denied:
            ledger.reopen(Reason.ROBOTS)

    def _free(self, ledger: Ledger) -> None:
        """Let images out of quarantine whose URL was meanwhile found with a licence: a find can overtake its download."""
        rows = ledger.rows(
            "SELECT urls.sha256, finds.licence FROM urls JOIN finds ON finds.url_id = urls.id WHERE urls.state = 'QUARANTINED'"
            " AND urls.reason = 'licence_unknown' AND json_extract(finds.licence, '$.spdx') IS NOT NULL"
        )
        for sha256, text in rows:
            licence = Licence(**json.loads(text))
            if allows(self._definition.collect.licenses, licence.spdx):
                ledger.license_image(sha256, licence)

    def _download(self, pipeline: Pipeline, ledger: Ledger, threads: list[threading.Thread]) -> None:
        patience_s = PATIENCE_S
        while True:
            pipeline.drain(self._enough)
            if self._failure:
                raise self._failure
            if self._enough():
                return
            if any(thread.is_alive() for thread in threads):
                self._news.wait(0.1)
                self._news.clear()
                continue
            with self._lock:
                due = ledger.next_due()
            rest_s = 0.0 if due is None else max(due - time.time(), 0.05)
            if due is None or rest_s > patience_s:
                return
            patience_s -= rest_s
            time.sleep(rest_s)

    def _enough(self) -> bool:
        if self._failure or self._stop.is_set():
            return True
        with self._lock:
            return self._planner.satisfied

    @contextmanager
    def _searching(self) -> Iterator[list[threading.Thread]]:
        """Search threads that run while the block does."""
        threads = [
            threading.Thread(target=self._search, args=(name, source), name=f"search-{name}", daemon=True)
            for name, source in self._sources.items()
            if not _is_local(source)
        ]
        for thread in threads:
            thread.start()
        try:
            yield threads
        finally:
            self._stop.set()
            deadline = time.monotonic() + _JOIN_S
            for thread in threads:
                thread.join(max(deadline - time.monotonic(), 0.0))
            for source in self._sources.values():
                source.close()

    def _search(self, name: str, source: Source) -> None:
        try:
            while not self._stop.is_set() and self._search_once(name, source):
                pass
        except MissingServiceError as error:
            self._give_up(name, error)
        except Exception as error:  # whatever it is, the thread that downloads raises it
            self._failure = error
        finally:
            self._news.set()

    def _search_once(self, name: str, source: Source) -> bool:
        """Ask one page, or wait a little; False when the source has nothing more for this call."""
        with self._lock:
            query = self._planner.next_query(name)
            pause_s = self._planner.pause_s(name) if query is None else None
            cursor = self._planner.cursor(query) if query else None
            if query and self._planner.held(query):
                self._planner.release(query)
                self._news.set()
                return True
        if query is None:
            return pause_s is not None and not self._stop.wait(pause_s)
        page = source.search(query.text, query.class_name, cursor)
        log.debug("%s: '%s' from %s: %s, %d finds %s", name, query.text, cursor, page.outcome, len(page.candidates), page.detail)
        with self._lock:
            self._planner.record(query, page)
        self._news.set()
        return True

    def _give_up(self, name: str, error: MissingServiceError) -> None:
        """A source whose browser is missing stops alone, unless it is the only one."""
        if len(self._sources) == 1:
            self._failure = error
        else:
            log.warning("the source '%s' was left out: %s", name, error)
            with self._lock:
                self._planner.close_source(name, str(error))

    def _take_local(self, name: str, source: LocalSource, pipeline: LimitedPipeline) -> None:
        """Files on this machine: read here, then checked and stored as downloads are."""
        while (query := self._planner.next_query(name)) is not None:
            page = source.search(query.text, query.class_name, self._planner.cursor(query))
            for candidate in page.candidates:
                if pipeline.is_full:
                    return
                _take(source, candidate, pipeline)
            self._planner.record(query, page)


def _take(source: LocalSource, candidate: Candidate, pipeline: Pipeline) -> None:
    group = candidate.source if candidate.source.startswith("video:") else ""
    try:
        data = source.read(candidate)
    except NotFoundError:
        pipeline.take_file(path_of(candidate.url), candidate, group)
    else:
        pipeline.take_bytes(data, candidate, group)


def _is_local(source: Source) -> TypeGuard[LocalSource]:
    return hasattr(source, "read")


def _gained(before: Counts, after: Counts) -> tuple[dict[str, int], dict[str, int]]:
    """What became more: by state (KEPT always named) and by `STATE(reason)`."""
    states = {state: number - before.states.get(state, 0) for state, number in after.states.items()}
    reasons = {key: number - before.reasons.get(key, 0) for key, number in after.reasons.items()}
    kept = {str(State.KEPT): max(states.get(State.KEPT, 0), 0)}
    return kept | {key: number for key, number in states.items() if number > 0}, {key: n for key, n in reasons.items() if n > 0}

"""From URLs that wait in the ledger to images in the store: lease, fetch, inspect, decide, settle.

One event loop fetches, a few processes decode, one thread keeps the books. What is in flight is bounded in number and in
bytes, so memory stays flat whatever waits.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import aiohttp
from yarl import URL

from collect import blobs
from collect.admission import Admission, Arrival, RetryPolicy
from collect.definition import Definition
from collect.images.inspect import InspectLimits
from collect.images.workers import InspectWorkers
from collect.ledger import Lease, Ledger, Settlement
from collect.net.address import AddressGuard, Lookup
from collect.net.domains import registrable_domain
from collect.net.fetch import Fetcher, FetchLimits, Lost, LostError
from collect.net.robots import RobotsCache, opted_out, tdm_header
from collect.net.throttle import Throttle
from collect.records import Candidate, Reason, State
from collect.workspace import Dataset

_HELD_BYTES = 128_000_000
_BATCH = 64
_BATCH_WAIT_S = 0.05
_LOOK_AGAIN_S = 0.25
_LEASES_PER_DOMAIN = 16

Result = TypeVar("Result")


@dataclass(frozen=True)
class DownloadSettings:
    """How to download; what to keep stands in the definition.

    `allow_addresses` are addresses or networks that the guard lets through on any port although they are not public.
    `polite=False`, for one's own servers: no limit per domain, no robots.txt, no tdmrep.json. `lookup` takes the place of
    the system's name resolution.
    """

    allow_addresses: tuple[str, ...] = ()
    polite: bool = True
    stall_s: float = 20.0
    min_bytes_per_s: float = 1000.0
    max_redirects: int = 5
    decode_deadline_s: float = 20.0
    num_decoders: int = 0
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    lookup: Lookup | None = None


@dataclass
class Progress:
    """What a pipeline did since it was opened: settled URLs by state and by `STATE(reason)`, bytes, and what is under way."""

    started_at: float = field(default_factory=time.monotonic)
    states: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    num_bytes: int = 0
    in_flight: int = 0
    waiting: int = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started_at

    @property
    def images_per_second(self) -> float:
        """Images kept or quarantined per second so far."""
        return (self.states[State.KEPT] + self.states[State.QUARANTINED]) / max(self.seconds, 1e-9)

    def add(self, settlement: Settlement) -> None:
        self.states[settlement.state] += 1
        if settlement.reason:
            self.reasons[f"{settlement.state}({settlement.reason})"] += 1
        self.num_bytes += settlement.num_bytes


class Pipeline:
    """Downloads what waits in a dataset's ledger. A context manager; hold the dataset's lock while it is open.

    Opening it makes URLs available again that a dead process had leased.

    Raises:
        UsageError: an allowed address is not one.
        StorageError: the disk is full; everything settled until then is kept.
    """

    def __init__(self, dataset: Dataset, definition: Definition, ledger: Ledger, settings: DownloadSettings | None = None) -> None:
        self._settings = settings = settings or DownloadSettings()
        self._dataset, self._policy, self._path = dataset, definition.collect, ledger.path
        policy = self._policy
        self.progress = Progress()
        self._retries, self._definition = settings.retries, definition
        max_bytes = round(policy.max_megabytes * 1e6)
        self._workers = InspectWorkers(
            InspectLimits(max_bytes, round(policy.max_megapixels * 1e6), policy.max_frames, policy.min_side_px, policy.max_aspect),
            settings.num_decoders, settings.decode_deadline_s,
        )  # fmt: skip
        throttle = Throttle(policy.concurrency, policy.per_domain, polite=settings.polite)
        limits = FetchLimits(max_bytes, policy.deadline_s, settings.stall_s, settings.min_bytes_per_s, settings.max_redirects)
        guard = AddressGuard(settings.allow_addresses, settings.lookup)
        self._fetcher = Fetcher(guard, throttle, limits, user_agent(definition.contact))
        self._robots = RobotsCache(self._fetcher) if settings.polite else None
        self._throttle = throttle
        # One thread keeps the books: leases and settlements never contend, and SQLite sees one writer.
        self._books = ThreadPoolExecutor(1, "books")
        self._decoders = ThreadPoolExecutor(self._workers.num_workers, "decode")

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        self._books.submit(self._open_books).result()
        self._is_online = False
        return self

    def __exit__(self, *exception: object) -> None:
        if self._is_online:
            self._runner.run(self._fetcher.__aexit__())
        self._runner.close()
        self._decoders.shutdown(cancel_futures=True)
        self._books.submit(self._ledger.close).result()
        self._books.shutdown()
        self._workers.close()

    def _open_books(self) -> None:
        self._ledger = Ledger(self._path)
        self._ledger.reclaim()
        blobs.sweep(self._dataset)
        self._admission = Admission(self._dataset, self._definition, self._ledger, self._retries)

    def drain(self, should_stop: Callable[[], bool] = lambda: False, on_progress: Callable[[Progress], None] | None = None) -> None:
        """Download what waits until nothing is due, or until `should_stop()`; URLs that rest for a retry are left.

        Both callables are called from this thread, several times a second. Other connections may add finds meanwhile.
        After an interrupt, leases are given back and what has arrived is settled before KeyboardInterrupt goes on.
        """
        self._runner.run(self._drain(should_stop, on_progress))

    def take_file(self, path: Path, candidate: Candidate, group: str = "") -> Settlement:
        """A local file as if it had been downloaded; see :meth:`take_bytes`."""
        try:
            data = path.read_bytes()
        except OSError as error:
            lost = Lost(State.GONE, Reason.FILE_MISSING, f"{path} cannot be read: {error.strerror}")
            return self._take(candidate, lambda lease: Arrival(lease, lost=lost))
        return self.take_bytes(data, candidate, group)

    def take_bytes(self, data: bytes, candidate: Candidate, group: str = "") -> Settlement:
        """Bytes found under `candidate.url` (a file: URL, say): checked, stored and recorded as downloads are.

        A URL settled before keeps its state, which is returned: nothing is done twice. `group` joins images that must
        share a split. Not to be called while :meth:`drain` runs in another thread.
        """
        return self._take(candidate, lambda lease: Arrival(lease, data, self._workers.inspect(data), group=group))

    def _take(self, candidate: Candidate, arrive: Callable[[Lease], Arrival]) -> Settlement:
        def open_lease() -> Lease | Settlement:
            self._ledger.add_finds([(candidate, registrable_domain(candidate.url))])
            lease = self._ledger.lease_url(candidate.url)
            return lease or self._ledger.settlement(candidate.url)

        def settle(lease: Lease) -> Settlement:
            early = self._admission.refuse_early(lease)
            if early:
                self._admission.settle([early])
                return early
            return self._admission.admit([arrival])[0]

        lease = self._books.submit(open_lease).result()
        if isinstance(lease, Settlement):
            return lease
        arrival = arrive(lease)
        settlement = self._books.submit(settle, lease).result()
        self.progress.add(settlement)
        return settlement

    async def _drain(self, should_stop: Callable[[], bool], on_progress: Callable[[Progress], None] | None) -> None:
        if not self._is_online:
            await self._fetcher.__aenter__()
            self._is_online = True
        run = _Run(self)
        try:
            await run.to_the_end(should_stop, on_progress)
        finally:
            await run.close()
            if on_progress:
                on_progress(self.progress)

    async def in_books(self, work: Callable[[], Result]) -> Result:
        """Do something in the thread that keeps the books."""
        return await asyncio.get_running_loop().run_in_executor(self._books, work)

    async def visit(self, lease: Lease) -> Arrival:
        """Fetch and inspect one URL."""
        visit = _Visit(self._robots, self._throttle)
        reply = await self._fetcher.fetch(lease.url, visit.check, visit.wanted)
        if isinstance(reply, Lost):
            return Arrival(lease, lost=reply, robots=visit.words)
        verdict = await asyncio.get_running_loop().run_in_executor(self._decoders, self._workers.inspect, reply.body)
        final_url = reply.url if reply.redirects else ""
        etag = reply.headers.get("ETag", "")[:200]
        return Arrival(lease, reply.body, verdict, None, reply.status, final_url, reply.redirects, etag, visit.words)

    def lease(self, limit: int, busy: set[str]) -> tuple[list[Lease], list[Settlement]]:
        """Leases to be fetched, and those refused before that (settled already). In the books' thread."""
        per_domain = _LEASES_PER_DOMAIN if self._settings.polite else limit
        leases, refused = [], []
        for lease in self._ledger.lease(limit, per_domain=per_domain, busy=busy):
            early = self._admission.refuse_early(lease)
            if early:
                refused.append(early)
            else:
                leases.append(lease)
        if refused:
            self._admission.settle(refused)
        return leases, refused

    def admit(self, arrivals: list[Arrival]) -> list[Settlement]:
        """Settle arrivals. In the books' thread."""
        return self._admission.admit(arrivals)

    def give_back(self, leases: list[Lease]) -> None:
        """Return untried leases. In the books' thread."""
        self._ledger.give_back(lease.url_id for lease in leases)

    @property
    def window(self) -> int:
        """How many leases may be in memory."""
        return max(128, 4 * self._policy.concurrency)

    @property
    def lanes_per_domain(self) -> int:
        return self._policy.per_domain if self._settings.polite else self._policy.concurrency


class _Visit:
    """What one URL's site says about it: robots.txt and tdmrep.json before, headers after the request."""

    def __init__(self, robots: RobotsCache | None, throttle: Throttle) -> None:
        self._robots, self._throttle = robots, throttle
        self._reserved = False
        self.words = ""

    async def check(self, url: URL) -> None:
        if self._robots is None:
            self.words = "not asked (impolite)"
            return
        rules = await self._robots.rules(url)
        delay_s = rules.crawl_delay_s()
        if delay_s:
            self._throttle.crawl_delay(registrable_domain(str(url)), delay_s)
        refusal = rules.refusal(str(url))
        if refusal:
            self.words = refusal.detail
            raise LostError(refusal)
        self._reserved = rules.reserved(url.path)
        self.words = "allowed"

    def wanted(self, response: aiohttp.ClientResponse) -> None:
        if response.status >= 400:
            raise LostError(Lost(State.GONE, Reason.HTTP_4XX, f"HTTP {response.status}"))
        if response.status != 200:
            raise LostError(Lost(State.GONE, Reason.CONNECTION, f"HTTP {response.status} brings no image"))
        said = tdm_header(response.headers)
        word = opted_out(response.headers) or ("tdm-reservation" if (self._reserved if said is None else said) else "")
        if word:
            self.words = word
            raise LostError(Lost(State.DENIED, Reason.OPT_OUT, f"the site opts out ({word})"))
        if response.content_type in {"text/html", "application/xhtml+xml"}:
            raise LostError(Lost(State.INVALID, Reason.HTML, "a web page, not an image"))


class _Run:
    """One `drain`: queues per domain, a few lanes for each, one batch of arrivals after the other."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline, self._progress = pipeline, pipeline.progress
        self._queues: dict[str, deque[Lease]] = defaultdict(deque)
        self._lanes: dict[asyncio.Task[None], str] = {}
        self._num_lanes: Counter[str] = Counter()
        self._arrivals: deque[Arrival] = deque()
        self._unsettled: dict[int, Lease] = {}
        self._held_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._wake = asyncio.Event()
        self._failure: BaseException | None = None
        self._settler = asyncio.create_task(self._settle_for_ever())

    async def to_the_end(self, should_stop: Callable[[], bool], on_progress: Callable[[Progress], None] | None) -> None:
        look_at, reported_at = 0.0, 0.0
        while not should_stop():
            if self._failure:
                raise self._failure
            moment = time.monotonic()
            if moment >= look_at and len(self._unsettled) <= self._pipeline.window // 2:
                found = await self._lease()
                if not found and not self._unsettled:
                    return
                # A short answer means that little waits: no need to ask again at once.
                look_at = 0.0 if found >= self._pipeline.window // 4 else moment + _LOOK_AGAIN_S
                if not self._unsettled:
                    look_at = 0.0
            if on_progress and moment - reported_at >= _LOOK_AGAIN_S:
                reported_at = moment
                on_progress(self._progress)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _LOOK_AGAIN_S)
            self._wake.clear()

    async def close(self) -> None:
        """End the lanes, settle what has arrived, give the rest back."""
        for task in list(self._lanes):
            task.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)
        self._settler.cancel()
        await asyncio.gather(self._settler, return_exceptions=True)
        if not self._failure and self._arrivals:
            await self._settle()
        left = list(self._unsettled.values())
        self._progress.in_flight = self._progress.waiting = 0
        if left and not self._failure:
            await self._pipeline.in_books(partial(self._pipeline.give_back, left))

    async def _lease(self) -> int:
        busy = {domain for domain, queue in self._queues.items() if queue}
        limit = self._pipeline.window - len(self._unsettled)
        leases, refused = await self._pipeline.in_books(partial(self._pipeline.lease, limit, busy))
        for settlement in refused:
            self._progress.add(settlement)
        for lease in leases:
            self._unsettled[lease.url_id] = lease
            self._queues[lease.domain].append(lease)
        for domain in {lease.domain for lease in leases}:
            self._open_lanes(domain)
        self._count()
        return len(leases) + len(refused)

    def _open_lanes(self, domain: str) -> None:
        wanted = min(self._pipeline.lanes_per_domain, len(self._queues[domain]))
        while self._num_lanes[domain] < wanted:
            task = asyncio.create_task(self._lane(domain))
            self._num_lanes[domain] += 1
            self._lanes[task] = domain
            task.add_done_callback(self._close_lane)

    def _close_lane(self, task: asyncio.Task[None]) -> None:
        domain = self._lanes.pop(task)
        self._num_lanes[domain] -= 1
        if not self._num_lanes[domain]:
            del self._num_lanes[domain]
            if not self._queues[domain]:
                del self._queues[domain]
        if not task.cancelled() and task.exception():
            self._failure = task.exception()
        self._wake.set()

    async def _lane(self, domain: str) -> None:
        queue = self._queues[domain]
        while queue:
            await self._room.wait()
            if not queue:
                break
            arrival = await self._pipeline.visit(queue.popleft())
            self._arrivals.append(arrival)
            self._held_bytes += len(arrival.data)
            if self._held_bytes > _HELD_BYTES:
                self._room.clear()
            self._arrived.set()

    @property
    def _arrived(self) -> asyncio.Event:
        if not hasattr(self, "_arrived_event"):
            self._arrived_event = asyncio.Event()
        return self._arrived_event

    async def _settle_for_ever(self) -> None:
        try:
            while True:
                await self._arrived.wait()
                if len(self._arrivals) < _BATCH:
                    await asyncio.sleep(_BATCH_WAIT_S)
                self._arrived.clear()
                while self._arrivals:
                    await self._settle()
        except Exception as error:
            self._failure = error
            self._wake.set()

    async def _settle(self) -> None:
        batch = [self._arrivals.popleft() for _ in range(min(_BATCH, len(self._arrivals)))]
        settlements = await asyncio.shield(self._pipeline.in_books(partial(self._pipeline.admit, batch)))
        for arrival, settlement in zip(batch, settlements, strict=True):
            self._progress.add(settlement)
            self._unsettled.pop(arrival.lease.url_id, None)
            self._held_bytes -= len(arrival.data)
        if self._held_bytes <= _HELD_BYTES:
            self._room.set()
        self._count()
        self._wake.set()

    def _count(self) -> None:
        self._progress.waiting = sum(len(queue) for queue in self._queues.values())
        self._progress.in_flight = len(self._unsettled) - self._progress.waiting


def user_agent(contact: str) -> str:
    """Who asks, and how to reach them.

    >>> user_agent("mailto:someone@example.org")
    'boxwright/0.1 (+mailto:someone@example.org)'
    """
    return f"boxwright/0.1 (+{contact})" if contact else "boxwright/0.1"

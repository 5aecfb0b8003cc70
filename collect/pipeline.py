"""From URLs that wait in the ledger to images in the store: lease, fetch, inspect, decide, settle.

One event loop fetches, a few processes decode, one thread keeps the books. What is in flight is bounded in number and in
bytes, so memory stays flat whatever waits.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

# Matrices here are tiny: OpenBLAS's threads would only cost a tenth of a second to start. Read once, when numpy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collect import blobs
from collect.admission import Admission, Arrival, RetryPolicy
from collect.definition import Definition
from collect.durability import SyncedInTheBackground
from collect.flow import Progress, Result, Run
from collect.images.decoding import Decoding
from collect.images.limits import InspectLimits
from collect.images.workers import InspectWorkers
from collect.ledger import Ledger
from collect.ledger_rows import Lease, Settlement
from collect.net.address import AddressGuard, Lookup
from collect.net.domains import registrable_domain
from collect.net.fetch import Fetcher, FetchLimits, Lost
from collect.net.robots import RobotsCache
from collect.net.throttle import Throttle
from collect.net.visit import Visit
from collect.records import Candidate, Reason, State
from collect.spool import Spool
from collect.version import user_agent
from collect.workspace import Dataset

if TYPE_CHECKING:
    from collect.lookalikes import Lookalikes

_LEASES_PER_DOMAIN = 16
#: Less than every hundredth URL is on the wire at a time, so that a kill costs no more than that; but so many always may be.
_FEWEST_AT_A_TIME = 8


@dataclass(frozen=True)
class DownloadSettings:
    """How to download; what to keep stands in the definition.

    `allow_addresses` are addresses or networks that the guard lets through on any port although they are not public.
    `polite=False`, for one's own servers: no limit per domain, no robots.txt, no tdmrep.json. `lookup` takes the place of
    the system's name resolution, `client` is one of :data:`collect.net.wire.CLIENTS`.
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
    client: str = "aiohttp"


class Pipeline:
    """Downloads what waits in a dataset's ledger. A context manager; hold the dataset's lock while it is open.

    Opening it makes URLs available again that a dead process had leased.

    Raises:
        UsageError: an allowed address is not one, or `lookalike_model` is no network that can be used.
        NotFoundError: there is no file `lookalike_model`.
        MissingServiceError: it is given, and usearch is not installed; or the client's package is not.
        StorageError: the disk is full; everything settled until then is kept.
    """

    def __init__(self, dataset: Dataset, definition: Definition, ledger: Ledger, settings: DownloadSettings | None = None) -> None:
        self._settings = settings = settings or DownloadSettings()
        self._dataset, self._policy, self._path = dataset, definition.collect, ledger.path
        policy = self._policy
        self.progress = Progress()
        self._retries, self._definition = settings.retries, definition
        max_bytes = round(policy.max_megabytes * 1e6)
        self._lookalikes = _lookalikes(dataset, policy.lookalike_model)
        self._workers = InspectWorkers(
            InspectLimits(max_bytes, round(policy.max_megapixels * 1e6), policy.max_frames, policy.min_side_px, policy.max_aspect),
            settings.num_decoders, settings.decode_deadline_s, self._lookalikes.network if self._lookalikes else None,
        )  # fmt: skip
        throttle = Throttle(min(_FEWEST_AT_A_TIME, policy.concurrency), policy.per_domain, polite=settings.polite)
        limits = FetchLimits(
            max_bytes, policy.deadline_s, settings.stall_s, min_bytes_per_s=settings.min_bytes_per_s, max_redirects=settings.max_redirects
        )
        guard = AddressGuard(settings.allow_addresses, settings.lookup)
        self._fetcher = Fetcher(guard, throttle, limits, user_agent(definition.contact), settings.client)
        self._robots = RobotsCache(self._fetcher) if settings.polite else None
        self._throttle, self._num_urls = throttle, 0
        self.concurrency = policy.concurrency
        self.lanes_per_domain = policy.per_domain if settings.polite else policy.concurrency
        # One thread keeps the books: leases and settlements never contend, and SQLite sees one writer.
        self._books = ThreadPoolExecutor(1, "books")
        self._decoding = Decoding(self._workers)
        self._spool = Spool(dataset)

    def __enter__(self) -> Self:
        gc.freeze()  # what was imported lives as long as the process: looking through it again and again costs a twentieth of the time
        self._runner = asyncio.Runner()
        self._books.submit(self._open_books).result()
        self._is_online = False
        return self

    def __exit__(self, *exception: object) -> None:
        if self._is_online:
            self._runner.run(self._go_offline())
        self._runner.close()
        self._decoding.close()
        self._books.submit(self._close_books).result()
        self._synced.__exit__(*exception)
        gc.unfreeze()
        self._books.shutdown()
        self._workers.close()

    def _open_books(self) -> None:
        self._ledger = Ledger(self._path, synced=False)
        self._ledger.reclaim()
        blobs.sweep(self._dataset)
        self._spool.take_up(self._ledger.is_waiting)
        self._synced = SyncedInTheBackground(self._dataset, self._ledger)
        self._synced.__enter__()
        if self._lookalikes:
            self._lookalikes.catch_up(self._ledger, self._workers)
        self._admission = Admission(self._dataset, self._definition, self._ledger, self._retries, self._lookalikes)

    def _close_books(self) -> None:
        try:
            self._spool.close(self._ledger.is_waiting)
            if self._lookalikes:
                self._lookalikes.save()
        finally:
            self._ledger.close()

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
        run = Run(self)
        try:
            await run.to_the_end(should_stop, on_progress)
        finally:
            await run.close()
            if on_progress:
                on_progress(self.progress)

    async def _go_offline(self) -> None:
        if self._robots:
            await self._robots.__aexit__()
        await self._fetcher.__aexit__()

    async def in_books(self, work: Callable[[], Result]) -> Result:
        """Do something in the thread that keeps the books."""
        return await asyncio.get_running_loop().run_in_executor(self._books, work)

    async def fetch(self, lease: Lease) -> Arrival:
        """What a URL brings: received by a process before this one, or fetched, and then on the disk at once."""
        arrival = self._spool.recall(lease)
        if arrival is None:
            self._throttle.widen(min(self.concurrency, (self._num_urls - 1) // 100))
            arrival = await self.visit(lease)
            if arrival.lost is None:
                self._spool.keep(arrival)
        return arrival

    async def visit(self, lease: Lease) -> Arrival:
        """Fetch one URL."""
        visit = Visit(self._robots, self._throttle)
        reply = await self._fetcher.fetch(lease.url, visit.check, visit.wanted)
        if isinstance(reply, Lost):
            return Arrival(lease, lost=reply, robots=visit.words)
        final_url = reply.url if reply.redirects else ""
        etag = reply.headers.get("ETag", "")[:200]
        return Arrival(lease, reply.body, None, None, reply.status, final_url, reply.redirects, etag, visit.words)

    async def inspect(self, arrival: Arrival) -> Arrival:
        """Add the verdict on an arrival's bytes, from one of the decoding processes."""
        if arrival.lost is not None or arrival.verdict is not None:
            return arrival
        return replace(arrival, verdict=await self._decoding.verdict(arrival.data))

    def lease(self, limit: int, busy: Collection[str]) -> tuple[list[Lease], list[Settlement]]:
        """Leases to be fetched, and those refused before that (settled already). In the books' thread."""
        per_domain = _LEASES_PER_DOMAIN if self._settings.polite else 0
        leases, refused = [], []
        self._num_urls = self._ledger.num_urls()
        for lease in self._ledger.lease(limit, per_domain=per_domain, busy=busy if self._settings.polite else ()):
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
        settlements = self._admission.admit(arrivals)
        self._spool.settled(arrival.lease.url_id for arrival in arrivals)
        return settlements

    def give_back(self, leases: list[Lease]) -> None:
        """Return untried leases. In the books' thread."""
        self._ledger.give_back(lease.url_id for lease in leases)


def _lookalikes(dataset: Dataset, model: str) -> Lookalikes | None:
    if not model:
        return None
    from collect.lookalikes import Lookalikes  # with OpenCV and usearch

    return Lookalikes(dataset, (dataset.folder / model).resolve())

"""The moving parts of a drain: queues per domain, a few lanes for each, one batch of arrivals settled after the other.

What is fetched and not yet settled is bounded in number and in bytes: memory stays flat, and a kill loses little.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from collect.admission import Arrival
from collect.ledger_rows import Lease, Settlement
from collect.records import State

_HELD_BYTES = 128_000_000
_BATCH = 64
_LOOK_AGAIN_S = 0.25

Result = TypeVar("Result")


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


class Work(Protocol):
    """What a run asks of its pipeline."""

    progress: Progress
    concurrency: int
    lanes_per_domain: int

    async def in_books(self, work: Callable[[], Result]) -> Result:
        """Do something in the thread that keeps the books."""

    async def fetch(self, lease: Lease) -> Arrival:
        """Fetch one URL."""

    async def inspect(self, arrival: Arrival) -> Arrival:
        """Add the verdict on an arrival's bytes."""

    def lease(self, limit: int, busy: Collection[str]) -> tuple[list[Lease], list[Settlement]]:
        """Leases to be fetched, and what was refused at once. In the books' thread."""

    def admit(self, arrivals: list[Arrival]) -> list[Settlement]:
        """Settle arrivals. In the books' thread."""

    def give_back(self, leases: list[Lease]) -> None:
        """Return untried leases. In the books' thread."""


class Run:
    """One drain. `to_the_end` once, then `close`."""

    def __init__(self, work: Work) -> None:
        self._work, self._progress = work, work.progress
        self._window = max(128, 4 * work.concurrency)
        self._most_held = max(4, work.concurrency // 2)
        self._queues: dict[str, deque[Lease]] = defaultdict(deque)
        self._lanes: dict[asyncio.Task[None], str] = {}
        self._num_lanes: Counter[str] = Counter()
        self._arrivals: deque[Arrival] = deque()
        self._unsettled: dict[int, Lease] = {}
        self._held = self._held_bytes = 0
        self._room, self._arrived, self._wake = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._room.set()
        self._failure: BaseException | None = None
        self._settler = asyncio.create_task(self._settle_for_ever())

    async def to_the_end(self, should_stop: Callable[[], bool], on_progress: Callable[[Progress], None] | None) -> None:
        """Until nothing is due and nothing under way, or until told to stop."""
        look_at = reported_at = 0.0
        while not should_stop():
            if self._failure:
                raise self._failure
            moment = time.monotonic()
            if not self._unsettled or (moment >= look_at and len(self._unsettled) <= self._window // 2):
                found = await self._lease()
                if not found and not self._unsettled:
                    return
                # A short answer means that little waits: no need to ask again at once.
                look_at = 0.0 if found >= self._window // 4 else moment + _LOOK_AGAIN_S
            if on_progress and moment - reported_at >= _LOOK_AGAIN_S:
                reported_at = moment
                on_progress(self._progress)
            if self._unsettled:
                # Not wait_for: up to Python 3.11 it swallows a Ctrl-C that comes in the moment of the wake.
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_AGAIN_S):
                        await self._wake.wait()
                self._wake.clear()

    async def close(self) -> None:
        """End the lanes, settle what has arrived, give the rest back."""
        for task in list(self._lanes):
            task.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)
        self._settler.cancel()
        await asyncio.gather(self._settler, return_exceptions=True)
        while self._arrivals and not self._failure:
            await self._settle()
        left = list(self._unsettled.values())
        self._progress.in_flight = self._progress.waiting = 0
        if left and not self._failure:
            await self._work.in_books(partial(self._work.give_back, left))

    async def _lease(self) -> int:
        busy = {domain for domain, queue in self._queues.items() if queue}
        limit = self._window - len(self._unsettled)
        leases, refused = await self._work.in_books(partial(self._work.lease, limit, busy))
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
        wanted = min(self._work.lanes_per_domain, len(self._queues[domain]))
        while self._num_lanes[domain] < wanted:
            task = asyncio.create_task(self._lane(self._queues[domain]))
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
        if not task.cancelled():
            self._failure = self._failure or task.exception()
            if self._queues.get(domain):
                self._open_lanes(domain)  # what was leased between the lane's last look at its queue and this call
        self._wake.set()

    async def _lane(self, queue: deque[Lease]) -> None:
        while queue:
            await self._room.wait()
            if not queue:
                break
            arrival = await self._work.fetch(queue.popleft())
            self._hold(1, len(arrival.data))
            self._arrivals.append(await self._work.inspect(arrival))
            self._arrived.set()

    def _hold(self, number: int, num_bytes: int) -> None:
        """Count what is fetched and not settled; new fetches wait while it is too much."""
        self._held += number
        self._held_bytes += num_bytes
        if self._held >= self._most_held or self._held_bytes > _HELD_BYTES:
            self._room.clear()
        else:
            self._room.set()

    async def _settle_for_ever(self) -> None:
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._arrivals:
                    await self._settle()
        except Exception as error:
            self._failure = error  # raised by to_the_end in the caller's thread
            self._wake.set()

    async def _settle(self) -> None:
        batch = [self._arrivals.popleft() for _ in range(min(_BATCH, len(self._arrivals)))]
        settlements = await asyncio.shield(self._work.in_books(partial(self._work.admit, batch)))
        for arrival, settlement in zip(batch, settlements, strict=True):
            self._progress.add(settlement)
            self._unsettled.pop(arrival.lease.url_id, None)
            self._hold(-1, -len(arrival.data))
        self._count()
        self._wake.set()

    def _count(self) -> None:
        self._progress.waiting = sum(len(queue) for queue in self._queues.values())
        self._progress.in_flight = len(self._unsettled) - self._progress.waiting

"""A drain's moving parts, by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import pytest

from collect.admission import Arrival
from collect.flow import Progress, Run
from collect.ledger_rows import Lease, Settlement
from collect.records import Licence, State


class Hanging:
    """Work with one URL whose server never answers."""

    def __init__(self, lease: Lease) -> None:
        self.progress, self.concurrency, self.lanes_per_domain = Progress(), 1, 1
        self._waiting, self.given_back = [lease], 0

    async def in_books(self, work: Callable[[], Any]) -> Any:
        return work()

    async def fetch(self, lease: Lease) -> Arrival:
        await asyncio.sleep(3600)
        raise AssertionError(lease)

    async def inspect(self, arrival: Arrival) -> Arrival:
        return arrival

    def lease(self, limit: int, busy: Collection[str]) -> tuple[list[Lease], list[Settlement]]:
        leases, self._waiting = self._waiting[:limit], []
        return leases, []

    def admit(self, arrivals: list[Arrival]) -> list[Settlement]:
        raise AssertionError(arrivals)

    def give_back(self, leases: list[Lease]) -> None:
        self.given_back += len(leases)


class Answering(Hanging):
    """Work with two URLs of one domain, leased one at a time; `looked_at` is set just before a lane ends."""

    def __init__(self, leases: list[Lease]) -> None:
        super().__init__(leases[0])
        self._later, self.looked_at = leases[1:], asyncio.Event()

    async def fetch(self, lease: Lease) -> Arrival:
        await asyncio.sleep(0)
        return Arrival(lease)

    async def inspect(self, arrival: Arrival) -> Arrival:
        self._waiting, self._later = self._later, []
        self.looked_at.set()
        return arrival

    def admit(self, arrivals: list[Arrival]) -> list[Settlement]:
        return [Settlement(arrival.lease.url_id, State.KEPT) for arrival in arrivals]


def test_what_is_leased_in_the_moment_in_which_the_last_lane_ends_is_fetched() -> None:
    leases = [Lease(number, f"http://127.0.0.1/{number}", "127.0.0.1", 0, "urls", "", Licence(), "", "", "") for number in (1, 2)]

    async def drain() -> None:
        run = Run(work := Answering(leases))
        await run._lease()
        await work.looked_at.wait()  # the lane has seen an empty queue, and the loop has not yet told of its end
        await run._lease()
        async with asyncio.timeout(20):
            await run.to_the_end(lambda: False, None)
        await run.close()
        assert work.progress.states == {State.KEPT: 2}

    asyncio.run(drain())


def test_an_interrupt_in_the_moment_of_a_settled_batch_is_heard() -> None:
    work = Hanging(Lease(1, "http://127.0.0.1/a.jpg", "127.0.0.1", 0, "folder", "", Licence(), "", "", ""))

    async def drain() -> None:
        run, task, loop = Run(work), asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        # A batch is settled, and Ctrl-C, which cancels the task, comes in the same turn of the loop.
        loop.call_later(0.1, lambda: (run._wake.set(), loop.call_soon(task.cancel)))
        looks = iter(range(8))
        try:
            await run.to_the_end(lambda: next(looks, None) is None, None)
        finally:
            await run.close()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(drain())
    assert work.given_back == 1

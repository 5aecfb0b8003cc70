"""A drain's moving parts, by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import pytest

from collect.admission import Arrival
from collect.flow import Progress, Run
from collect.ledger_rows import Lease, Settlement
from collect.records import Licence


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

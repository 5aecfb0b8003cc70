"""`--engine ray`: downloads and decoding run in Ray workers, on this machine or on the cluster that RAY_ADDRESS names.

Searching, deciding and the books stay here, and so does the number of lanes per domain; a domain always goes to the same
worker, so that its delays and robots.txt live in one place. Boxwright must be installed on every node.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

from collect.admission import Arrival
from collect.definition import Definition
from collect.errors import MissingServiceError
from collect.gather import LimitedPipeline
from collect.ledger import Ledger
from collect.ledger_rows import Lease
from collect.net.fetch import Lost
from collect.pipeline import DownloadSettings, Pipeline
from collect.records import Reason, State
from collect.workspace import Dataset


class RayPipeline(LimitedPipeline):
    """A pipeline whose visits happen in Ray workers.

    Raises:
        MissingServiceError: Ray is not installed, or no cluster answers at RAY_ADDRESS.
    """

    def __enter__(self) -> Self:
        self._ray = _connected()
        station = self._ray.remote(num_cpus=1, max_concurrency=max(self._policy.concurrency, 1))(_Station)
        workers = max(int(self._ray.cluster_resources().get("CPU", 1)), 1)
        self._stations = [station.remote(self._dataset, self._definition, self._settings) for _ in range(workers)]
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._ray.shutdown()

    async def visit(self, lease: Lease) -> Arrival:
        """Fetch and inspect one URL in the worker that has its domain."""
        station = self._stations[zlib.crc32(lease.domain.encode()) % len(self._stations)]
        try:
            return cast(Arrival, await station.visit.remote(lease))
        except self._ray.exceptions.RayError as error:
            return Arrival(lease, lost=Lost(State.RETRY, Reason.CONNECTION, f"its Ray worker is gone: {type(error).__name__}"))


class _Station:
    """A Ray actor: fetches and inspects, keeps no books."""

    def __init__(self, dataset: Dataset, definition: Definition, settings: DownloadSettings) -> None:
        no_ledger = cast(Ledger, SimpleNamespace(path=Path(os.devnull)))  # never opened: only `visit` and `inspect` are used here
        # Look-alikes are for those who keep the books.
        definition = replace(definition, collect=replace(definition.collect, lookalike_model=""))
        self._pipeline = _Bookless(dataset, definition, no_ledger, settings)

    async def visit(self, lease: Lease) -> Arrival:
        await self._pipeline.go_online()
        return await self._pipeline.inspect(await self._pipeline.visit(lease))


class _Bookless(Pipeline):
    _is_online = False

    async def go_online(self) -> None:
        if not self._is_online:
            self._is_online = True
            self._throttle.widen(self.concurrency)  # how many URLs there are is known elsewhere
            await self._fetcher.__aenter__()


def _connected() -> Any:
    """Ray, connected to RAY_ADDRESS or to a cluster of its own on 127.0.0.1, with usage reports off."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingServiceError("--engine ray needs Ray, which is not installed; `pip install 'boxwright[ray]'` brings it") from error
    own = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(log_to_driver=False, configure_logging=False, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise MissingServiceError(f"Ray does not answer: {error}; check RAY_ADDRESS, or use --engine local") from error
    return ray

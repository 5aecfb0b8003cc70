"""Files that arrive one by one, looked at by the decoding processes several at a time: what waits is sent together."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from collect.images.limits import Refusal
from collect.images.workers import InspectWorkers
from collect.records import Picture

_MOST_FILES, _MOST_BYTES = 16, 4_000_000


class Decoding:
    """The way from one event loop to the workers. `close` when nothing waits any more."""

    def __init__(self, workers: InspectWorkers) -> None:
        self._workers = workers
        self._threads = ThreadPoolExecutor(workers.num_workers, "decode")
        self._waiting: deque[tuple[bytes, asyncio.Future[Picture | Refusal]]] = deque()
        self._senders: set[asyncio.Task[None]] = set()

    async def verdict(self, data: bytes) -> Picture | Refusal:
        """What the bytes hold, or why they are refused."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Picture | Refusal] = loop.create_future()
        self._waiting.append((data, future))
        if len(self._senders) < self._workers.num_workers:
            self._senders.add(loop.create_task(self._send()))
        return await future

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = self._batch()
            futures = [future for _, future in batch]
            try:
                answers = await loop.run_in_executor(self._threads, self._workers.inspect_all, [data for data, _ in batch])
            except Exception as error:  # whoever waits for a verdict raises it
                for future in futures:
                    if not future.done():
                        future.set_exception(error)
                continue
            for future, answer in zip(futures, answers, strict=True):
                if not future.done():  # its lane may have been cancelled
                    future.set_result(answer)
        # Before anything else can run: whoever comes next must not count on this task any more.
        self._senders.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def _batch(self) -> list[tuple[bytes, asyncio.Future[Picture | Refusal]]]:
        batch = [self._waiting.popleft()]
        num_bytes = len(batch[0][0])
        while self._waiting and len(batch) < _MOST_FILES and num_bytes + len(self._waiting[0][0]) <= _MOST_BYTES:
            batch.append(self._waiting.popleft())
            num_bytes += len(batch[-1][0])
        return batch

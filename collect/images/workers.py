"""Decoding in processes that a hostile file may hang or kill: the kernel ends them at the deadline, and another takes over."""

from __future__ import annotations

import base64
import dataclasses
import mmap
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from collect.images.channel import Channel
from collect.images.decoder import PLACE, Task
from collect.images.limits import InspectLimits, Refusal, refuse_bytes
from collect.records import Picture, Reason

_START = "import sys; from collect.images.decoder import serve; serve(int(sys.argv[1]), int(sys.argv[2]))"


class InspectWorkers:
    """A pool of decoding processes. Thread-safe: as many callers are served at a time as there are workers.

    Processes start on first use. `deadline_s` is what one file may take; `network` is a file for :meth:`vector`.
    """

    def __init__(self, limits: InspectLimits, num_workers: int = 0, deadline_s: float = 20.0, network: Path | None = None) -> None:
        self.num_workers = num_workers or max(1, min(8, (os.cpu_count() or 1) - 1))  # one core fetches
        self._deadline_s = deadline_s
        self._settings = {"limits": dataclasses.asdict(limits), "deadline_s": deadline_s, "network": str(network or "")}
        self._limits = limits
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        self._all: set[_Worker] = set()
        self._lock = threading.Lock()
        for _ in range(self.num_workers):
            self._idle.put(None)  # a place for a worker that has not been started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def inspect(self, data: bytes) -> Picture | Refusal:
        """As :func:`collect.images.inspect.inspect`, in another process; DECODER_TIMEOUT or DECODER_CRASH where that ends it."""
        return self.inspect_all([data])[0]

    def inspect_all(self, files: Sequence[bytes]) -> list[Picture | Refusal]:
        """As :meth:`inspect`, for several files at once, which spares them most of the way between the processes.

        A file that ends the process costs the others nothing but being looked at again.
        """
        answers: list[Picture | Refusal | None] = [refuse_bytes(data, self._limits) for data in files]
        left = [place for place, answer in enumerate(answers) if answer is None]
        worker = self._idle.get()
        try:
            while left:
                if worker is None or not worker.alive():
                    worker = self._replace(worker)
                got = worker.ask(Task.INSPECT, [files[place] for place in left], self._deadline_s)
                if isinstance(got, _Death):
                    answers[left.pop(got.place)] = got.refusal
                    continue
                for place, answer in zip(left, got, strict=True):
                    answers[place] = _answer(answer)
                left = []
        finally:
            self._idle.put(worker)
        return [answer for answer in answers if answer is not None]

    def vector(self, data: bytes) -> bytes:
        """As :meth:`collect.images.lookalikes.Network.vector`; no bytes where the file cannot be decoded."""
        return base64.b64decode((self._ask(Task.VECTOR, [data]) or [""])[0])

    def same(self, data: bytes, others: Sequence[bytes]) -> list[bool]:
        """Which of the other files show the same picture, see :func:`collect.images.lookalikes.same_picture`.

        One that cannot be decoded shows none; where the process dies of one, none of them does.
        """
        return self._ask(Task.SAME, [data, *others]) or [False] * len(others)

    def _ask(self, task: Task, files: Sequence[bytes]) -> list[Any] | None:
        """A process's answers, None where it died of a file."""
        worker = self._idle.get()
        try:
            if worker is None or not worker.alive():
                worker = self._replace(worker)
            got = worker.ask(task, files, self._deadline_s)
            return None if isinstance(got, _Death) else got
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            for worker in self._all:
                worker.end()
            self._all.clear()

    def process_ids(self) -> list[int]:
        """The workers that run now."""
        with self._lock:
            return [worker.process.pid for worker in self._all if worker.alive()]

    def _replace(self, dead: _Worker | None) -> _Worker:
        worker = _Worker(self._settings)
        with self._lock:
            if dead is not None:
                dead.end()
                self._all.discard(dead)
            self._all.add(worker)
        return worker


@dataclass(frozen=True)
class _Death:
    """Which of the files ended a process, and what is to be said of it."""

    place: int
    refusal: Refusal


class _Worker:
    """One process, the socket to it, and a page of memory in which it notes the file that it is at."""

    def __init__(self, settings: dict[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as page:
            page.truncate(mmap.PAGESIZE)
            self._at = mmap.mmap(page.fileno(), mmap.PAGESIZE)
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs.fileno()), str(page.fileno())],
                pass_fds=[theirs.fileno(), page.fileno()], env=environment, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._channel = Channel(ours.detach())
        self._channel.send([orjson.dumps(settings)])

    def alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, task: Task, files: Sequence[bytes], deadline_s: float) -> list[Any] | _Death:
        """The answers to files, or which of them ended the process."""
        # The worker's own alarm ends it at the deadline of each file; should even that fail, reading gives up a little later.
        patience_s = int(deadline_s * len(files)) + 5
        try:
            self._channel.set_patience(patience_s)
            self._at[: PLACE.size] = PLACE.pack(0)
            self._channel.send([bytes([task]), *files])
            answers: list[Any] = orjson.loads(self._channel.receive()[0])
            return answers
        except (EOFError, OSError):
            return self._died(deadline_s)

    def _died(self, deadline_s: float) -> _Death:
        """What ended the process; one that neither answered nor died by itself is killed."""
        waited_until = time.monotonic() + 1.0
        while self.process.poll() is None and time.monotonic() < waited_until:
            time.sleep(0.01)
        code = self.process.poll()
        place = PLACE.unpack(self._at[: PLACE.size])[0]
        self.end()
        if code is None or code == -signal.SIGALRM:
            return _Death(place, Refusal(Reason.DECODER_TIMEOUT, f"not decoded within {deadline_s:g} s; its process was ended"))
        name = signal.Signals(-code).name if code < 0 else f"exit {code}"
        return _Death(place, Refusal(Reason.DECODER_CRASH, f"the decoder died of it ({name})"))

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._channel.close()
        self._at.close()


def _answer(document: dict[str, Any]) -> Picture | Refusal:
    if "reason" in document:
        return Refusal(Reason(document["reason"]), document["detail"])
    return Picture(**document)

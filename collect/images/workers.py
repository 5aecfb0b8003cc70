"""Decoding in processes that a hostile file may hang or kill: the kernel ends them at the deadline, and another takes over."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any, Self

from collect.images.inspect import InspectLimits, Refusal, inspect, refuse_bytes
from collect.records import Picture, Reason

_MEMORY_BYTES = 4 << 30
_START = "import sys; from collect.images.workers import serve; serve(int(sys.argv[1]))"


class InspectWorkers:
    """A pool of decoding processes. Thread-safe: as many callers are served at a time as there are workers.

    Processes start on first use. `deadline_s` is what one file may take.
    """

    def __init__(self, limits: InspectLimits, num_workers: int = 0, deadline_s: float = 20.0) -> None:
        self.num_workers = num_workers or max(1, min(8, (os.cpu_count() or 1) - 1))  # one core fetches
        self._limits, self._deadline_s = limits, deadline_s
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
        refusal = refuse_bytes(data, self._limits)
        if refusal:
            return refusal
        worker = self._idle.get()
        try:
            if worker is None or not worker.alive():
                worker = self._replace(worker)
            answer = worker.ask(data, self._deadline_s)
        finally:
            self._idle.put(worker)
        return answer

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
        worker = _Worker(self._limits, self._deadline_s)
        with self._lock:
            if dead is not None:
                dead.end()
                self._all.discard(dead)
            self._all.add(worker)
        return worker


class _Worker:
    """One process and the socket to it."""

    def __init__(self, limits: InspectLimits, deadline_s: float) -> None:
        ours, theirs = socket.socketpair()
        # The worker's own alarm ends it at the deadline; should even that fail, reading from it gives up a little later.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(deadline_s) + 5, 0))
        with theirs:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs.fileno())],
                pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._connection = Connection(ours.detach())
        self._connection.send_bytes(json.dumps({**dataclasses.asdict(limits), "deadline_s": deadline_s}).encode())

    def alive(self) -> bool:
        return not self._connection.closed and self.process.poll() is None

    def ask(self, data: bytes, deadline_s: float) -> Picture | Refusal:
        try:
            self._connection.send_bytes(data)
            return _answer(json.loads(self._connection.recv_bytes()))
        except (EOFError, OSError):
            pass
        return self._died(deadline_s)

    def _died(self, deadline_s: float) -> Refusal:
        """What ended the process; one that neither answered nor died by itself is killed."""
        waited_until = time.monotonic() + 1.0
        while self.process.poll() is None and time.monotonic() < waited_until:
            time.sleep(0.01)
        code = self.process.poll()
        self.end()
        if code is None or code == -signal.SIGALRM:
            return Refusal(Reason.DECODER_TIMEOUT, f"not decoded within {deadline_s:g} s; its process was ended")
        name = signal.Signals(-code).name if code < 0 else f"exit {code}"
        return Refusal(Reason.DECODER_CRASH, f"the decoder died of it ({name})")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._connection.close()


def serve(descriptor: int) -> None:
    """The worker's loop: limits first, then one file after another, each answered with JSON; ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = Connection(descriptor)
    settings = json.loads(connection.recv_bytes())
    deadline_s = settings.pop("deadline_s")
    limits = InspectLimits(**settings)
    while True:
        try:
            data = connection.recv_bytes(limits.max_bytes)
        except (EOFError, OSError):
            return
        signal.setitimer(signal.ITIMER_REAL, deadline_s)
        answer = inspect(data, limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            connection.send_bytes(json.dumps(dataclasses.asdict(answer)).encode())
        except OSError:
            return


def _answer(document: dict[str, Any]) -> Picture | Refusal:
    if "reason" in document:
        return Refusal(Reason(document["reason"]), document["detail"])
    return Picture(**document)

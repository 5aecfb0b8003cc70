"""Bodies received whole and not settled yet: on the disk at once, so that a collector that was killed need not ask for them again.

They are appended to files of some megabytes in `images/.arrived`, each with what the books need to know of its answer; a
file goes when all in it is settled. A half-written end counts for nothing, nor does what another run of the machine left:
like all that is written while collecting these files are not synced (:mod:`collect.durability`).
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from collect.admission import Arrival
from collect.durability import boot_id
from collect.errors import storage_error
from collect.files import storage_errors
from collect.ledger_rows import Lease
from collect.workspace import Dataset

_FULL_BYTES = 16_000_000
_LENGTHS = struct.Struct("<II")  # of what is said of the answer, and of its body
_FACTS = ("status", "final_url", "redirects", "etag", "robots")


@dataclass
class _File:
    """One file, how long it is, and how many of its bodies are still to be settled."""

    path: Path
    num_bytes: int = 0
    unsettled: int = 0


@dataclass(frozen=True)
class _Left:
    """A body that an earlier process left."""

    file: _File
    begin: int
    length: int
    facts: dict[str, Any]


class Spool:
    """The spool of one dataset; hold the dataset's lock. :meth:`settled` may be called from another thread than the rest."""

    def __init__(self, dataset: Dataset) -> None:
        self._folder, self._boot_id = dataset.images / ".arrived", boot_id()
        self._lock = threading.Lock()
        self._left: dict[str, _Left] = {}
        self._held: dict[int, _File] = {}  # by the id of the URL
        self._last: _File | None = None
        self._descriptor = -1
        self._number = 0

    def take_up(self, is_waiting: Callable[[str], bool]) -> int:
        """Look through what a killed process left; bodies of URLs that no longer wait are dropped. Returns how many are left."""
        for path in sorted(self._folder.glob("*.*")):
            file = _File(path)
            if self._boot_id and path.suffix == f".{self._boot_id}":
                self._number = int(path.stem)
                with storage_errors():
                    for url, entry in _entries(file):
                        self._left[url] = entry
                        file.unsettled += 1
            if not file.unsettled:
                _remove(file)
        self._drop(is_waiting)
        return len(self._left)

    def _drop(self, is_waiting: Callable[[str], bool]) -> None:
        for url in [url for url in self._left if not is_waiting(url)]:
            self._count_down(self._left.pop(url).file)

    def recall(self, lease: Lease) -> Arrival | None:
        """The answer to a lease that an earlier process had received; None where it had not."""
        left = self._left.pop(lease.url, None)
        if left is None:
            return None
        with suppress(OSError), left.file.path.open("rb") as file:
            data = os.pread(file.fileno(), left.length, left.begin)
            if len(data) == left.length:
                self._held[lease.url_id] = left.file
                return Arrival(lease, data, **left.facts)
        self._count_down(left.file)
        return None

    def keep(self, arrival: Arrival) -> None:
        """Write down a body that has just been received.

        Raises:
            StorageError: the disk is full; what was written before is whole.
        """
        facts = {name: value for name in _FACTS if (value := getattr(arrival, name))}
        said = orjson.dumps({"url": arrival.lease.url, **facts})
        with self._lock:
            file = self._open_file()
            try:
                file.num_bytes += _append(self._descriptor, (_LENGTHS.pack(len(said), len(arrival.data)), said, arrival.data))
            except OSError as error:
                with suppress(OSError):
                    os.ftruncate(self._descriptor, file.num_bytes)
                raise storage_error(error) from error
            file.unsettled += 1
            self._held[arrival.lease.url_id] = file

    def settled(self, url_ids: Iterable[int]) -> None:
        """Let go of bodies whose URLs are settled."""
        with self._lock:
            for url_id in url_ids:
                file = self._held.pop(url_id, None)
                if file is not None:
                    self._count_down(file)

    def close(self, is_waiting: Callable[[str], bool]) -> None:
        """Remove what nobody waits for; what is not settled is taken up another time."""
        with self._lock:
            self._drop(is_waiting)
            self._end_file()
            with suppress(OSError):
                self._folder.rmdir()

    def _count_down(self, file: _File) -> None:
        file.unsettled -= 1
        if not file.unsettled and file is not self._last:
            _remove(file)

    def _open_file(self) -> _File:
        if self._last is None or self._last.num_bytes >= _FULL_BYTES:
            self._end_file()
            self._number += 1
            path = self._folder / f"{self._number:08}.{self._boot_id}"
            with storage_errors():
                self._folder.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
            self._last = _File(path)
        return self._last

    def _end_file(self) -> None:
        if self._last is not None:
            os.close(self._descriptor)
            if not self._last.unsettled:
                _remove(self._last)
            self._last = None


def _entries(file: _File) -> Iterator[tuple[str, _Left]]:
    """The whole entries of a file, by URL."""
    length = file.path.stat().st_size
    with file.path.open("rb") as opened:
        while len(lengths := opened.read(_LENGTHS.size)) == _LENGTHS.size:
            length_said, length_body = _LENGTHS.unpack(lengths)
            try:
                facts = orjson.loads(opened.read(length_said))
                url = facts.pop("url")
            except (orjson.JSONDecodeError, AttributeError, KeyError):
                return
            begin = opened.tell()
            if begin + length_body > length:
                return
            yield url, _Left(file, begin, length_body, facts)
            opened.seek(length_body, os.SEEK_CUR)


def _append(descriptor: int, parts: tuple[bytes, ...]) -> int:
    """Write all of it; returns how many bytes that is."""
    length = sum(map(len, parts))
    written = os.writev(descriptor, parts)
    while written < length:
        written += os.write(descriptor, memoryview(b"".join(parts))[written:])
    return length


def _remove(file: _File) -> None:
    with storage_errors():
        file.path.unlink(missing_ok=True)

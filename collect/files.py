"""Writes that a kill or a full disk cannot leave half done, and names that are safe to write."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

from collect.errors import BusyError, StorageError, storage_error


@contextmanager
def storage_errors() -> Iterator[None]:
    """Translate an OSError from writing into :class:`StorageError`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error) from error


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write `data` to `path` so that a reader sees the old bytes or the new ones, never a part.

    Temporary file in the same folder, fsync, rename, fsync of the folder.

    Raises:
        StorageError: the disk is full or the place cannot be written; the old file is untouched.
    """
    with open_atomic(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into, which takes its name when the block ends well; see :func:`write_atomic`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(folder: Path) -> None:
    """Make everything that was written to the file system of `folder` survive a power cut."""
    syncfs = _syncfs()
    if syncfs is None:
        os.sync()
        return
    with storage_errors():
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if syncfs(descriptor):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
        finally:
            os.close(descriptor)


@cache
def _syncfs() -> Callable[[int], int] | None:
    """syncfs(2), which Python does not name; None where the system has none."""
    function: Callable[[int], int] | None = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    return function


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exclusive(path: Path, doing: str) -> Iterator[None]:
    """Hold a lock file for the length of a block; the kernel lets go of it when the process dies.

    Raises:
        BusyError: another process holds it; names what that process is doing.
    """
    with storage_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise BusyError(f"cannot {doing}: {holder} is at work there; wait for it to end, then run this again") from error
        file.seek(0)
        file.truncate()
        file.write(f"'{doing}' (process {os.getpid()})")
        file.flush()
        yield


def safe_join(folder: Path, name: str) -> Path:
    """`folder / name`, refused where `name` climbs out of `folder` (absolute, `..`, or through a link).

    Raises:
        StorageError: the name leads outside.
    """
    target = (folder / name).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise StorageError(f"the path '{name}' leads outside {folder}; it was refused")
    return target

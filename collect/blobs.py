"""The content-addressed store of original image bytes: `images/ab/cd/<sha256>.<ext>`, never re-encoded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from collect.files import fsync_folder, storage_errors
from collect.workspace import Dataset

#: Unfinished files lie here until they are renamed; whatever a killed process left is swept by :func:`sweep`.
_UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class Blob:
    """Bytes to be stored under their sha256 (hex) and extension (no dot)."""

    sha256: str
    extension: str
    data: bytes


def store(dataset: Dataset, sha256: str, extension: str, data: bytes, *, durable: bool = True) -> Path:
    """Write a blob unless it is there already; returns its path. See :func:`store_all`."""
    store_all(dataset, [Blob(sha256, extension, data)], durable=durable)
    return dataset.image_path(sha256, extension)


def store_all(dataset: Dataset, blobs: Iterable[Blob], *, durable: bool = True) -> None:
    """Write blobs that are not there already.

    The bytes are on the disk under their final names before this returns, so rows that name them may be committed. All
    files are written before the first is synced, and a folder is synced once: the disk gets to do them together.
    `durable=False` leaves out the fsyncs: for tests and throw-away sets only.

    Raises:
        StorageError: the disk is full or cannot be written; no part of a blob is left under its name.
    """
    unfinished = str(dataset.images / _UNFINISHED)
    written: list[tuple[int, str, str]] = []
    folders: set[str] = set()
    with storage_errors():
        try:
            _make_folder(unfinished, folders)
            for blob in blobs:
                path = str(dataset.image_path(blob.sha256, blob.extension))
                if os.path.exists(path):  # noqa: PTH110  os.path: this runs once per image, and pathlib costs more than the write
                    continue
                folder = os.path.dirname(path)  # noqa: PTH120
                _make_folder(folder, folders)
                temporary = f"{unfinished}/{blob.sha256}.{os.getpid()}"
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                written.append((descriptor, temporary, path))
                folders.add(folder)
                _write(descriptor, blob.data)
            for descriptor, temporary, path in written:
                if durable:
                    os.fsync(descriptor)
                os.replace(temporary, path)  # noqa: PTH105
            if durable:
                for folder in folders:
                    fsync_folder(Path(folder))
        finally:
            for descriptor, temporary, _path in written:
                os.close(descriptor)
                if os.path.exists(temporary):  # noqa: PTH110
                    os.unlink(temporary)  # noqa: PTH108


def sweep(dataset: Dataset) -> int:
    """Remove what a killed process left unfinished; returns how many files. Call with the dataset's lock held."""
    left = list((dataset.images / _UNFINISHED).glob("*"))
    with storage_errors():
        for path in left:
            path.unlink(missing_ok=True)
    return len(left)


def _make_folder(folder: str, made: set[str]) -> None:
    """Create a folder; every parent that gained an entry is added to `made`, to be synced."""
    if os.path.isdir(folder):  # noqa: PTH112
        return
    parent = os.path.dirname(folder)  # noqa: PTH120
    _make_folder(parent, made)
    with suppress(FileExistsError):
        os.mkdir(folder)  # noqa: PTH102
    made.add(parent)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]

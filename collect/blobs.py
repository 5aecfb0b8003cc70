"""The content-addressed store of original image bytes: `images/ab/cd/<sha256>.<ext>`, never re-encoded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from collect.files import storage_errors, sync_all
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
    """Write one blob; returns its path. See :func:`store_all`."""
    store_all(dataset, [Blob(sha256, extension, data)], durable=durable)
    return dataset.image_path(sha256, extension)


def store_all(dataset: Dataset, blobs: Iterable[Blob], *, durable: bool = True) -> None:
    """Write blobs under their final names; one that is there already is replaced, which heals it should it be damaged.

    All of them, and the folders that name them, are on the disk before this returns, so rows that name them may be
    committed: one sync of the file system for the lot, where a sync per file and folder costs ten times as much. What a power
    cut leaves half written has no row yet. `durable=False` leaves the sync to the caller (:mod:`collect.durability`).

    Raises:
        StorageError: the disk is full or cannot be written; no part of a blob is left under its name.
    """
    images = str(dataset.images)
    for blob in blobs:
        with storage_errors():
            path = f"{images}/{blob.sha256[:2]}/{blob.sha256[2:4]}/{blob.sha256}.{blob.extension}"
            temporary = f"{images}/{_UNFINISHED}/{blob.sha256}.{os.getpid()}"
            try:
                _write(temporary, blob.data)
                _rename(temporary, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108
                raise
    if durable:
        sync_all(dataset.images)


def sweep(dataset: Dataset) -> int:
    """Remove what a killed process left unfinished; returns how many files. Call with the dataset's lock held."""
    left = list((dataset.images / _UNFINISHED).glob("*"))
    with storage_errors():
        for path in left:
            path.unlink(missing_ok=True)
    return len(left)


# os in place of pathlib: this runs once per image, and pathlib costs more than the write.


def _write(path: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        descriptor = os.open(path, flags, 0o644)
    except FileNotFoundError:
        _make_folder(path)
        descriptor = os.open(path, flags, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def _rename(temporary: str, path: str) -> None:
    try:
        os.replace(temporary, path)  # noqa: PTH105
    except FileNotFoundError:
        _make_folder(path)
        os.replace(temporary, path)  # noqa: PTH105


def _make_folder(path: str) -> None:
    """The folder of a path. `makedirs` looks at each parent first: most pictures of a small collection are the first in theirs."""
    folder = path.rpartition("/")[0]
    try:
        os.mkdir(folder)  # noqa: PTH102
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    except FileExistsError:
        return

"""The content-addressed store of original image bytes: `images/ab/cd/<sha256>.<ext>`, never re-encoded."""

from __future__ import annotations

import os
from pathlib import Path

from collect.files import fsync_folder, storage_errors
from collect.workspace import Dataset


def store(dataset: Dataset, sha256: str, extension: str, data: bytes, *, durable: bool = True) -> Path:
    """Write a blob unless it is there already; returns its path.

    The bytes are on the disk under their final name before this returns, so a row that names them may be committed.
    `durable=False` leaves out the fsyncs: for tests and throw-away sets only.

    Raises:
        StorageError: the disk is full or cannot be written; no part of the blob is left under its name.
    """
    path = dataset.image_path(sha256, extension)
    with storage_errors():
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{sha256}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        if durable:
            fsync_folder(path.parent)
    return path

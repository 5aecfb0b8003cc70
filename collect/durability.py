"""What a power cut may take, and how it is noticed: commits are not synced one by one, a thread syncs all of them together.

A killed process loses nothing that it wrote: the kernel still has it. A machine that stops loses what had not reached the
disk, and in any order: a row may survive whose bytes did not. So a marker says since when things may be unsynced, and in which
run of the machine; it is moved on after each sync and removed at a clean end. A collection that opens and finds the marker of
another run of the machine looks at the bytes of every image recorded since, and takes back what is damaged.
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from collect.clock import now
from collect.errors import StorageError
from collect.files import sha256_file, storage_errors, sync_all, write_atomic
from collect.ledger import Ledger
from collect.workspace import Dataset

#: Seconds between two syncs: about what a power cut costs.
_EVERY_S = 5.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SyncedInTheBackground:
    """Keeps the marker of a dataset while the block runs, and syncs every few seconds. Hold the dataset's lock.

    Attributes:
        taken_back: images whose bytes a power cut had damaged; their URLs wait to be fetched again.
    """

    def __init__(self, dataset: Dataset, ledger: Ledger, every_s: float = _EVERY_S) -> None:
        self._dataset, self._every_s = dataset, every_s
        self._marker = dataset.locks / "unsynced.json"
        self._stop = threading.Event()
        left = _read(self._marker)
        goes_on = bool(left) and left["boot"] == boot_id() != ""
        self.taken_back = 0 if goes_on or not left else _take_back(dataset, ledger, left["since"])
        # What a killed process wrote may still be unsynced.
        self._since = left["since"] if goes_on else now()
        self._thread = threading.Thread(target=self._sync_for_ever, name="sync", daemon=True)

    def __enter__(self) -> Self:
        self._mark()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        sync_all(self._dataset.folder)
        self._marker.unlink(missing_ok=True)

    def _mark(self) -> None:
        write_atomic(self._marker, json.dumps({"boot": boot_id(), "since": self._since}))

    def _sync_for_ever(self) -> None:
        began = now()
        while not self._stop.wait(self._every_s):
            # Records are dated a little before their bytes are written: the marker lags one sync behind.
            before, began = began, now()
            with suppress(StorageError):  # a full disk stops the collection elsewhere; the older marker is the safer one
                sync_all(self._dataset.folder)
                self._since = before
                self._mark()


def _read(marker: Path) -> dict[str, str]:
    try:
        left = json.loads(marker.read_bytes())
        return {"boot": str(left["boot"]), "since": str(left["since"])}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        return {"boot": "", "since": ""}  # itself damaged: every image is looked at


def _take_back(dataset: Dataset, ledger: Ledger, since: str) -> int:
    """Undo rows whose bytes are not there; returns how many."""
    damaged = [record.sha256 for record in ledger.images_since(since) if not _is_whole(dataset, record.sha256, record.extension)]
    ledger.take_back(damaged)
    return len(damaged)


def _is_whole(dataset: Dataset, sha256: str, extension: str) -> bool:
    path = dataset.image_path(sha256, extension)
    with storage_errors():
        return path.is_file() and sha256_file(path) == sha256


def boot_id() -> str:
    """Which run of the machine this is; "" where the system does not say, and then every unclean end counts as a power cut."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""

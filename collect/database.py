"""How our SQLite files are opened and written: write-ahead log, synced commits, one writer at a time, others wait."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from collect.errors import CorruptError

_WAIT_S = 60.0


class DatabaseFile:
    """One of our files, open. Use as a context manager."""

    path: Path
    _db: sqlite3.Connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def _version(self, newest: int) -> int:
        """The schema that the file has, 0 = it is new.

        Raises:
            CorruptError: it is newer than the newest one known.
        """
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > newest:
            raise CorruptError(f"{self.path} was written by a newer Boxwright (schema {version}); update Boxwright")
        return version


def connect(path: Path, page_bytes: int = 4096, *, synced: bool = True) -> sqlite3.Connection:
    """An open connection in autocommit mode; another process that writes is waited for, up to a minute.

    `synced=False`: commits survive the process but, until the next sync, not a power cut; the file stays whole all the same.
    """
    database = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
    database.execute(f"PRAGMA page_size = {page_bytes}")
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            # SQLite's own time-out does not hold for the switch to WAL, which two processes may begin at once.
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)
    database.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
    return database


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE … COMMIT, rolled back on any exception."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")

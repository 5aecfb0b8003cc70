"""The file ledger.sqlite: how it is opened, written in transactions, and what its errors mean."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collect import database
from collect.errors import CorruptError, StorageError
from collect.files import storage_errors
from collect.ledger_rows import SCHEMA, SCHEMA_VERSION


class LedgerFile(database.DatabaseFile):
    """An open ledger's connection; see :class:`collect.ledger.Ledger`."""

    def __init__(self, path: Path, *, synced: bool = True) -> None:
        self.path = path
        with storage_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
        with translated(path):
            self._db = database.connect(path, synced=synced)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA cache_size = -32000")
            if self._version(SCHEMA_VERSION) < SCHEMA_VERSION:
                self._db.executescript(SCHEMA)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE … COMMIT, rolled back on any exception."""
        with translated(self.path), database.transaction(self._db):
            yield self._db

    def rows(self, sql: str, *parameters: str | int | float) -> list[Any]:
        """Rows of a question that no method here answers; reads only."""
        with translated(self.path):
            return self._db.execute(sql, parameters).fetchall()


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as ours, with the file's name and what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "readonly" in str(error) or "unable to open" in str(error):
            advice = "SQLite writes beside it even to read; make its folder writable, or copy the workspace to where it is"
            raise StorageError(f"cannot open {path}: {error}; {advice}, then run this again") from error
        if "full" in str(error) or "disk I/O" in str(error):
            raise StorageError(f"cannot write {path}: {error}; free space or choose another --root, then run this again") from error
        if "locked" in str(error):
            raise StorageError(f"{path} is held by another process for over a minute; end that process, then run this again") from error
        raise
    except sqlite3.DatabaseError as error:
        raise CorruptError(f"{path} cannot be read: {error}; restore it from a backup, or move it away to start anew") from error

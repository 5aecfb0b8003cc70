"""ledger.sqlite: every URL ever seen and what became of it, every image and where it came from.

One writer process at a time (the collector holds the dataset's lock); any number of readers. A row is committed only
after the bytes it names are written, so a SIGKILL at any instant loses what was in flight and nothing else; for what a power
cut may take see :mod:`collect.durability`.
"""

from __future__ import annotations

from typing import Any

from collect.clock import now
from collect.ledger_images import ImageTable
from collect.ledger_urls import UrlTable


class Ledger(UrlTable, ImageTable):
    """An open ledger. Use as a context manager; every method is one transaction.

    `synced=False`: commits are left to a sync by others (:func:`collect.database.connect`).

    Raises:
        CorruptError: the file is not a ledger, or a newer Boxwright wrote it.
        StorageError: the disk is full; nothing of the failed transaction is kept.
    """

    # Queries of the planner

    def query_rows(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self._db.execute("SELECT * FROM queries ORDER BY source, class_name, query")]

    def save_query(self, row: dict[str, Any]) -> None:
        """Insert or replace one row of `queries`: where a query on a source stands."""
        columns = ("source", "query", "class_name", "cursor", "outcome", "pages", "found", "dry", "origin")
        with self.transaction() as db:
            db.execute(
                f"INSERT OR REPLACE INTO queries ({', '.join(columns)}, updated_at) VALUES ({', '.join('?' * 10)})",  # noqa: S608
                (*(row[column] for column in columns), now()),
            )

"""The images of a ledger: what is held, where it came from, and whether it is kept."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence

from collect.clock import now
from collect.errors import UsageError
from collect.ledger_file import LedgerFile, translated
from collect.ledger_rows import IMAGE_COLUMNS, image_record, image_row, licence_json
from collect.records import FINAL_STATES, ImageRecord, Licence, Reason, State


class ImageTable(LedgerFile):
    """What a ledger does with images."""

    def add_images(self, records: Iterable[ImageRecord]) -> None:
        """Insert images that did not come through a URL (imports, folders); one that is there keeps its row."""
        with self.transaction() as db:
            insert_images(db, records)

    def images(self, *states: State) -> Iterator[ImageRecord]:
        """Images in the given states (default KEPT), by sha256."""
        wanted = states or (State.KEPT,)
        marks = ", ".join("?" * len(wanted))
        with translated(self.path):
            rows = self._db.execute(f"SELECT * FROM images WHERE state IN ({marks}) ORDER BY sha256", wanted)  # noqa: S608
            for row in rows:
                yield image_record(row)

    def images_since(self, moment: str) -> list[ImageRecord]:
        """Images found at or after a moment as :func:`collect.clock.now` writes it."""
        return [image_record(row) for row in self.rows("SELECT * FROM images WHERE found_at >= ?", moment)]

    def take_back(self, sha256s: Iterable[str]) -> None:
        """Forget images, and let the URLs that brought them, or were found to equal them, wait to be fetched again."""
        with self.transaction() as db:
            for sha256 in sha256s:
                db.execute("DELETE FROM images WHERE sha256 = ?", (sha256,))
                db.execute("DELETE FROM windows WHERE sha256 = ?", (sha256,))
                db.execute("DELETE FROM vectors WHERE sha256 = ?", (sha256,))
                db.execute(
                    "UPDATE urls SET state = 'FOUND', reason = '', detail = '', not_before = 0, attempts = 0, sha256 = '',"
                    " duplicate_of = '' WHERE sha256 = ? OR duplicate_of = ?",
                    (sha256, sha256),
                )

    def newest_images(self, state: State, limit: int) -> list[ImageRecord]:
        """The last `limit` images found, newest first."""
        rows = self._db.execute("SELECT * FROM images WHERE state = ? ORDER BY found_at DESC, sha256 LIMIT ?", (state, limit))
        return [image_record(row) for row in rows]

    def image(self, sha256: str) -> ImageRecord | None:
        row = self._db.execute("SELECT * FROM images WHERE sha256 = ?", (sha256,)).fetchone()
        return image_record(row) if row else None

    def held(self, sha256s: Iterable[str]) -> set[str]:
        """Which of these images are held, in whatever state."""
        asked = tuple(sha256s)
        marks = ", ".join("?" * len(asked))
        return {row[0] for row in self._db.execute(f"SELECT sha256 FROM images WHERE sha256 IN ({marks})", asked)}  # noqa: S608

    def image_of_sha1(self, sha1: str) -> ImageRecord | None:
        """The image whose bytes have a sha1 (hex); None too where it came before sha1s were recorded."""
        row = self._db.execute("SELECT * FROM images WHERE json_extract(extra, '$.sha1') = ?", (sha1,)).fetchone()
        return image_record(row) if row else None

    def image_hashes(self) -> Iterator[tuple[str, str, bytes]]:
        """`(sha256, phash, hashes of its windows)` of every image ever held, in whatever state; reads narrow trees only."""
        query = (
            "SELECT images.sha256, images.phash, coalesce(windows.hashes, x'') FROM images INDEXED BY images_by_phash"
            " LEFT JOIN windows ON windows.sha256 = images.sha256 WHERE images.phash > ''"
        )
        with translated(self.path):
            for row in self._db.execute(query):
                yield tuple(row)

    def images_without_vector(self, network: str) -> list[tuple[str, str]]:
        """`(sha256, extension)` of images, in whatever state, that a network has not looked at."""
        rows = self.rows("SELECT sha256, extension FROM images WHERE sha256 NOT IN (SELECT sha256 FROM vectors WHERE network = ?)", network)
        return [tuple(row) for row in rows]

    def add_vectors(self, entries: Iterable[tuple[str, str, bytes]]) -> None:
        """Record `(sha256, network, vector)`; that of another network is replaced."""
        with self.transaction() as db:
            insert_vectors(db, entries)

    def vectors(self, network: str) -> Iterator[tuple[str, bytes]]:
        """`(sha256, vector)` of every image that a network has looked at."""
        with translated(self.path):
            for row in self._db.execute("SELECT sha256, vector FROM vectors WHERE network = ?", (network,)):
                yield tuple(row)

    def kept_by_domain(self) -> dict[str, int]:
        """How many kept images each registrable domain brought."""
        return dict(tuple(row) for row in self._db.execute("SELECT domain, count(*) FROM images WHERE state = 'KEPT' GROUP BY domain"))

    def kept_by_creator(self) -> dict[str, int]:
        """How many kept images each creator made, as the licences name them."""
        query = "SELECT json_extract(licence, '$.creator'), count(*) FROM images WHERE state = 'KEPT' GROUP BY 1"
        return {row[0]: row[1] for row in self._db.execute(query) if row[0]}

    def license_image(self, sha256: str, licence: Licence) -> None:
        """Keep a quarantined image after all: another find states a licence that is allowed."""
        with self.transaction() as db:
            db.execute(
                "UPDATE images SET state = 'KEPT', reason = '', licence = ? WHERE sha256 = ? AND state = 'QUARANTINED'",
                (licence_json(licence), sha256),
            )
            db.execute("UPDATE urls SET state = 'KEPT', reason = '' WHERE sha256 = ? AND state = 'QUARANTINED'", (sha256,))

    def restate_licences(self, licences: Mapping[str, Licence]) -> None:
        """Give images, by sha256, the licence that is stated for them now."""
        with self.transaction() as db:
            rows = ((licence_json(licence), sha256) for sha256, licence in licences.items())
            db.executemany("UPDATE images SET licence = ? WHERE sha256 = ?", rows)

    def free_images(self, sha256s: Sequence[str], told: Mapping[str, str]) -> None:
        """Take the split of an import from images; `told` stays in their `extra` as `freed`."""
        with self.transaction() as db:
            db.executemany(
                "UPDATE images SET split = '', extra = json_set(extra, '$.freed', json(?)) WHERE sha256 = ?",
                ((json.dumps(dict(told)), sha256) for sha256 in sha256s),
            )

    def num_images(self, state: State = State.KEPT, class_name: str | None = None) -> int:
        if class_name is None:
            return int(self._db.execute("SELECT count(*) FROM images WHERE state = ?", (state,)).fetchone()[0])
        query = "SELECT count(*) FROM images WHERE state = ? AND class_name = ?"
        return int(self._db.execute(query, (state, class_name)).fetchone()[0])

    def require_images(self, dataset: str) -> None:
        """See that there is something to work on; `dataset` is what it is called.

        Raises:
            UsageError: no image is kept; says what brings some.
        """
        if not self.num_images():
            raise UsageError(f"{dataset} has no images yet; `boxwright collect {dataset}` or `boxwright import` brings some")

    def set_image_state(self, sha256: str, state: State, reason: Reason) -> None:
        """Move an image, and the URLs that brought it, to another final state (REVOKED, QUARANTINED, KEPT)."""
        assert state in FINAL_STATES
        with self.transaction() as db:
            db.execute("UPDATE images SET state = ?, reason = ? WHERE sha256 = ?", (state, reason, sha256))
            db.execute(
                "UPDATE urls SET state = ?, reason = ?, settled_at = ? WHERE sha256 = ? AND state IN ('KEPT', 'QUARANTINED', 'REVOKED')",
                (state, reason, now(), sha256),
            )


def insert_vectors(db: sqlite3.Connection, entries: Iterable[tuple[str, str, bytes]]) -> None:
    """Insert vectors within a transaction."""
    db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", entries)


def insert_images(db: sqlite3.Connection, records: Iterable[ImageRecord]) -> None:
    """Insert images within a transaction; one that is there keeps its row."""
    db.executemany(
        f"INSERT INTO images ({', '.join(IMAGE_COLUMNS)}) VALUES ({', '.join('?' * len(IMAGE_COLUMNS))})"  # noqa: S608
        " ON CONFLICT DO NOTHING",
        (image_row(record) for record in records),
    )

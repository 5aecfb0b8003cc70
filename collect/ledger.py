"""ledger.sqlite: every URL ever seen and what became of it, every image and where it came from.

One writer process at a time (the collector holds the dataset's lock); any number of readers. A row is committed only
after the bytes it names are written, so a SIGKILL at any instant loses what was in flight and nothing else; for what a power
cut may take see :mod:`collect.durability`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from collect import database
from collect.clock import now
from collect.errors import CorruptError, StorageError
from collect.files import storage_errors
from collect.ledger_rows import IMAGE_COLUMNS, SCHEMA, SCHEMA_VERSION, image_record, image_row, licence_from_json, licence_json
from collect.records import FINAL_STATES, Candidate, ImageRecord, Licence, Reason, State

_WAITING = "('FOUND', 'ALLOWED', 'LEASED', 'RETRY')"


@dataclass(frozen=True)
class Lease:
    """A URL handed out for download, with what its finds say."""

    url_id: int
    url: str
    domain: str
    attempts: int
    source: str
    class_name: str
    licence: Licence
    page_url: str
    query: str
    sha1: str


@dataclass(frozen=True)
class Settlement:
    """What became of a leased URL. `image` is set where the URL brought a new image (KEPT or QUARANTINED); `windows` are then the
    hashes of its windows (:func:`collect.images.duplicates.pack`).
    """

    url_id: int
    state: State
    reason: Reason = Reason.NONE
    detail: str = ""
    retry_at: float = 0.0
    sha256: str = ""
    duplicate_of: str = ""
    status: int = 0
    final_url: str = ""
    redirects: int = 0
    etag: str = ""
    robots: str = ""
    num_bytes: int = 0
    image: ImageRecord | None = None
    windows: bytes = b""


@dataclass(frozen=True)
class Counts:
    """How many URLs stand where: by state, by `STATE(reason)`, and by (source, class, state)."""

    states: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    by_source: dict[tuple[str, str, str], int] = field(default_factory=dict)


class Ledger:
    """An open ledger. Use as a context manager; every method is one transaction.

    `synced=False`: commits are left to a sync by others (:func:`collect.database.connect`).

    Raises:
        CorruptError: the file is not a ledger, or a newer Boxwright wrote it.
        StorageError: the disk is full; nothing of the failed transaction is kept.
    """

    def __init__(self, path: Path, *, synced: bool = True) -> None:
        self.path = path
        self._last_domain = ""  # where the rotation of `lease` stands
        with storage_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
        with _translated(path):
            self._db = database.connect(path, synced=synced)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA cache_size = -32000")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise CorruptError(f"{path} was written by a newer Boxwright (schema {version}); update Boxwright")
            if version < SCHEMA_VERSION:
                self._db.executescript(SCHEMA)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE … COMMIT, rolled back on any exception."""
        with _translated(self.path), database.transaction(self._db):
            yield self._db

    # URLs

    def add_finds(self, candidates: Iterable[tuple[Candidate, str]]) -> int:
        """Record finds given as `(candidate, registrable domain)`; returns how many URLs are new.

        A URL found again keeps its state and gains the find; the same find again is recorded for a licence that it lacked.
        """
        new, time_found = 0, now()
        with self.transaction() as db:
            for candidate, domain in candidates:
                cursor = db.execute(
                    "INSERT INTO urls (url, domain, state, source, class_name) VALUES (?, ?, 'FOUND', ?, ?) ON CONFLICT (url) DO NOTHING",
                    (candidate.url, domain, candidate.source, candidate.class_name),
                )
                new += cursor.rowcount
                url_id = (
                    cursor.lastrowid if cursor.rowcount else db.execute("SELECT id FROM urls WHERE url = ?", (candidate.url,)).fetchone()[0]
                )
                extra = {
                    "thumbnail": candidate.thumbnail_url,
                    "size": [candidate.width, candidate.height],
                    "sha1": candidate.sha1,
                    "tags": list(candidate.tags),
                    "boxes": [list(box) for box in candidate.boxes],
                }
                db.execute(
                    "INSERT INTO finds (url_id, source, query, class_name, rank, page_url, title, licence, extra, found_at)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET licence = excluded.licence"
                    " WHERE json_extract(licence, '$.spdx') IS NULL AND json_extract(excluded.licence, '$.spdx') IS NOT NULL",
                    (
                        url_id, candidate.source, candidate.query, candidate.class_name, candidate.rank, candidate.page_url,
                        candidate.title, licence_json(candidate.licence), json.dumps({k: v for k, v in extra.items() if v}), time_found,
                    ),
                )  # fmt: skip
        return new

    def reopen(self, reason: Reason, spdx: Iterable[str] | None = None) -> int:
        """Let URLs that were DENIED for `reason` be tried again; with `spdx`, only those with a find under one of these licences."""
        sql = (
            "UPDATE urls SET state = 'FOUND', reason = '', detail = '', not_before = 0, attempts = 0 WHERE state = 'DENIED' AND reason = ?"
        )
        with self.transaction() as db:
            if spdx is None:
                return db.execute(sql, (reason,)).rowcount
            stated = " AND id IN (SELECT url_id FROM finds WHERE json_extract(licence, '$.spdx') = ?)"
            return sum(db.execute(sql + stated, (reason, licence)).rowcount for licence in spdx)

    def rows(self, sql: str, *parameters: str | int | float) -> list[Any]:
        """Rows of a question that no method here answers; reads only."""
        with _translated(self.path):
            return self._db.execute(sql, parameters).fetchall()

    def reclaim(self) -> int:
        """Make URLs that a dead process had leased available again; returns how many. Call with the lock held."""
        with self.transaction() as db:
            return db.execute(
                "UPDATE urls SET state = 'FOUND', not_before = 0, attempts = max(attempts - 1, 0) WHERE state = 'LEASED'"
            ).rowcount

    def give_back(self, url_ids: Iterable[int]) -> None:
        """Return leased URLs untried."""
        with self.transaction() as db:
            db.executemany(
                "UPDATE urls SET state = 'FOUND', not_before = 0, attempts = max(attempts - 1, 0) WHERE id = ? AND state = 'LEASED'",
                [(url_id,) for url_id in url_ids],
            )

    def lease(self, limit: int, seconds: float = 900.0, per_domain: int = 0, busy: Collection[str] = ()) -> list[Lease]:
        """Hand out up to `limit` URLs that wait and whose time has come; they are LEASED for `seconds`.

        With `per_domain`, at most so many of each domain, domains taken in turn from where the last call stopped and those
        in `busy` left out: a million URLs of one site do not keep the others waiting.
        """
        moment = time.time()
        with self.transaction() as db:
            rows = self._in_turn(db, limit, per_domain, busy, moment) if per_domain else _oldest(db, limit, moment)
            db.executemany(
                "UPDATE urls SET state = 'LEASED', not_before = ?, attempts = attempts + 1 WHERE id = ?",
                [(moment + seconds, row["id"]) for row in rows],
            )
            return [self._lease(db, row) for row in rows]

    def lease_url(self, url: str, seconds: float = 900.0) -> Lease | None:
        """Lease one URL by name; None where it is unknown, settled or leased."""
        with self.transaction() as db:
            row = db.execute(
                "SELECT id, url, domain, attempts, source, class_name FROM urls WHERE url = ? AND state IN ('FOUND', 'ALLOWED', 'RETRY')",
                (url,),
            ).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE urls SET state = 'LEASED', not_before = ?, attempts = attempts + 1 WHERE id = ?", (time.time() + seconds, row["id"])
            )
            return self._lease(db, row)

    def _in_turn(self, db: sqlite3.Connection, limit: int, per_domain: int, busy: Collection[str], moment: float) -> list[sqlite3.Row]:
        """Up to `per_domain` due rows of one domain after the other, each found by two seeks in an index."""
        rows: list[sqlite3.Row] = []
        start, wrapped = self._last_domain, False
        while len(rows) < limit:
            found = db.execute(
                # Named, since SQLite else prefers urls_by_state and sorts: ten seconds over a million rows.
                "SELECT domain FROM urls INDEXED BY urls_waiting_by_domain"  # noqa: S608
                f" WHERE state IN {_WAITING} AND domain > ? ORDER BY domain LIMIT 1",
                (self._last_domain,),
            ).fetchone()
            if found is None or (wrapped and found["domain"] > start):
                if wrapped:
                    break
                # The empty domain (files) sorts first and is never greater than anything: it gets its turn at the wrap.
                wrapped, self._last_domain = True, ""
                rows += self._due(db, "", min(per_domain, limit - len(rows)), moment)
                continue
            self._last_domain = found["domain"]
            if self._last_domain not in busy:
                rows += self._due(db, self._last_domain, min(per_domain, limit - len(rows)), moment)
        return rows

    def _due(self, db: sqlite3.Connection, domain: str, limit: int, moment: float) -> list[sqlite3.Row]:
        return db.execute(
            f"SELECT id, url, domain, attempts, source, class_name FROM urls WHERE state IN {_WAITING} AND domain = ?"  # noqa: S608
            " AND not_before <= ? ORDER BY not_before, id LIMIT ?",
            (domain, moment, limit),
        ).fetchall()

    def _lease(self, db: sqlite3.Connection, row: sqlite3.Row) -> Lease:
        finds = db.execute("SELECT query, page_url, licence, extra FROM finds WHERE url_id = ? ORDER BY id", (row["id"],)).fetchall()
        licences = [licence_from_json(find["licence"]) for find in finds]
        licence = next((entry for entry in licences if entry.spdx), licences[0] if licences else Licence())
        first = finds[0] if finds else None
        return Lease(
            url_id=row["id"], url=row["url"], domain=row["domain"], attempts=row["attempts"] + 1, source=row["source"],
            class_name=row["class_name"], licence=licence, page_url=first["page_url"] if first else "",
            query=first["query"] if first else "", sha1=json.loads(first["extra"]).get("sha1", "") if first else "",
        )  # fmt: skip

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Record what became of leased URLs, and the images they brought, in one transaction."""
        time_settled = now()
        with self.transaction() as db:
            db.executemany(
                "UPDATE urls SET state = ?, reason = ?, detail = ?, not_before = ?, sha256 = ?, duplicate_of = ?, status = ?,"
                " final_url = ?, redirects = ?, etag = ?, robots = ?, num_bytes = ?, settled_at = ? WHERE id = ?",
                [
                    (
                        s.state, s.reason, s.detail[:500], s.retry_at, s.sha256, s.duplicate_of, s.status, s.final_url, s.redirects,
                        s.etag, s.robots, s.num_bytes, time_settled, s.url_id,
                    )
                    for s in settlements
                ],
            )  # fmt: skip
            self._insert_images(db, [s.image for s in settlements if s.image])
            db.executemany("INSERT OR IGNORE INTO windows VALUES (?, ?)", [(s.sha256, s.windows) for s in settlements if s.windows])

    def settlement(self, url: str) -> Settlement:
        """What became of a URL that is known; LEASED, FOUND or RETRY where nothing final did."""
        row = self._db.execute(
            "SELECT id, state, reason, detail, not_before, sha256, duplicate_of, status, final_url, redirects, etag, robots, num_bytes"
            " FROM urls WHERE url = ?",
            (url,),
        ).fetchone()
        values = {**dict(row), "state": State(row["state"]), "reason": Reason(row["reason"])}
        return Settlement(url_id=values.pop("id"), retry_at=values.pop("not_before"), **values)

    def next_due(self) -> float | None:
        """Unix time at which the next waiting URL may be leased; None when none waits."""
        row = self._db.execute(f"SELECT min(not_before) FROM urls INDEXED BY urls_waiting WHERE state IN {_WAITING}").fetchone()  # noqa: S608
        return None if row[0] is None else float(row[0])

    def counts(self) -> Counts:
        """Where all URLs stand; reads one index, whatever the number of rows."""
        states: dict[str, int] = {}
        reasons: dict[str, int] = {}
        by_source: dict[tuple[str, str, str], int] = {}
        query = "SELECT state, reason, source, class_name, count(*) FROM urls GROUP BY state, reason, source, class_name"
        with _translated(self.path):
            rows = self._db.execute(query).fetchall()
        for state, reason, source, class_name, number in rows:
            states[state] = states.get(state, 0) + number
            if reason:
                key = f"{state}({reason})"
                reasons[key] = reasons.get(key, 0) + number
            place = (source, class_name, state)
            by_source[place] = by_source.get(place, 0) + number
        return Counts(states, reasons, by_source)

    def examples(self, state: str, reason: str, limit: int = 3) -> list[dict[str, Any]]:
        """Some URLs in a state for a reason, newest last: `url`, `detail`, `status`, `source`."""
        rows = self._db.execute(
            "SELECT url, detail, status, source, duplicate_of FROM urls WHERE state = ? AND reason = ? LIMIT ?",
            (state, reason, limit),
        )
        return [dict(row) for row in rows]

    def finds_of(self, sha256: str) -> list[dict[str, Any]]:
        """All finds of an image, through every URL that brought it."""
        rows = self._db.execute(
            "SELECT urls.url, finds.source, finds.query, finds.class_name, finds.rank, finds.page_url, finds.title, finds.licence,"
            " finds.found_at FROM urls JOIN finds ON finds.url_id = urls.id WHERE urls.sha256 = ? ORDER BY finds.id",
            (sha256,),
        )
        return [{**dict(row), "licence": json.loads(row["licence"])} for row in rows]

    # Images

    def add_images(self, records: Iterable[ImageRecord]) -> None:
        """Insert images that did not come through a URL (imports, folders); one that is there keeps its row."""
        with self.transaction() as db:
            self._insert_images(db, records)

    def _insert_images(self, db: sqlite3.Connection, records: Iterable[ImageRecord]) -> None:
        db.executemany(
            f"INSERT INTO images ({', '.join(IMAGE_COLUMNS)}) VALUES ({', '.join('?' * len(IMAGE_COLUMNS))})"  # noqa: S608
            " ON CONFLICT DO NOTHING",
            (image_row(record) for record in records),
        )

    def images(self, *states: State) -> Iterator[ImageRecord]:
        """Images in the given states (default KEPT), by sha256."""
        wanted = states or (State.KEPT,)
        marks = ", ".join("?" * len(wanted))
        with _translated(self.path):
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

    def image_hashes(self) -> Iterator[tuple[str, str, bytes]]:
        """`(sha256, phash, hashes of its windows)` of every image ever held, in whatever state; reads narrow trees only."""
        query = (
            "SELECT images.sha256, images.phash, coalesce(windows.hashes, x'') FROM images INDEXED BY images_by_phash"
            " LEFT JOIN windows ON windows.sha256 = images.sha256 WHERE images.phash > ''"
        )
        with _translated(self.path):
            for row in self._db.execute(query):
                yield tuple(row)

    def urls_of(self, sha256: str, limit: int = 100) -> list[str]:
        """URLs that brought these bytes, whatever became of them."""
        return [row[0] for row in self._db.execute("SELECT url FROM urls WHERE sha256 = ? LIMIT ?", (sha256, limit))]

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

    def num_images(self, state: State = State.KEPT, class_name: str | None = None) -> int:
        if class_name is None:
            return int(self._db.execute("SELECT count(*) FROM images WHERE state = ?", (state,)).fetchone()[0])
        query = "SELECT count(*) FROM images WHERE state = ? AND class_name = ?"
        return int(self._db.execute(query, (state, class_name)).fetchone()[0])

    def set_image_state(self, sha256: str, state: State, reason: Reason) -> None:
        """Move an image, and the URLs that brought it, to another final state (REVOKED, QUARANTINED, KEPT)."""
        assert state in FINAL_STATES
        with self.transaction() as db:
            db.execute("UPDATE images SET state = ?, reason = ? WHERE sha256 = ?", (state, reason, sha256))
            db.execute(
                "UPDATE urls SET state = ?, reason = ?, settled_at = ? WHERE sha256 = ? AND state IN ('KEPT', 'QUARANTINED', 'REVOKED')",
                (state, reason, now(), sha256),
            )

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


def _oldest(db: sqlite3.Connection, limit: int, moment: float) -> list[sqlite3.Row]:
    return db.execute(
        "SELECT id, url, domain, attempts, source, class_name FROM urls INDEXED BY urls_waiting"  # noqa: S608
        f" WHERE state IN {_WAITING} AND not_before <= ? ORDER BY not_before, id LIMIT ?",
        (moment, limit),
    ).fetchall()


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error) or "readonly" in str(error) or "unable to open" in str(error) or "disk I/O" in str(error):
            raise StorageError(f"cannot write {path}: {error}; free space or choose another --root, then run this again") from error
        if "locked" in str(error):
            raise StorageError(f"{path} is held by another process for over a minute; end that process, then run this again") from error
        raise
    except sqlite3.DatabaseError as error:
        raise CorruptError(f"{path} cannot be read: {error}; restore it from a backup, or move it away to start anew") from error

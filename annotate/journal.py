"""labels.sqlite: the append-only journal of everything that was ever said about a box or an image.

Each event carries the whole new state of the box (or the verdict on the image) it is about, a pointer to the event
before it for the same box, and a hash chained over the event before it in the journal. So the present state is "the last
event wins" (:mod:`annotate.state`), undo is writing an earlier state again, and a changed byte breaks the chain.

Several processes may append at once; SQLite serialises them, and `append` computes pointers and hashes inside its
transaction. An event is on the disk (fsync) when `append` returns.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson

from annotate import seal
from collect import database
from collect.clock import now
from collect.errors import BusyError, CorruptError, StorageError, UsageError
from collect.files import storage_errors

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    uid TEXT NOT NULL,            -- random, survives merges
    time TEXT NOT NULL,
    actor TEXT NOT NULL,          -- reviewer:NAME, model:NAME, import:FORMAT, guard
    kind TEXT NOT NULL,
    image TEXT NOT NULL,          -- sha256 of the original bytes
    box TEXT NOT NULL,            -- 24 hex digits; '' for events about the whole image
    status TEXT NOT NULL,         -- of the box, or the verdict on the image
    category TEXT NOT NULL,
    x REAL NOT NULL, y REAL NOT NULL, w REAL NOT NULL, h REAL NOT NULL,   -- pixels of the upright image
    score REAL,                   -- of a model
    detail TEXT NOT NULL,         -- JSON: attributes, iscrowd, segmentation, area, weights_sha256, threshold, prompt, undoes
    previous INTEGER NOT NULL,    -- seq of the event before for this box or verdict, 0 = none
    hash BLOB NOT NULL
);
CREATE UNIQUE INDEX events_by_uid ON events (uid);
CREATE INDEX events_by_image ON events (image, box, seq);
"""
_COLUMNS = "seq, uid, time, actor, kind, image, box, status, category, x, y, w, h, score, detail, previous, hash"
GENESIS = bytes(32)


class Kind(StrEnum):
    """What happened. All but VERDICT are about one box; UNDO is about either."""

    PROPOSE = "propose"
    IMPORT = "import"
    DRAW = "draw"
    EDIT = "edit"
    ACCEPT = "accept"
    DELETE = "delete"
    RESTORE = "restore"
    VERDICT = "verdict"
    UNDO = "undo"


class Status(StrEnum):
    """Where a box stands: a model's proposal, a box of the dataset, or gone."""

    PROPOSED = "proposed"
    PRESENT = "present"
    GONE = "gone"


class Verdict(StrEnum):
    """Where an image stands."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    NEEDS_BOXES = "needs_boxes"


@dataclass(frozen=True, slots=True)
class Event:
    """One row. A new event leaves `seq`, `uid`, `time`, `previous` and `hash` to `append`.

    `x, y, w, h` are pixels of the upright image; `status` is a :class:`Status` where `box` is set, else a
    :class:`Verdict`; `detail` is a JSON object as text ("" = none).
    """

    kind: str
    actor: str
    image: str
    box: str = ""
    status: str = ""
    category: str = ""
    x: float = 0.0
    y: float = 0.0
    w: float = 0.0
    h: float = 0.0
    score: float | None = None
    detail: str = ""
    time: str = ""
    uid: str = ""
    seq: int = 0
    previous: int = 0
    hash: bytes = b""

    @property
    def xywh(self) -> tuple[float, float, float, float]:
        return self.x, self.y, self.w, self.h

    @property
    def details(self) -> dict[str, Any]:
        return dict(json.loads(self.detail)) if self.detail else {}


def new_box_id() -> str:
    """A fresh box id: 24 hex digits, which FiftyOne takes as its own."""
    return secrets.token_hex(12)


def verdict_event(actor: str, image: str, verdict: str, **detail: Any) -> Event:
    """The event of a verdict on an image."""
    return Event(Kind.VERDICT, actor, image, status=Verdict(verdict), detail=_detail(detail))


def box_event(
    kind: Kind, actor: str, image: str, box: str, status: Status, category: str,
    xywh: tuple[float, float, float, float], score: float | None = None, **detail: Any,
) -> Event:  # fmt: skip
    """The event of a box: its whole new state. Entries of `detail` that are None are left out."""
    x, y, w, h = (float(value) for value in xywh)
    return Event(kind, actor, image, box, status, category, x, y, w, h, score, _detail(detail))


def _detail(detail: dict[str, Any]) -> str:
    given = {key: value for key, value in detail.items() if value is not None}
    return json.dumps(given, ensure_ascii=False, sort_keys=True) if given else ""


def chain(before: bytes, event: Event) -> bytes:
    """sha256 over the hash before and every field of the event but `seq` and `hash`."""
    payload = orjson.dumps(
        (
            event.uid, event.time, event.actor, event.kind, event.image, event.box, event.status, event.category,
            event.x, event.y, event.w, event.h, event.score, event.detail, event.previous,
        )
    )  # fmt: skip
    return hashlib.sha256(before + payload).digest()


class Journal(database.DatabaseFile):
    """An open journal. Use as a context manager.

    Raises:
        CorruptError: the file is no journal, or a newer Boxwright wrote it.
        StorageError: the disk is full; nothing of the failed append is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storage_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
        noted = seal.noted_head(path)  # before the journal is read: another process may append meanwhile
        with self._translated():
            self._db = database.connect(path, seal.PAGE)
            try:
                self._prepare()
                self._check_head(noted)
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        if self._version(SCHEMA_VERSION) == SCHEMA_VERSION:
            return
        with self._transaction():
            if self._version(SCHEMA_VERSION) == 0:
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            full = "full" in str(error) or "disk I/O" in str(error)
            what, then = ("the disk is full or failing: ", "free some space") if full else ("", "mend that")
            raise StorageError(
                f"{what}cannot use {self.path} ({error}); nothing was lost, {then} and run the same command again"
            ) from error
        except sqlite3.DatabaseError as error:
            raise CorruptError(f"{self.path} cannot be read: {error}; restore it from a backup") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._translated(), database.transaction(self._db):
            yield

    def append(self, events: Iterable[Event], *, head: int | None = None) -> list[Event]:
        """Append events in one transaction; returns them as written, with seq, uid, time, previous and hash.

        `head` is the number of the last event that the caller knew when it made these.

        Raises:
            UsageError: an event is not well formed; nothing of the batch is written.
            BusyError: another process appended after `head`; nothing of the batch is written.
        """
        written: list[Event] = []
        latest: dict[tuple[str, str], int] = {}
        moment = now()
        with self._transaction():
            seq, before = self._head()
            if head is not None and head != seq:
                raise BusyError(f"another process wrote to {self.path} meanwhile; no label was written, run the same command again")
            for event in events:
                _check(event)
                seq += 1
                key = (event.image, event.box)
                previous = latest.get(key)
                if previous is None:
                    previous = self._last_seq(*key)
                complete = replace(
                    event,
                    seq=seq,
                    uid=event.uid or secrets.token_hex(16),
                    time=event.time or moment,
                    previous=previous,
                    hash=b"",
                )
                before = chain(before, complete)
                written.append(replace(complete, hash=before))
                latest[key] = seq
            self._db.executemany(f"INSERT INTO events VALUES ({', '.join('?' * 17)})", map(_row, written))  # noqa: S608
        if written:
            seal.note_head(self.path, seq, before.hex())
        return written

    def _head(self) -> tuple[int, bytes]:
        row = self._db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return (row[0], row[1]) if row else (0, GENESIS)

    def _last_seq(self, image: str, box: str) -> int:
        row = self._db.execute("SELECT max(seq) FROM events WHERE image = ? AND box = ?", (image, box)).fetchone()
        return row[0] or 0

    def head(self) -> tuple[int, str]:
        """`(seq, hash in hex)` of the last event; `(0, 64 zeros)` when there is none."""
        with self._translated():
            seq, digest = self._head()
        return seq, digest.hex()

    def rows(
        self, *, image: str | None = None, after: int = 0, until: int | None = None, kind: Kind | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Raw rows in order, for folds over millions of events; columns as in :class:`Event`, `seq` first, `hash` last.

        `after` excludes, `until` includes the event of that number; `image` and `kind` None = all.
        """
        where, values = ["seq > ?"], [after]
        for test, value in (("seq <= ?", until), ("image = ?", image), ("kind = ?", kind)):
            if value is not None:
                where.append(test)
                values.append(value)  # type: ignore[arg-type]
        with self._translated():
            yield from self._db.execute(f"SELECT {_COLUMNS} FROM events WHERE {' AND '.join(where)} ORDER BY seq", values)  # noqa: S608

    def events(self, *, image: str | None = None, after: int = 0, until: int | None = None, kind: Kind | None = None) -> Iterator[Event]:
        """Events in order; see :meth:`rows`."""
        return map(_event, self.rows(image=image, after=after, until=until, kind=kind))

    def history(self, image: str, box: str) -> list[Event]:
        """Everything that was said of one box, oldest first: each entry's `previous` is the one before it."""
        with self._translated():
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM events WHERE image = ? AND box = ? ORDER BY seq", (image, box))  # noqa: S608
            return [_event(row) for row in rows]

    def event(self, seq: int) -> Event | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM events WHERE seq = ?", (seq,)).fetchone()  # noqa: S608
        return _event(row) if row else None

    def uids(self) -> set[str]:
        return {row[0] for row in self._db.execute("SELECT uid FROM events")}

    def broken(self) -> int | None:
        """The number of the first event that is not as it was written (0: the file itself); None when all are."""
        try:
            before, expected = GENESIS, 1
            for row in self._db.execute(f"SELECT {_COLUMNS} FROM events ORDER BY seq"):  # noqa: S608
                event = _event(row)
                if event.seq != expected or chain(before, event) != event.hash:
                    return expected
                before, expected = event.hash, expected + 1
            integrity = self._db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        except (sqlite3.DatabaseError, UnicodeDecodeError, TypeError, orjson.JSONEncodeError):
            return 0
        return None if integrity == "ok" else 0

    def seal(self) -> None:
        """Move the write-ahead log into the file and note a checksum for each of its pages (:mod:`annotate.seal`).

        Skipped when another process is writing: its own seal follows.
        """
        with self._translated():
            busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if busy:
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                seq, digest = self._head()
                seal.write_seal(self.path, seq, digest.hex())
            finally:
                self._db.execute("ROLLBACK")

    def _check_head(self, noted: tuple[int, str]) -> None:
        """Hold the end of the journal against the last event that was noted."""
        seq, digest = noted
        event = self.event(seq) if seq else None
        if seq and (event is None or event.hash.hex() != digest):
            raise CorruptError(
                f"{self.path} lacks event {seq}, which was written: it or {self.path.name}-wal was changed, cut or put back from an older"
                f" copy; restore both from a backup, or, if they are as you want them, delete {seal.head_path(self.path)}"
            )


def _row(event: Event) -> tuple[Any, ...]:
    return (
        event.seq, event.uid, event.time, event.actor, event.kind, event.image, event.box, event.status, event.category,
        event.x, event.y, event.w, event.h, event.score, event.detail, event.previous, event.hash,
    )  # fmt: skip


def _event(row: Sequence[Any]) -> Event:
    seq, uid, time, actor, kind, image, box, status, category, x, y, w, h, score, detail, previous, digest = row
    return Event(kind, actor, image, box, status, category, x, y, w, h, score, detail, time, uid, seq, previous, digest)


def _check(event: Event) -> None:
    if not event.image or not event.actor:
        raise UsageError(f"a label event needs an image and an actor: {event}")
    valid: tuple[str, ...] = tuple(Status) if event.box else tuple(Verdict)
    if event.status not in valid:
        raise UsageError(f"'{event.status}' is no status for a {'box' if event.box else 'verdict'}; valid: {', '.join(valid)}")
    if event.box and event.status != Status.GONE:
        finite = all(abs(value) < 1e9 for value in event.xywh)  # False for NaN and infinities
        if not finite or event.w <= 0 or event.h <= 0:
            raise UsageError(
                f"box {event.box} of image {event.image[:12]} has the geometry {event.xywh}; it must be finite and have an area"
            )
        if not event.category:
            raise UsageError(f"box {event.box} of image {event.image[:12]} has no category")

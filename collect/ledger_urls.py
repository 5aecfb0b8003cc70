"""The URLs of a ledger: found, leased, settled, counted."""

from __future__ import annotations

import json
import sqlite3
import time
from base64 import b64decode
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from collect.clock import now
from collect.ledger_file import LedgerFile, translated
from collect.ledger_images import insert_images, insert_vectors
from collect.ledger_rows import Counts, Lease, Settlement, licence_from_json, licence_json
from collect.records import Candidate, Licence, Reason, State

_WAITING = "('FOUND', 'ALLOWED', 'LEASED', 'RETRY')"
#: Waiting and not leased, said so that the indexes of what waits serve. A lease ends by settling, by giving back, or when a later
#: process reclaims it; never by the clock, which jumps.
_FREE = f"state IN {_WAITING} AND state <> 'LEASED'"
_LEASE = "UPDATE urls SET state = 'LEASED', attempts = attempts + 1 WHERE id = ?"
_LONGEST_REST_S = 24 * 3600.0


class UrlTable(LedgerFile):
    """What a ledger does with URLs and their finds."""

    _last_domain = ""  # where the rotation of `lease` stands

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

    def reclaim(self) -> int:
        """Make URLs that a dead process had leased available again; returns how many. Call with the lock held.

        None that waits for a retry rests longer than a day from now: if it does, the clock was wrong when it was told to.
        """
        latest = time.time() + _LONGEST_REST_S
        with self.transaction() as db:
            db.execute("UPDATE urls SET not_before = 0 WHERE state = 'RETRY' AND not_before > ?", (latest,))
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

    def lease(self, limit: int, per_domain: int = 0, busy: Collection[str] = ()) -> list[Lease]:
        """Hand out up to `limit` URLs that wait and whose time has come; they are LEASED from then on.

        With `per_domain`, at most so many of each domain, domains taken in turn from where the last call stopped and those
        in `busy` left out: a million URLs of one site do not keep the others waiting.
        """
        moment = time.time()
        with self.transaction() as db:
            rows = self._in_turn(db, limit, per_domain, busy, moment) if per_domain else _oldest(db, limit, moment)
            db.executemany(_LEASE, [(row["id"],) for row in rows])
            return [self._lease(db, row) for row in rows]

    def lease_url(self, url: str) -> Lease | None:
        """Lease one URL by name; None where it is unknown, settled or leased."""
        with self.transaction() as db:
            row = db.execute(
                "SELECT id, url, domain, attempts, source, class_name FROM urls WHERE url = ? AND state IN ('FOUND', 'ALLOWED', 'RETRY')",
                (url,),
            ).fetchone()
            if row is None:
                return None
            db.execute(_LEASE, (row["id"],))
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
            f"SELECT id, url, domain, attempts, source, class_name FROM urls WHERE {_FREE} AND domain = ?"  # noqa: S608
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
            query=first["query"] if first else "", sha1=next(filter(None, (json.loads(find["extra"]).get("sha1") for find in finds)), ""),
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
            insert_images(db, [s.image for s in settlements if s.image])
            db.executemany("INSERT OR IGNORE INTO windows VALUES (?, ?)", [(s.sha256, s.windows) for s in settlements if s.windows])
            insert_vectors(db, [(s.sha256, s.network, s.vector) for s in settlements if s.network])
            db.executemany(
                "INSERT OR REPLACE INTO previews VALUES (?, ?)", [(s.url_id, b64decode(s.preview)) for s in settlements if s.preview]
            )

    def settlement(self, url: str) -> Settlement:
        """What became of a URL that is known; LEASED, FOUND or RETRY where nothing final did."""
        row = self._db.execute(
            "SELECT id, state, reason, detail, not_before, sha256, duplicate_of, status, final_url, redirects, etag, robots, num_bytes"
            " FROM urls WHERE url = ?",
            (url,),
        ).fetchone()
        values = {**dict(row), "state": State(row["state"]), "reason": Reason(row["reason"])}
        return Settlement(url_id=values.pop("id"), retry_at=values.pop("not_before"), **values)

    def num_urls(self) -> int:
        """How many URLs were ever seen: none is forgotten, so the last one's number."""
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM urls").fetchone()[0])

    def is_waiting(self, url: str) -> bool:
        """Whether a URL is known and nothing final became of it."""
        return self._db.execute(f"SELECT 1 FROM urls WHERE url = ? AND state IN {_WAITING}", (url,)).fetchone() is not None  # noqa: S608

    def next_due(self) -> float | None:
        """Unix time at which the next waiting URL may be leased; None when none waits."""
        row = self._db.execute(f"SELECT min(not_before) FROM urls INDEXED BY urls_waiting WHERE {_FREE}").fetchone()  # noqa: S608
        return None if row[0] is None else float(row[0])

    def counts(self) -> Counts:
        """Where all URLs stand; reads one index, whatever the number of rows."""
        states: dict[str, int] = {}
        reasons: dict[str, int] = {}
        by_source: dict[tuple[str, str, str], int] = {}
        query = "SELECT state, reason, source, class_name, count(*) FROM urls GROUP BY state, reason, source, class_name"
        with translated(self.path):
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
        """Some URLs in a state for a reason: `url`, `detail`, `status`, `source`, and of a duplicate `original`, the URL it equals."""
        rows = self._db.execute(
            "SELECT urls.url, urls.detail, urls.status, urls.source, urls.duplicate_of, images.source_url AS original"
            " FROM urls LEFT JOIN images ON images.sha256 = urls.duplicate_of WHERE urls.state = ? AND urls.reason = ? LIMIT ?",
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

    def urls_of(self, sha256: str, limit: int = 100) -> list[str]:
        """URLs that brought these bytes, whatever became of them."""
        return [row[0] for row in self._db.execute("SELECT url FROM urls WHERE sha256 = ? LIMIT ?", (sha256, limit))]


def _oldest(db: sqlite3.Connection, limit: int, moment: float) -> list[sqlite3.Row]:
    return db.execute(
        "SELECT id, url, domain, attempts, source, class_name FROM urls INDEXED BY urls_waiting"  # noqa: S608
        f" WHERE {_FREE} AND not_before <= ? ORDER BY not_before, id LIMIT ?",
        (moment, limit),
    ).fetchall()

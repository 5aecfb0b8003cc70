"""The tables of ledger.sqlite, what is read from and written to them, and how rows become records and back."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any

import orjson

from collect.records import ImageRecord, Licence, Reason, State

SCHEMA_VERSION = 3
SCHEMA = """
CREATE TABLE IF NOT EXISTS urls (
    id INTEGER PRIMARY KEY,
    url TEXT NOT NULL UNIQUE,
    domain TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    detail TEXT NOT NULL DEFAULT '',
    source TEXT NOT NULL,
    class_name TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,      -- unix seconds; RETRY and LEASED rows wait until then
    sha256 TEXT NOT NULL DEFAULT '',
    duplicate_of TEXT NOT NULL DEFAULT '',
    status INTEGER NOT NULL DEFAULT 0,       -- HTTP
    final_url TEXT NOT NULL DEFAULT '',
    redirects INTEGER NOT NULL DEFAULT 0,
    etag TEXT NOT NULL DEFAULT '',
    robots TEXT NOT NULL DEFAULT '',         -- verdict of robots.txt and opt-outs, in words
    num_bytes INTEGER NOT NULL DEFAULT 0,
    settled_at TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS urls_by_state ON urls (state, reason, source, class_name);
CREATE INDEX IF NOT EXISTS urls_waiting ON urls (not_before, id) WHERE state IN ('FOUND', 'ALLOWED', 'LEASED', 'RETRY');
CREATE INDEX IF NOT EXISTS urls_waiting_by_domain ON urls (domain, not_before, id)
    WHERE state IN ('FOUND', 'ALLOWED', 'LEASED', 'RETRY');
CREATE INDEX IF NOT EXISTS urls_by_sha256 ON urls (sha256) WHERE sha256 <> '';
CREATE TABLE IF NOT EXISTS finds (
    id INTEGER PRIMARY KEY,
    url_id INTEGER NOT NULL REFERENCES urls (id),
    source TEXT NOT NULL,
    query TEXT NOT NULL,
    class_name TEXT NOT NULL,
    rank INTEGER NOT NULL,
    page_url TEXT NOT NULL,
    title TEXT NOT NULL,
    licence TEXT NOT NULL,                   -- JSON of records.Licence
    extra TEXT NOT NULL,                     -- JSON: thumbnail, size as stated, sha1, tags, boxes
    found_at TEXT NOT NULL,
    UNIQUE (url_id, source, query, class_name)
);
CREATE TABLE IF NOT EXISTS images (
    sha256 TEXT PRIMARY KEY,
    extension TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    orientation INTEGER NOT NULL,
    phash TEXT NOT NULL,                     -- 16 hex digits
    num_bytes INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    licence TEXT NOT NULL,
    source TEXT NOT NULL,
    query TEXT NOT NULL,
    class_name TEXT NOT NULL,
    source_url TEXT NOT NULL,
    page_url TEXT NOT NULL,
    domain TEXT NOT NULL,
    found_at TEXT NOT NULL,
    file_name TEXT NOT NULL DEFAULT '',
    split TEXT NOT NULL DEFAULT '',
    grp TEXT NOT NULL DEFAULT '',
    quality TEXT NOT NULL DEFAULT '{}',
    extra TEXT NOT NULL DEFAULT '{}'
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS images_by_state ON images (state, class_name);
CREATE INDEX IF NOT EXISTS images_by_phash ON images (phash);
CREATE INDEX IF NOT EXISTS images_by_sha1 ON images (json_extract(extra, '$.sha1'));
CREATE TABLE IF NOT EXISTS windows (         -- hashes of each image's windows, apart from its row so that all are read fast
    sha256 TEXT PRIMARY KEY,
    hashes BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vectors (         -- what each image looks like to [collect] lookalike_model
    sha256 TEXT PRIMARY KEY,
    network TEXT NOT NULL,                   -- begin of the sha256 of its file
    vector BLOB NOT NULL                     -- int8; empty where the image could not be looked at
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS previews (        -- of pictures that were refused or the same twice, so not stored: 24×24 grey, for report.html
    url_id INTEGER PRIMARY KEY,
    grey BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS queries (
    source TEXT NOT NULL,
    query TEXT NOT NULL,
    class_name TEXT NOT NULL,
    cursor TEXT NOT NULL DEFAULT '',         -- where the next page starts, in the source's own terms
    outcome TEXT NOT NULL DEFAULT '',        -- OK, EMPTY, BLOCKED, …: that of the last page
    pages INTEGER NOT NULL DEFAULT 0,
    found INTEGER NOT NULL DEFAULT 0,
    dry INTEGER NOT NULL DEFAULT 0,
    origin TEXT NOT NULL DEFAULT '',         -- '' = from the definition, else what suggested it
    updated_at TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (source, query, class_name)
) WITHOUT ROWID;
"""

IMAGE_COLUMNS = (
    "sha256", "extension", "width", "height", "orientation", "phash", "num_bytes", "state", "reason", "licence", "source", "query",
    "class_name", "source_url", "page_url", "domain", "found_at", "file_name", "split", "grp", "quality", "extra",
)  # fmt: skip


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
    hashes of its windows (:attr:`collect.images.hashing.Look.windows`), `vector` what `network` (:mod:`collect.lookalikes`) made of it.
    `preview`: a thumbnail of a picture that was not stored, as :func:`collect.images.hashing.signature` makes it.
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
    vector: bytes = b""
    network: str = ""
    preview: str = ""


@dataclass(frozen=True)
class Counts:
    """How many URLs stand where: by state, by `STATE(reason)`, and by (source, class, state)."""

    states: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    by_source: dict[tuple[str, str, str], int] = field(default_factory=dict)


def image_row(record: ImageRecord) -> tuple[Any, ...]:
    """The values of a row of `images`, in the order of IMAGE_COLUMNS."""
    r = record
    return (
        r.sha256, r.extension, r.width, r.height, r.orientation, r.phash, r.num_bytes, r.state, r.reason, licence_json(r.licence), r.source,
        r.query, r.class_name, r.source_url, r.page_url, r.domain, r.found_at, r.file_name, r.split, r.group, _json(r.quality),
        _json(r.extra),
    )  # fmt: skip


def image_record(row: sqlite3.Row) -> ImageRecord:
    """A record from a row of `images`."""
    values: dict[str, Any] = dict(row)
    values["group"] = values.pop("grp")
    values["licence"] = licence_from_json(values["licence"])
    values["quality"] = orjson.loads(values["quality"])
    values["extra"] = orjson.loads(values["extra"])
    values["state"], values["reason"] = State(values["state"]), Reason(values["reason"])
    return ImageRecord(**values)


def licence_json(licence: Licence) -> str:
    """A licence as JSON, what is empty left out."""
    return _json({key: value for key, value in vars(licence).items() if value})


def licence_from_json(text: str) -> Licence:
    """A licence from its JSON."""
    return Licence(**orjson.loads(text))


def _json(document: dict[str, Any]) -> str:
    return orjson.dumps(document).decode()

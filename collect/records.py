"""What is known of a URL and of an image: the vocabulary that sources, pipeline, ledger and releases share."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Where a URL stands. The first row is the way to a kept image, the second the ways it can end early."""

    FOUND = "FOUND"
    ALLOWED = "ALLOWED"
    LEASED = "LEASED"
    FETCHED = "FETCHED"
    VALID = "VALID"
    UNIQUE = "UNIQUE"
    KEPT = "KEPT"

    RETRY = "RETRY"
    DENIED = "DENIED"
    GONE = "GONE"
    INVALID = "INVALID"
    DUPLICATE = "DUPLICATE"
    QUARANTINED = "QUARANTINED"
    REVOKED = "REVOKED"


#: States from which nothing more happens by itself.
FINAL_STATES = frozenset({State.KEPT, State.DENIED, State.GONE, State.INVALID, State.DUPLICATE, State.QUARANTINED, State.REVOKED})


class Reason(StrEnum):
    """Why a URL is in its state. One vocabulary, so that `status --why` can count."""

    NONE = ""
    # DENIED
    LICENCE = "licence"
    ROBOTS = "robots"
    OPT_OUT = "opt_out"
    ADDRESS = "address"
    CAP = "cap"
    SCHEME = "scheme"
    # GONE and RETRY
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    RATE_LIMITED = "rate_limited"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    DNS = "dns"
    TLS = "tls"
    REDIRECTS = "redirects"
    TRUNCATED = "truncated"
    CIRCUIT_OPEN = "circuit_open"
    FILE_MISSING = "file_missing"
    # INVALID
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_FRAMES = "too_many_frames"
    TOO_SMALL = "too_small"
    ASPECT = "aspect"
    EMPTY = "empty"
    HTML = "html"
    NOT_AN_IMAGE = "not_an_image"
    BROKEN = "broken"
    FORMAT = "format"
    DECODER_TIMEOUT = "decoder_timeout"
    DECODER_CRASH = "decoder_crash"
    BLANK = "blank"
    DARK = "dark"
    BLURRED = "blurred"
    PLACEHOLDER = "placeholder"
    WATERMARK = "watermark"
    # DUPLICATE
    EXACT = "exact"
    NEAR = "near"
    # QUARANTINED
    LICENCE_UNKNOWN = "licence_unknown"
    # REVOKED
    TAKEN_DOWN = "taken_down"
    OPTED_OUT = "opted_out"
    RELICENSED = "relicensed"
    BY_HAND = "by_hand"


@dataclass(frozen=True)
class Licence:
    """A licence as a source states it. `spdx` is an SPDX id, a `LicenseRef-…`, or `""` where nothing is known.

    `evidence` says where the statement stands (a URL or `user`), `checked_at` when it was read (ISO 8601, UTC).
    """

    spdx: str = ""
    url: str = ""
    creator: str = ""
    creator_url: str = ""
    title: str = ""
    attribution: str = ""
    evidence: str = ""
    checked_at: str = ""


@dataclass(frozen=True)
class Candidate:
    """One find: an image that a source offers for a query. `width` and `height` are what the source says, 0 = unknown.

    `sha1` is hex where the source knows it before the download: a file that is held already is not fetched. `boxes` holds what
    an annotated source (Open Images) brings: `(class_name, x, y, w, h)`, relative to the image's size, origin top left. `group`
    joins candidates that must share a split (frames of one video).
    """

    url: str
    source: str
    query: str = ""
    class_name: str = ""
    rank: int = 0
    page_url: str = ""
    thumbnail_url: str = ""
    title: str = ""
    width: int = 0
    height: int = 0
    sha1: str = ""
    tags: tuple[str, ...] = ()
    licence: Licence = field(default_factory=Licence)
    boxes: tuple[tuple[str, float, float, float, float], ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Picture:
    """What decoding says about an image's bytes. `width` and `height` are those of the *upright* image.

    `orientation` is the EXIF tag as stored (1–8, 1 = upright already); `phash` a 64-bit perceptual hash of the upright
    image as 16 hex digits; `quality` maps a check's name to its score in [0, 1], 1 = certainly bad; `signature` is a small
    thumbnail that confirms near-duplicates (:mod:`collect.images.hashing`); of an animation only the first frame counts.
    `sha1` is how Wikimedia names the same bytes.
    """

    sha256: str
    num_bytes: int
    mime: str
    extension: str
    width: int
    height: int
    orientation: int = 1
    phash: str = ""
    quality: dict[str, float] = field(default_factory=dict)
    signature: str = ""
    frames: int = 1
    sha1: str = ""


@dataclass(frozen=True)
class ImageRecord:
    """One image of a dataset: its picture, its licence and where it came from, as releases and reviews need it.

    `split` is a split that an import fixed (`train`, `val`, `test`), "" = free. `group` joins images that must share a
    split for a reason known at collection (frames of one video). `state` is KEPT, QUARANTINED or REVOKED.
    """

    sha256: str
    extension: str
    width: int
    height: int
    orientation: int
    phash: str
    num_bytes: int
    state: State
    reason: Reason
    licence: Licence
    source: str
    query: str
    class_name: str
    source_url: str
    page_url: str
    domain: str
    found_at: str
    file_name: str = ""
    split: str = ""
    group: str = ""
    quality: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

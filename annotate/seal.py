"""What lies beside a journal and shows that it is as it was written: the last event, and a checksum for each page of the file.

`labels.head` names the last event, rewritten after each append. Without it, events lost at the end (a write-ahead log in which
one byte changed, an older copy put back) would be missed by nobody, since what is left is a whole journal. `labels.seal` holds a
CRC-32 for each page, written when a command has finished, so that even a byte outside all events is under watch. Both carry a
checksum of themselves.
"""

from __future__ import annotations

import fcntl
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import orjson

from collect.errors import CorruptError
from collect.files import storage_errors, write_atomic

PAGE = 4096
_HEAD = re.compile(rb"(\d{20}) ([0-9a-f]{64}) ([0-9a-f]{8})\n")


def head_path(journal: Path) -> Path:
    """Where the last event is noted."""
    return journal.with_suffix(".head")


def seal_path(journal: Path) -> Path:
    """Where the checksums of pages lie."""
    return journal.with_suffix(".seal")


def note_head(journal: Path, seq: int, digest: str) -> None:
    """Note the last event. A writer that comes late never puts an earlier one back."""
    text = b"%020d %b" % (seq, digest.encode())
    with storage_errors(), head_path(journal).open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        match = _HEAD.fullmatch(file.read(200))
        if match is None or int(match[1]) < seq:
            file.truncate(0)  # append mode: what is written lands at the end, which is now the beginning
            file.write(b"%b %08x\n" % (text, zlib.crc32(text)))


def noted_head(journal: Path) -> tuple[int, str]:
    """The number and hash of the last event as noted; `(0, "")` where none is (an older journal, a power cut while noting).

    Raises:
        CorruptError: the note is not as it was written.
    """
    try:
        data = head_path(journal).read_bytes()
    except FileNotFoundError:
        return 0, ""
    match = _HEAD.fullmatch(data)
    if not data.strip(b"\0"):
        return 0, ""
    if match is None or int(match[3], 16) != zlib.crc32(data[:85]):
        raise CorruptError(f"{head_path(journal)} is not as it was written; it only notes the last event, so it may be deleted")
    return int(match[1]), match[2].decode()


def write_seal(journal: Path, seq: int, digest: str) -> None:
    """Seal the file as it is now. Call while nobody writes to it."""
    told = {"seq": seq, "head": digest, "page": PAGE, "crc32": list(_page_sums(journal))}
    write_atomic(seal_path(journal), orjson.dumps({**told, "self": _own_sum(told)}))


def problems(journal: Path) -> list[str]:
    """What is wrong with the two files, and the pages of the journal that are not as sealed. Reads bytes only, opens no database."""
    found = []
    try:
        noted, _ = noted_head(journal)
    except CorruptError as error:
        found, noted = [str(error)], 0
    path, log = seal_path(journal), journal.with_name(journal.name + "-wal")
    if not path.is_file():
        return found
    try:
        told = orjson.loads(path.read_bytes())
        whole = told.pop("self") == _own_sum(told)
    except (ValueError, KeyError, AttributeError, TypeError):
        whole = False
    if not whole:
        return [*found, f"{path} is not as it was written; it only holds checksums, so it may be deleted"]
    if noted > told["seq"] or (log.exists() and log.stat().st_size):
        return found  # events were appended since
    old, new = told["crc32"], list(_page_sums(journal))
    changed = [place for place, sums in enumerate(zip(old, new, strict=False)) if sums[0] != sums[1]]
    if len(old) != len(new):
        changed.append(min(len(old), len(new)))
    if changed:
        pages = f"page {changed[0] + 1}" if len(changed) == 1 else f"{len(changed)} pages, the first of them {changed[0] + 1},"
        found.append(f"{journal}: bytes were changed in {pages} (from byte {changed[0] * PAGE})")
    return found


def _own_sum(told: dict[str, object]) -> int:
    return zlib.crc32(orjson.dumps(told, option=orjson.OPT_SORT_KEYS))


def _page_sums(path: Path) -> Iterator[int]:
    with path.open("rb") as file:
        while page := file.read(PAGE):
            yield zlib.crc32(page)

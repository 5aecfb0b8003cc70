"""Is every byte of journal, images and releases as it was written? Whatever is not is named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from annotate import manifest
from annotate.journal import Journal
from collect.errors import CorruptError
from collect.ledger import Ledger
from collect.records import State
from collect.workspace import Dataset

Advance = Callable[[int], None]


def problems(dataset: Dataset, advance: Advance = lambda _count: None) -> Iterator[str]:
    """One sentence per thing that is not as it was written; nothing when all is. `advance` is called once per image."""
    yield from _journal(dataset)
    yield from _images(dataset, advance)
    for version in dataset.release_names():
        yield from manifest.problems(dataset.releases / version)


def _journal(dataset: Dataset) -> Iterator[str]:
    if not dataset.labels.exists():
        if (dataset.labels.with_suffix(".seal")).exists() or dataset.release_names():
            yield f"{dataset.labels} is missing"
        return
    try:
        with Journal(dataset.labels) as journal:
            pages = journal.changed_pages()
            broken = journal.broken()
            if broken:
                yield f"{dataset.labels}: event {broken} is not as it was written, or an event before it was removed"
            elif broken == 0:
                yield f"{dataset.labels}: the database is damaged"
            if pages:
                yield f"{dataset.labels}: bytes were changed in page {pages[0]} of the file (from byte {max(0, pages[0] - 1) * 4096})"
            yield from _cut_short(dataset, journal)
    except CorruptError as error:
        yield str(error)


def _cut_short(dataset: Dataset, journal: Journal) -> Iterator[str]:
    """Events at the end that a release or the seal knew and that are no longer there."""
    known = []
    for version in dataset.release_names():
        try:
            known.append((version, manifest.read(dataset.releases / version)["journal"]))
        except CorruptError:
            continue  # reported with the release
    for version, point in known:
        event = journal.event(point["event"]) if point["event"] else None
        if point["event"] and (event is None or event.hash.hex() != point["hash"]):
            yield f"{dataset.labels}: event {point['event']}, the last one in {version}, is missing or changed"


def _images(dataset: Dataset, advance: Advance) -> Iterator[str]:
    if not dataset.ledger.exists():
        return
    with Ledger(dataset.ledger) as ledger:
        for record in ledger.images(State.KEPT, State.QUARANTINED, State.REVOKED):
            path = dataset.image_path(record.sha256, record.extension)
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                yield f"{path} cannot be read: {error.strerror}"
            else:
                if digest != record.sha256:
                    yield f"{path} is not as it was written"
            advance(1)

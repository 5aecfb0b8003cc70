"""Is every byte of journal, images and releases as it was written? Whatever is not is named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from annotate import manifest, seal
from annotate.journal import Journal
from collect.errors import CorruptError, StorageError
from collect.ledger import Ledger
from collect.records import State
from collect.workspace import Dataset

Advance = Callable[[int], None]


def problems(dataset: Dataset, advance: Advance = lambda _count: None) -> Iterator[str]:
    """One sentence per thing that is not as it was written; nothing when all is. `advance` is called once per image."""
    yield from _journals(dataset)
    yield from _images(dataset, advance)
    for version in dataset.release_names():
        yield from manifest.problems(dataset.releases / version)


def _journals(dataset: Dataset) -> Iterator[str]:
    """The dataset's journal, and the second opinions that reviewers gave beside it."""
    if dataset.labels.exists():
        yield from _journal(dataset.labels)
        yield from _cut_short(dataset)
    elif dataset.labels.with_suffix(".seal").exists() or dataset.release_names():
        yield f"{dataset.labels} is missing"
    for path in sorted((dataset.folder / "opinions").glob("*.sqlite")):
        yield from _journal(path)


def _journal(path: Path) -> Iterator[str]:
    yield from seal.problems(path)
    try:
        with Journal(path) as journal:
            broken = journal.broken()
    except (CorruptError, StorageError) as error:
        yield str(error)
        return
    if broken:
        yield f"{path}: event {broken} is not as it was written, or an event before it was removed"
    elif broken == 0:
        yield f"{path}: the database is damaged"


def _cut_short(dataset: Dataset) -> Iterator[str]:
    """Events at the end that a release knew and that are no longer there."""
    for version in dataset.release_names():
        try:
            point = manifest.read(dataset.releases / version)["journal"]
            with Journal(dataset.labels) as journal:
                event = journal.event(point["event"]) if point["event"] else None
        except (CorruptError, StorageError):
            continue  # reported with the release, or with the journal
        if point["event"] and (event is None or event.hash.hex() != point["hash"]):
            yield f"{dataset.labels}: event {point['event']}, the last one in {version}, is missing or changed"


def _images(dataset: Dataset, advance: Advance) -> Iterator[str]:
    if not dataset.ledger.exists():
        if dataset.labels.exists() or dataset.release_names():
            yield f"{dataset.ledger} is missing"
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

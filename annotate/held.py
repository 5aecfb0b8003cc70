"""What a dataset holds before an import: its images by hash and name, its labels, and the release that comes back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from annotate import coco, manifest
from annotate.corrections import Base
from annotate.formats.format import LabelledImage
from annotate.formats.names import readable_stem
from annotate.journal import Journal
from annotate.state import ImageLabels, current
from collect.definition import Definition
from collect.ledger import Ledger
from collect.records import ImageRecord, Picture, State
from collect.workspace import Dataset


@dataclass
class Held:
    """What the dataset holds before the import: image rows, labels, and the release that the labels were exported from.

    Boxes have the present names of their classes; `splits` are those that the release gave its images, by sha256.
    """

    records: dict[str, ImageRecord] = field(default_factory=dict)
    labels: dict[str, ImageLabels] = field(default_factory=dict)
    base: Base = field(default_factory=Base)
    splits: dict[str, str] = field(default_factory=dict)
    by_name: dict[str, list[str]] = field(default_factory=dict)
    release: str = ""
    definition: Definition | None = None
    head: tuple[int, str] = (0, "")

    @classmethod
    def of(cls, dataset: Dataset, release: str, definition: Definition | None) -> Held:
        """What is there now; `release` is the version that the labels were exported from, "" = none; `definition` None = a new dataset."""
        held = cls(release=release, definition=definition)
        if dataset.ledger.exists():
            with Ledger(dataset.ledger) as ledger:
                held.records = {record.sha256: record for record in ledger.images(*State)}
        if dataset.labels.exists():
            with Journal(dataset.labels) as journal:
                held.head = journal.head()
                held.labels = current(journal, until=held.head[0])
                held._rename()
        for sha256, record in held.records.items():
            for name in {readable_stem(record.file_name).lower(), sha256}:
                held.by_name.setdefault(name, []).append(sha256)
        if release in dataset.release_names():
            content = coco.CocoFile.open(manifest.labels(dataset.release_path(release)))
            held.splits = {image["sha256"]: image["split"] for image in content.images()}
            held.base = _base(content, definition)
        return held

    def _rename(self) -> None:
        """Give the boxes of classes that were renamed their present names."""
        if self.definition is None or not any(entry.was for entry in self.definition.classes):
            return
        for labels in self.labels.values():
            for number, box in labels.boxes.items():
                labels.boxes[number] = replace(box, category=self.definition.present_name(box.category))

    def renewed(self, dataset: Dataset) -> Held:
        """The same once more, read anew where another process has written meanwhile. Call with the lock held."""
        fresh = replace(self, records={}, head=(0, ""))
        if dataset.ledger.exists():
            with Ledger(dataset.ledger) as ledger:
                fresh.records = {record.sha256: record for record in ledger.images(*State)}
        if dataset.labels.exists():
            with Journal(dataset.labels) as journal:
                fresh.head = journal.head()
        return (
            self
            if (fresh.head, fresh.records.keys()) == (self.head, self.records.keys())
            else Held.of(dataset, self.release, self.definition)
        )

    def find(self, image: LabelledImage) -> Picture | None:
        """A picture of the dataset by its hash or, where that is not ambiguous, by the name that our exports give it."""
        stem = readable_stem(image.file_name).lower()
        hashes = [image.sha256] if image.sha256 in self.records else self.by_name.get(stem, [])
        name, _, short = stem.rpartition("-")
        if not hashes and len(short) == 8:
            hashes = [sha256 for sha256 in self.by_name.get(name, self.records) if sha256.startswith(short)]
        if len(hashes) != 1:
            return None
        record = self.records[hashes[0]]
        return Picture(record.sha256, record.num_bytes, "", record.extension, record.width, record.height, record.orientation, record.phash)


def _base(content: coco.Content, definition: Definition | None) -> Base:
    sha256 = {image["id"]: image["sha256"] for image in content.images()}
    names = {
        category["id"]: definition.present_name(category["name"]) if definition else category["name"]
        for category in content.head["categories"]
    }
    boxes: dict[str, dict[str, Any]] = {value: {} for value in sha256.values()}
    for annotation in content.annotations():
        x, y, w, h = annotation["bbox"]
        boxes[sha256[annotation["image_id"]]][annotation["box"]] = (names[annotation["category_id"]], (x, y, w, h))
    return Base(boxes)

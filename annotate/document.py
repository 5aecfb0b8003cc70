"""The COCO content of a release: images with licence and split, boxes with their origin, ids that stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from operator import itemgetter
from typing import Any

from annotate.coco import Document, Entry
from annotate.journal import Verdict
from annotate.splits import SIZES, size_name
from annotate.state import Box, ImageLabels, Labels, boxes_of_release
from collect.definition import Definition
from collect.licenses import licence_url
from collect.records import ImageRecord


class StableIds:
    """Ids from 1 that stay from release to release and are never given twice. `known` holds all that were ever given."""

    def __init__(self, known: dict[str, int], following: int) -> None:
        self.known = known
        self.following = max([following, *(number + 1 for number in known.values())])

    def of(self, key: str) -> int:
        number = self.known.get(key)
        if number is None:
            number, self.following = self.following, self.following + 1
        return number


@dataclass(frozen=True)
class Ids:
    """The ids of images by sha256 and of annotations by box id."""

    images: StableIds
    annotations: StableIds


@dataclass(frozen=True)
class Draft:
    """A release before it is written. Entries are made as they are asked for, in the order of their ids, and kept nowhere.

    `rows` holds `(image id, record, split)`, `boxes` `(annotation id, image id, category id, box, labels of its image)`,
    `unknown` counts the boxes left out by their class, which the definition does not have.
    """

    head: Document
    rows: list[tuple[int, ImageRecord, str]]
    boxes: list[tuple[int, int, int, Box, ImageLabels]]
    unknown: Counter[str] = field(default_factory=Counter)

    def images(self) -> Iterator[Entry]:
        number_of = {licence["name"]: licence["id"] for licence in self.head["licenses"]}
        for number, record, split in self.rows:
            yield _image(record, number, number_of[record.licence.spdx], split)

    def annotations(self) -> Iterator[Entry]:
        for number, image_id, category_id, box, entry in self.boxes:
            yield _annotation(box, entry, image_id, number, category_id)

    def document(self) -> Document:
        """All of it at once, for those who need it in memory."""
        return {**self.head, "images": list(self.images()), "annotations": list(self.annotations())}

    def images_per_split(self) -> Counter[str]:
        return Counter(split for _, _, split in self.rows)

    def boxes_per_class(self) -> dict[str, Counter[str]]:
        """`{class: {split: boxes}}`, the classes without a box included."""
        split_of = {number: split for number, _, split in self.rows}
        counts: dict[int, Counter[str]] = {category["id"]: Counter() for category in self.head["categories"]}
        for _, image_id, category_id, _, _ in self.boxes:
            counts[category_id][split_of[image_id]] += 1
        return {category["name"]: counts[category["id"]] for category in self.head["categories"]}

    def boxes_per_size(self) -> dict[str, Counter[str]]:
        """`{size: {split: boxes}}` over all three sizes."""
        split_of = {number: split for number, _, split in self.rows}
        counts: dict[str, Counter[str]] = {size: Counter() for size in SIZES}
        for _, image_id, _, box, _ in self.boxes:
            counts[size_name(box.w * box.h)][split_of[image_id]] += 1
        return counts


def draft(
    definition: Definition, records: list[ImageRecord], labels: Labels, split_of: dict[str, str], ids: Ids, *, unreviewed: bool
) -> Draft:
    """The content for these images; `split_of` by sha256. Boxes of classes the definition no longer has are left out and counted."""
    rows, boxes = [], []
    unknown: Counter[str] = Counter()
    class_of = cache(definition.current)
    for record in records:
        entry = labels.get(record.sha256) or ImageLabels()
        image_id = ids.images.of(record.sha256)
        rows.append((image_id, record, split_of[record.sha256]))
        for box in boxes_of_release(entry, unreviewed=unreviewed):
            category = class_of(box.category)
            if category:
                boxes.append((ids.annotations.of(box.id), image_id, category.id, box, entry))
            else:
                unknown[box.category] += 1
    rows.sort(key=itemgetter(0))
    boxes.sort(key=itemgetter(0))
    return Draft(_head(definition, records), rows, boxes, unknown)


def _head(definition: Definition, records: list[ImageRecord]) -> Document:
    licences = sorted({record.licence.spdx for record in records})
    return {
        "info": {"description": definition.description or definition.name, "contributor": definition.contact, "version": ""},
        "licenses": [{"id": number, "name": spdx, "url": licence_url(spdx)} for number, spdx in enumerate(licences, 1)],
        "categories": [
            {"id": entry.id, "name": entry.name, "supercategory": entry.supercategory}
            for entry in sorted(definition.classes, key=lambda entry: entry.id)
        ],
    }


def _image(record: ImageRecord, image_id: int, licence_id: int, split: str) -> dict[str, Any]:
    sha = record.sha256
    return {
        "id": image_id,
        "file_name": f"{sha[:2]}/{sha[2:4]}/{sha}.{record.extension}",
        "width": record.width,
        "height": record.height,
        "license": licence_id,
        "split": split,
        "sha256": sha,
        "phash": record.phash,
        "orientation": record.orientation,
        "source": record.source,
        "source_url": record.source_url,
        "page_url": record.page_url,
        "domain": record.domain,
        "query": record.query,
        "author": record.licence.creator,
        "title": record.licence.title,
        "original_name": record.file_name,
        "date_captured": record.found_at,
    }


def _annotation(box: Box, entry: ImageLabels, image_id: int, annotation_id: int, category_id: int) -> dict[str, Any]:
    detail = box.details if box.detail else {}
    annotation: dict[str, Any] = {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [box.x, box.y, box.w, box.h],
        "area": detail.get("area", box.w * box.h) if "segmentation" in detail else box.w * box.h,
        "iscrowd": int(bool(detail.get("iscrowd") or detail.get("attributes", {}).get("crowd"))),
        "segmentation": detail.get("segmentation", []),
        "box": box.id,
        "event": box.event,
        "proposed_by": box.proposed_by,
        "reviewed_by": box.reviewed_by or (entry.reviewer if entry.verdict == Verdict.ACCEPTED else ""),
        "reviewed_at": box.reviewed_at or (entry.reviewed_at if entry.verdict == Verdict.ACCEPTED else ""),
    }
    if box.score is not None:
        annotation["proposal_score"] = box.score
    if detail.get("attributes"):
        annotation["attributes"] = detail["attributes"]
    return annotation

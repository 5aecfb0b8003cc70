"""The COCO document of a release: images with licence and split, boxes with their origin, ids that stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from annotate.coco import Document
from annotate.journal import Verdict
from annotate.state import Box, ImageLabels, Labels, boxes_of_release
from collect.definition import Definition
from collect.licenses import licence_url
from collect.records import ImageRecord


class StableIds:
    """Ids from 1 that stay from release to release and are never given twice."""

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


def build(
    definition: Definition, records: list[ImageRecord], labels: Labels, split_of: dict[str, str], ids: Ids, *, unreviewed: bool
) -> Document:
    """The document for these images; `split_of` by sha256. Boxes of classes the definition no longer has are left out."""
    licences = sorted({record.licence.spdx for record in records})
    number_of = {spdx: number for number, spdx in enumerate(licences, 1)}
    images, annotations = [], []
    for record in records:
        entry = labels.get(record.sha256) or ImageLabels()
        image_id = ids.images.of(record.sha256)
        images.append(_image(record, image_id, number_of[record.licence.spdx], split_of[record.sha256]))
        for box in boxes_of_release(entry, unreviewed=unreviewed):
            category = definition.current(box.category)
            if category:
                annotations.append(_annotation(box, entry, image_id, ids.annotations.of(box.id), category.id))
    images.sort(key=lambda image: image["id"])
    annotations.sort(key=lambda annotation: annotation["id"])
    return {
        "info": {"description": definition.description or definition.name, "contributor": definition.contact, "version": ""},
        "licenses": [{"id": number, "name": spdx, "url": licence_url(spdx)} for spdx, number in number_of.items()],
        "images": images,
        "annotations": annotations,
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

"""Boxes that a source brought with its images (Open Images does), as proposals like any model's: a person decides."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collect.definition import Definition
from collect.errors import NotFoundError
from collect.ledger import Ledger
from collect.records import ImageRecord
from train.loop.propose import Found, Proposer, Request

_BOXES = (
    "SELECT urls.sha256, json_extract(finds.extra, '$.boxes') FROM finds JOIN urls ON urls.id = finds.url_id"
    " WHERE urls.sha256 != '' AND json_extract(finds.extra, '$.boxes') IS NOT NULL ORDER BY finds.id"
)


@dataclass(frozen=True)
class BroughtBoxes:
    """What the ledger's finds tell of each image, by sha256: class, then x, y, w, h relative to the upright image."""

    boxes: dict[str, list[tuple[str, float, float, float, float]]]
    definition: Definition
    category: str = ""
    name: str = "sources"
    weights_sha256: str = ""
    threshold: float = 0.0
    reason: str = ""

    def propose(self, image_HW3: NDArray[np.uint8], record: ImageRecord) -> list[Found]:
        height, width = image_HW3.shape[:2]
        found = []
        for label, x, y, w, h in self.boxes.get(record.sha256, ()):
            entry = self.definition.current(label)
            if entry and self.category in {"", entry.name}:
                found.append(Found(entry.name, (x * width, y * height, w * width, h * height), 1.0))
        return found


def open_brought(request: Request) -> Proposer:
    """The boxes that came with the images.

    Raises:
        NotFoundError: none came.
    """
    category = request.definition.class_named(request.category).name if request.category else ""
    boxes: dict[str, list[tuple[str, float, float, float, float]]] = {}
    with Ledger(request.dataset.ledger) as ledger:
        for sha256, text in ledger.rows(_BOXES):
            boxes.setdefault(sha256, []).extend(tuple(box) for box in json.loads(text))
    if not boxes:
        raise NotFoundError(f"no source brought boxes with the images of {request.dataset.name}; `--source open-images` does")
    return BroughtBoxes(boxes, request.definition, category)

"""Errors made on purpose: labels with known mistakes, to learn how often a suspicion of the audit is right.

Every image is judged by a model that never saw it, so the labels that are judged may be spoilt without training anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np

from annotate.boxes import Floats, iou_matrix
from annotate.coco import Document
from train.loop.audit import SAME_PLACE_IOU, USUAL, Suspect, Suspicion, audit, from_coco, rising

#: Where at least this share of the suspicions is right, a look at each is worth it.
WORTH_A_LOOK = 0.2
WHOLE_IMAGES = 0.05
ENOUGH_ERRORS, MOST_ROUNDS = 300, 5
_ERRORS = (Suspicion.MISSING, Suspicion.SPURIOUS, Suspicion.SWAPPED, Suspicion.MISPLACED)


@dataclass(frozen=True)
class Spoilt:
    """A document with errors: the kind by box id, the boxes left out as (image id, xywh), the ids of images wrong as a whole."""

    document: Document
    errors: Mapping[str, str]
    left_out: Sequence[tuple[int, Sequence[float]]]
    whole: frozenset[int]


@dataclass(frozen=True)
class Worth:
    """What suspicions of a dataset are worth.

    Attributes:
        least_box: the score from which on at least :data:`WORTH_A_LOOK` of those about boxes are right; inf where none is.
        least_image: the same of those about whole images.
        found: the share of the spoilt boxes and images that suspicions from there on name.
    """

    least_box: float
    least_image: float
    found: float

    def names(self, suspect: Suspect) -> bool:
        return suspect.score >= (self.least_image if suspect.kind == Suspicion.IMAGE else self.least_box)


def worth(document: Document, results: Sequence[Mapping[str, Any]]) -> Worth:
    """Spoil the document, audit it with the same results, and see which suspicions point at what was spoilt.

    True errors are in the document too and count as none, so what is named is a little better than that.
    """
    errors = max(1.0, USUAL * len(document["annotations"]))
    of_boxes, of_images = _Trial(), _Trial()
    for seed in range(min(MOST_ROUNDS, ceil(ENOUGH_ERRORS / errors))):
        spoilt = spoil(document, seed)
        for suspect, error in _judged(spoilt, audit(*from_coco(spoilt.document, results))):
            trial = of_images if suspect.kind == Suspicion.IMAGE else of_boxes
            trial.note(suspect.score, error and (seed, *error))
        of_boxes.errors += len(spoilt.errors) + len(spoilt.left_out)
        of_images.errors += len(spoilt.whole)
    least_box, least_image = of_boxes.least(), of_images.least()
    found = of_boxes.found(least_box) + of_images.found(least_image)
    return Worth(least_box, least_image, found / max(of_boxes.errors + of_images.errors, 1))


@dataclass
class _Trial:
    """Suspicions about boxes, or about images: their scores, and the error that each points at, None where at none."""

    errors: int = 0
    scores: list[float] = field(default_factory=list)
    hits: list[tuple[Any, ...] | None] = field(default_factory=list)

    def note(self, score: float, error: tuple[Any, ...] | None) -> None:
        self.scores.append(score)
        self.hits.append(error)

    def least(self) -> float:
        if not self.scores:
            return float("inf")
        knots, shares = rising(np.array(self.scores), np.array([hit is not None for hit in self.hits]))
        scores = np.unique(self.scores)
        worthy = scores[np.interp(scores, knots, shares) >= WORTH_A_LOOK]
        return float(worthy[0]) if len(worthy) else float("inf")

    def found(self, least: float) -> int:
        return len({hit for score, hit in zip(self.scores, self.hits, strict=True) if hit is not None and score >= least})


def _judged(spoilt: Spoilt, suspects: Sequence[Suspect]) -> list[tuple[Suspect, tuple[Any, ...] | None]]:
    """Each suspicion with the error it points at; boxes of images that are wrong as a whole are told of by `IMAGE` alone."""
    names = {image["id"]: image.get("sha256") or str(image["id"]) for image in spoilt.document["images"]}
    whole = {names[number] for number in spoilt.whole}
    left_out: dict[str, list[tuple[int, Sequence[float]]]] = defaultdict(list)
    for row, (number, box) in enumerate(spoilt.left_out):
        left_out[names[number]].append((row, box))
    result: list[tuple[Suspect, tuple[Any, ...] | None]] = []
    for suspect in suspects:
        if suspect.kind == Suspicion.IMAGE:
            result.append((suspect, (suspect.image,) if suspect.image in whole else None))
        elif suspect.image not in whole:
            result.append((suspect, _error_at(suspect, spoilt.errors, left_out[suspect.image])))
    return result


def _error_at(suspect: Suspect, errors: Mapping[str, str], left_out: Sequence[tuple[int, Sequence[float]]]) -> tuple[Any, ...] | None:
    if suspect.box:
        return (suspect.box,) if suspect.box in errors else None
    for row, box in left_out:
        if iou_matrix(np.array([suspect.xywh]), np.array([box]))[0, 0] >= SAME_PLACE_IOU:
            return (row,)
    return None


def spoil(document: Document, seed: int, share: float = USUAL, whole_share: float = WHOLE_IMAGES) -> Spoilt:
    """Give a share of the boxes one of four errors, and a share of the images the boxes of another (a mix-up of files).

    The errors: a box left out, one added where none is, a class swapped, a box moved and scaled so that it overlaps the true one by .3
    to .65. Crowds and boxes without an area are left out of it all.
    """
    rng = np.random.default_rng(seed)
    there = [a for a in document["annotations"] if not a.get("iscrowd") and min(a["bbox"][2:]) > 0]
    kinds = [kind for kind in _ERRORS if kind != Suspicion.SWAPPED or len(document["categories"]) > 1]
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in there:
        by_image[annotation["image_id"]].append(annotation)
    boxed = [image["id"] for image in document["images"] if by_image[image["id"]]]
    num_mixed = max(2, round(whole_share * len(boxed))) if len(boxed) > 1 else 0
    mixed = [int(number) for number in rng.permutation(boxed)[:num_mixed]]
    donor = dict(zip(mixed, [*mixed[1:], *mixed[:1]], strict=True))
    chosen = rng.permutation([row for row, a in enumerate(there) if a["image_id"] not in donor])
    kind_of = {int(row): kinds[place % len(kinds)] for place, row in enumerate(chosen[: round(share * len(chosen))])}
    size = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    numbers = [category["id"] for category in document["categories"]]
    annotations: list[dict[str, Any]] = []
    errors: dict[str, str] = {}
    left_out: list[tuple[int, Sequence[float]]] = []

    def put(annotation: dict[str, Any], kind: str = "") -> None:
        number = len(annotations) + 1
        box = [float(value) for value in annotation["bbox"]]
        annotations.append({**annotation, "bbox": box, "id": number, "box": f"b{number}", "area": box[2] * box[3], "iscrowd": 0})
        if kind:
            errors[f"b{number}"] = kind

    for row, annotation in enumerate(there):
        kind, image = kind_of.get(row, ""), annotation["image_id"]
        if image in donor:
            continue
        if kind == Suspicion.MISSING:
            left_out.append((image, annotation["bbox"]))
        elif kind == Suspicion.SWAPPED:
            put({**annotation, "category_id": int(rng.choice([n for n in numbers if n != annotation["category_id"]]))}, kind)
        elif kind == Suspicion.MISPLACED:
            put({**annotation, "bbox": _moved(rng, annotation["bbox"])}, kind)
        else:
            put(annotation)
            if kind == Suspicion.SPURIOUS:
                added = _free_box(rng, there, [a["bbox"] for a in by_image[image]], size[image])
                if added is not None:
                    put({**annotation, "bbox": added, "category_id": int(rng.choice(numbers))}, kind)
    for image, source in donor.items():
        scale = np.array(size[image] * 2) / np.array(size[source] * 2)
        for annotation in by_image[source]:
            put({**annotation, "image_id": image, "bbox": (np.array(annotation["bbox"]) * scale).tolist()})
    return Spoilt({**document, "annotations": annotations}, errors, left_out, frozenset(mixed))


def _moved(rng: np.random.Generator, box_xywh: Sequence[float]) -> list[float]:
    """The box shifted and scaled so that it overlaps the true one by .3 to .65."""
    while True:
        x, y, w, h = box_xywh
        shift, scale = rng.uniform(-0.4, 0.4, 2), np.exp(rng.uniform(-0.45, 0.45, 2))
        new = [x + shift[0] * w, y + shift[1] * h, w * scale[0], h * scale[1]]
        if 0.3 <= iou_matrix(np.array([new]), np.array([box_xywh]))[0, 0] <= 0.65:
            return [float(value) for value in new]


def _free_box(
    rng: np.random.Generator, annotations: Sequence[dict[str, Any]], taken: Sequence[Sequence[float]], size_wh: tuple[int, int]
) -> list[float] | None:
    """A box of a usual size where none is; None where no place was found."""
    boxes_N4: Floats = np.array(taken, dtype=np.float64).reshape(-1, 4)
    for _ in range(50):
        _, _, w, h = annotations[int(rng.integers(len(annotations)))]["bbox"]
        w, h = min(w, size_wh[0] * 0.9), min(h, size_wh[1] * 0.9)
        new = [rng.uniform(0, size_wh[0] - w), rng.uniform(0, size_wh[1] - h), w, h]
        if iou_matrix(np.array([new]), boxes_N4).max(initial=0) < 0.1:
            return [float(value) for value in new]
    return None

"""Error hunting: which boxes and images of a dataset look wrong to models that were not trained on them.

Given predictions for every image by a model that never saw it (:mod:`train.loop.folds`), each box is held against them:

    missing   an object is seen where no box is                score = its score, less where boxes are near
    spurious  nothing of any class is seen at a box            1 − the best score there
    swapped   another class is seen at the same place          by how much surer than of the box's own
    misplaced its class is seen there, but lies otherwise      by how much the best match falls short of the best one near

Where scores of several classes meet, they are calibrated first, into the chance that a prediction of that score is confirmed by a
box. At last every suspicion is weighed by how usual such a one is for its kind among boxes like it: where the models miss half of the
small boxes, that nothing is seen at one of them says little.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotate.boxes import Floats, iou_matrix
from annotate.coco import Document
from annotate.splits import size_name

SAME_PLACE_IOU = 0.5
#: A prediction of a box's class that overlaps it this much may be of the same object.
NEAR_IOU = 0.25
#: Predictions that overlap more than this are one object.
ONE_OBJECT_IOU = 0.3
LEAST_SCORE = 0.05
#: The share of boxes that may well be wrong (Northcutt et al. 2021 find 3 to 10 % of labels wrong in well-known sets).
USUAL = 0.1


class Suspicion(StrEnum):
    """What may be wrong. `IMAGE` is about the image as a whole."""

    MISSING = "missing"
    SPURIOUS = "spurious"
    SWAPPED = "swapped"
    MISPLACED = "misplaced"
    IMAGE = "image"


@dataclass(frozen=True)
class Labels:
    """The boxes of one image: xywh pixels (N, 4), contiguous labels (N,), and the box ids."""

    boxes_N4: Floats
    labels_N: NDArray[np.int64]
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Predictions:
    """What an unbiased model sees in one image: xywh pixels (D, 4), labels (D,), scores (D,)."""

    boxes_D4: Floats
    labels_D: NDArray[np.int64]
    scores_D: Floats


@dataclass(frozen=True)
class Suspect:
    """One entry of the audit. `box` is a box id, "" for a missing box or a whole image; `xywh` and `category` say what the model sees."""

    image: str
    box: str
    kind: str
    score: float
    why: str
    xywh: tuple[float, float, float, float] | None = None
    category: str = ""

    def to_json(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"image": self.image, "box": self.box, "kind": self.kind, "score": round(self.score, 6), "why": self.why}
        if self.xywh is not None:
            entry["bbox"] = [round(float(value), 2) for value in self.xywh]
        if self.category:
            entry["category"] = self.category
        return entry


@dataclass(frozen=True)
class Calibration:
    """Per class how often a prediction of a given score is confirmed by a box: rising steps, `(scores, shares)` each."""

    steps_C: tuple[tuple[Floats, Floats], ...]

    def of(self, scores_D: Floats, labels_D: NDArray[np.int64]) -> Floats:
        """Confidence in [0, 1], comparable between classes: the geometric mean of the chance to be right and the score.

        The score keeps the order among predictions of one step.
        """
        result = np.zeros(len(scores_D))
        for label in np.unique(labels_D):
            rows = labels_D == label
            scores, shares = self.steps_C[label]
            result[rows] = np.interp(scores_D[rows], scores, shares)
        return np.asarray(np.sqrt(result * np.clip(scores_D, 0, 1)))


def calibrate(labels: Sequence[Labels], predictions: Sequence[Predictions], num_classes: int) -> Calibration:
    """Learn what a score means from all images at once: most labels are right, so the rest stands out."""
    scores: list[list[float]] = [[] for _ in range(num_classes)]
    right: list[list[bool]] = [[] for _ in range(num_classes)]
    for truth, seen in zip(labels, predictions, strict=True):
        overlap = iou_matrix(seen.boxes_D4, truth.boxes_N4)
        hit = (overlap >= SAME_PLACE_IOU) & (seen.labels_D[:, None] == truth.labels_N[None, :])
        confirmed = hit.any(axis=1) if hit.size else np.zeros(len(seen.scores_D), dtype=bool)
        for label, score, good in zip(seen.labels_D.tolist(), seen.scores_D.tolist(), confirmed.tolist(), strict=True):
            scores[label].append(score)
            right[label].append(good)
    return Calibration(tuple(rising(np.array(s), np.array(r, dtype=bool)) for s, r in zip(scores, right, strict=True)))


def rising(scores_D: Floats, right_D: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Isotonic regression of `right` on the score by pooling adjacent violators (Ayer et al. 1955): knots and their values.

    A score of 0 is worth 0, and each end has one imagined prediction, so that a few lucky ones are not taken for certainty.

    >>> rising(np.array([0.2, 0.4, 0.8]), np.array([False, True, True]))[1].round(2).tolist()
    [0.0, 0.25, 0.83]
    """
    order = np.argsort(scores_D, kind="stable")
    blocks: list[list[float]] = []  # [sum of scores, sum of right, count]
    for score, good in zip(scores_D[order].tolist(), right_D[order].tolist(), strict=True):
        blocks.append([score, float(good), 1.0])
        while len(blocks) > 1 and blocks[-2][1] / blocks[-2][2] >= blocks[-1][1] / blocks[-1][2]:
            last = blocks.pop()
            blocks[-1] = [value + more for value, more in zip(blocks[-1], last, strict=True)]
    knots = np.array([0.0, *(total / count for total, _, count in blocks)])
    shares = np.array([0.0, *((good + 0.5) / (count + 1) for _, good, count in blocks)])
    return knots, np.maximum.accumulate(shares)


def audit_image(image: str, truth: Labels, seen: Predictions, calibration: Calibration, names: Sequence[str]) -> list[Suspect]:
    """All suspicions about the boxes of one image, unsorted."""
    kept = seen.scores_D >= LEAST_SCORE
    seen = Predictions(seen.boxes_D4[kept], seen.labels_D[kept], seen.scores_D[kept])
    sure_D = calibration.of(seen.scores_D, seen.labels_D)
    overlap_ND = iou_matrix(truth.boxes_N4, seen.boxes_D4)
    same_ND = truth.labels_N[:, None] == seen.labels_D[None, :]
    suspects = [
        suspect
        for row in range(len(truth.ids))
        for suspect in _of_box(image, row, truth, seen, (overlap_ND[row], same_ND[row], sure_D), names)
    ]
    suspects += _missing(image, seen, overlap_ND, names)
    return suspects


def _of_box(
    image: str, row: int, truth: Labels, seen: Predictions, table: tuple[Floats, NDArray[np.bool_], Floats], names: Sequence[str]
) -> list[Suspect]:
    """A box against the predictions: spurious, swapped and misplaced, each with its own score."""
    overlap_D, same_D, sure_D = table
    box, name = truth.ids[row], names[truth.labels_N[row]]
    there_D = np.clip(overlap_D / SAME_PLACE_IOU, 0, 1)
    seen_D = seen.scores_D * there_D
    result = [Suspect(image, box, Suspicion.SPURIOUS, 1 - _at(seen_D, _best(seen_D)), f"models that never saw it find no {name}")]
    own, other = _best(sure_D * there_D * same_D), _best(sure_D * ~same_D * (overlap_D >= SAME_PLACE_IOU))
    surer = _at(sure_D, other) - _at(sure_D * there_D, own)
    if other is not None and surer > 0:
        seen_as = names[seen.labels_D[other]]
        result.append(_seen(image, box, Suspicion.SWAPPED, surer, f"labelled {name}, looks like {seen_as}", seen, other, seen_as))
    near, fits = _best(sure_D * same_D * (overlap_D >= NEAR_IOU)), _best(sure_D * same_D * overlap_D)
    if near is not None:
        short = _at(sure_D, near) - _at(sure_D * overlap_D, fits)
        why = f"the {name} seen there overlaps the box by only {overlap_D[near]:.0%}"
        result.append(_seen(image, box, Suspicion.MISPLACED, short, why, seen, near, name))
    return result


def _missing(image: str, seen: Predictions, overlap_ND: Floats, names: Sequence[str]) -> list[Suspect]:
    """Predictions where no box is, each object once."""
    covered_D = overlap_ND.max(axis=0, initial=0.0) if overlap_ND.size else np.zeros(len(seen.scores_D))
    score_D = seen.scores_D * (1 - covered_D)
    result, taken = [], np.zeros((0, 4))
    for row in np.argsort(-score_D, kind="stable").tolist():
        twice = len(taken) and iou_matrix(seen.boxes_D4[row : row + 1], taken).max() > ONE_OBJECT_IOU
        if twice or covered_D[row] >= SAME_PLACE_IOU:
            continue
        taken = np.concatenate([taken, seen.boxes_D4[row : row + 1]])
        name = names[seen.labels_D[row]]
        why = f"a {name} is seen where no box is"
        result.append(_seen(image, "", Suspicion.MISSING, float(score_D[row]), why, seen, row, name))
    return result


def _whole(image: str, suspects: Sequence[Suspect]) -> Suspect:
    """The image as a whole: the chance that anything in it is wrong, as if its worst suspicions were independent."""
    worst = sorted((suspect.score for suspect in suspects), reverse=True)[:5]
    score = 1 - float(np.prod([1 - 0.9 * value for value in worst]))
    likely = sum(suspect.score > 0.5 for suspect in suspects)
    alone = f"{likely} of its boxes {'looks' if likely == 1 else 'look'} wrong"
    return Suspect(image, "", Suspicion.IMAGE, score, alone if likely else "no box of it alone, but all together look wrong")


def _seen(image: str, box: str, kind: Suspicion, score: float, why: str, seen: Predictions, row: int, name: str) -> Suspect:
    x, y, w, h = seen.boxes_D4[row].tolist()
    return Suspect(image, box, kind, score, why, (x, y, w, h), name)


def _best(values_D: Floats) -> int | None:
    return int(values_D.argmax()) if len(values_D) and values_D.max() > 0 else None


def _at(values_D: Floats, row: int | None) -> float:
    return float(values_D[row]) if row is not None else 0.0


def audit(images: Sequence[str], labels: Sequence[Labels], predictions: Sequence[Predictions], names: Sequence[str]) -> list[Suspect]:
    """The ranked list: every suspicion about every box and image, the likeliest first."""
    calibration = calibrate(labels, predictions, len(names))
    suspects = [
        suspect
        for image, truth, seen in zip(images, labels, predictions, strict=True)
        for suspect in audit_image(image, truth, seen, calibration, names)
    ]
    boxes = {
        box: (names[label], size_name(w * h))
        for truth in labels
        for box, label, (_, _, w, h) in zip(truth.ids, truth.labels_N.tolist(), truth.boxes_N4.tolist(), strict=True)
    }
    suspects = against_the_usual(suspects, boxes)
    by_image: dict[str, list[Suspect]] = defaultdict(list)
    for suspect in suspects:
        by_image[suspect.image].append(suspect)
    suspects += _weighed([_whole(image, own) for image, own in by_image.items()], len(images))
    return sorted(suspects, key=lambda suspect: (-suspect.score, suspect.image, suspect.box, suspect.kind))


def against_the_usual(suspects: Sequence[Suspect], boxes: Mapping[str, tuple[str, str]]) -> list[Suspect]:
    """Scores weighed by how usual such a suspicion is among its like: s · π / (π + share of boxes as suspicious).

    A box's like has its class; where it is in doubt that there is anything at all, its size (`boxes` maps an id to both), since
    what models overlook is the small of every class. Without this such boxes fill the head of the list.
    """
    counts = Counter(("class", name) for name, _ in boxes.values()) + Counter(("size", size) for _, size in boxes.values())
    groups: dict[tuple[str, tuple[str, str]], list[Suspect]] = defaultdict(list)
    for suspect in suspects:
        name, size = boxes[suspect.box] if suspect.box else (suspect.category, "")
        groups[suspect.kind, ("size", size) if suspect.kind == Suspicion.SPURIOUS else ("class", name)].append(suspect)
    return [suspect for (_, like), group in groups.items() for suspect in _weighed(group, counts[like])]


def _weighed(group: Sequence[Suspect], num_like: int) -> list[Suspect]:
    """The suspicions of one kind among `num_like` boxes or images, weighed by how many are as bad; their order stays."""
    scores = np.array([suspect.score for suspect in group])
    as_bad = len(scores) - np.searchsorted(np.sort(scores), scores, side="left")
    weights = USUAL / (USUAL + as_bad / max(num_like, 1))
    return [replace(suspect, score=float(suspect.score * weight)) for suspect, weight in zip(group, weights, strict=True)]


def from_coco(document: Document, results: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[Labels], list[Predictions], list[str]]:
    """The arguments of :func:`audit` from a COCO document and COCO results. Images go by `sha256`, else by id; boxes by `box`."""
    names = [category["name"] for category in document["categories"]]
    place = {category["id"]: row for row, category in enumerate(document["categories"])}
    boxes: dict[int, list[dict[str, Any]]] = defaultdict(list)
    seen: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for annotation in document["annotations"]:
        if not annotation.get("iscrowd"):
            boxes[annotation["image_id"]].append(annotation)
    for entry in results:
        seen[entry["image_id"]].append(entry)
    labels = [
        Labels(
            np.array([a["bbox"] for a in boxes[image["id"]]], dtype=np.float64).reshape(-1, 4),
            np.array([place[a["category_id"]] for a in boxes[image["id"]]], dtype=np.int64),
            tuple(str(a.get("box") or a["id"]) for a in boxes[image["id"]]),
        )
        for image in document["images"]
    ]
    predictions = [
        Predictions(
            np.array([e["bbox"] for e in seen[image["id"]]], dtype=np.float64).reshape(-1, 4),
            np.array([place[e["category_id"]] for e in seen[image["id"]]], dtype=np.int64),
            np.array([e["score"] for e in seen[image["id"]]], dtype=np.float64),
        )
        for image in document["images"]
    ]
    return [image.get("sha256") or str(image["id"]) for image in document["images"]], labels, predictions, names

"""Average precision as Pascal VOC counts it: other matching, other interpolation, and inclusive pixels.

VOC's boxes are pairs of pixel indices, both inside the box, so a side is `x2 - x1 + 1` (VOCdevkit, `VOCevaldet.m`). A
detection looks at the box it overlaps most; where that one is taken it is wrong, even if another free box is near.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from train.judging.inputs import Bools, Detections, Floats, Ints, Truth
from train.judging.matching import candidate_pairs


@dataclass(frozen=True)
class VocAp:
    """AP per category id, both interpolations, None where the category has no box; and their means."""

    every_point: dict[int, float | None]
    eleven_point: dict[int, float | None]
    mean_every_point: float
    mean_eleven_point: float


def voc_ap(truth: Truth, found: Detections, *, iou_threshold: float = 0.5, plus_one: bool = True) -> VocAp:
    """VOC's AP. Crowds are VOC's "difficult": they count neither as found nor as missed; means are -1 without any box."""
    every: dict[int, float | None] = {}
    eleven: dict[int, float | None] = {}
    for number in truth.category_ids_K.tolist():
        mine_A, mine_D = truth.category_ids_A == number, found.category_ids_D == number
        boxes = int(np.count_nonzero(mine_A & ~truth.iscrowd_A))
        if not boxes:
            every[number] = eleven[number] = None
            continue
        hits = _hits_by_score(truth, found, np.flatnonzero(mine_A), np.flatnonzero(mine_D), iou_threshold, plus_one)
        recall = np.cumsum(hits) / boxes
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        every[number], eleven[number] = _every_point(recall, precision), _eleven_point(recall, precision)
    return VocAp(every, eleven, _mean(every), _mean(eleven))


def _hits_by_score(truth: Truth, found: Detections, rows_A: Ints, rows_D: Ints, iou_threshold: float, plus_one: bool) -> Bools:
    """Right or wrong for each detection, best first; those that take a crowd are left out."""
    order_D = rows_D[np.argsort(-found.scores_D[rows_D], kind="stable")]
    order_A = rows_A[np.argsort(truth.image_ids_A[rows_A], kind="stable")]
    left, right = candidate_pairs(found.image_ids_D[order_D], truth.image_ids_A[order_A])
    boxes = order_A[right]
    overlap = _iou(found.boxes_xywh_D4[order_D[left]], truth.boxes_xywh_A4[boxes], float(plus_one))
    best, nearest = np.zeros(len(order_D)), np.full(len(order_D), -1)
    for place, box, value in zip(left.tolist(), boxes.tolist(), overlap.tolist(), strict=True):
        if value > best[place]:
            best[place], nearest[place] = value, box
    taken, hits = set(), []
    for box, value in zip(nearest.tolist(), best.tolist(), strict=True):
        near = box >= 0 and value >= iou_threshold
        if near and truth.iscrowd_A[box]:
            continue
        hits.append(near and box not in taken)
        if near:
            taken.add(box)
    return np.array(hits, dtype=bool)


def _iou(boxes_P4: Floats, others_P4: Floats, extra_px: float) -> Floats:
    low = np.maximum(boxes_P4[:, :2], others_P4[:, :2])
    high = np.minimum(boxes_P4[:, :2] + boxes_P4[:, 2:], others_P4[:, :2] + others_P4[:, 2:])
    inside = np.clip(high - low + extra_px, 0, None).prod(axis=1)
    areas = (boxes_P4[:, 2:] + extra_px).prod(axis=1) + (others_P4[:, 2:] + extra_px).prod(axis=1)
    ratio: Floats = np.divide(inside, areas - inside, out=np.zeros_like(inside), where=areas > inside)
    return ratio


def _every_point(recall_N: Floats, precision_N: Floats) -> float:
    """The area under the precision that never rises (VOC from 2010 on)."""
    recall = np.r_[0.0, recall_N, 1.0]
    envelope = np.maximum.accumulate(np.r_[0.0, precision_N, 0.0][::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope[1:]))


def _eleven_point(recall_N: Floats, precision_N: Floats) -> float:
    """The mean of the best precision at recall 0, .1, … 1 or more (VOC until 2009)."""
    return float(np.mean([precision_N[recall_N >= point / 10].max(initial=0.0) for point in range(11)]))


def _mean(values: dict[int, float | None]) -> float:
    told = [value for value in values.values() if value is not None]
    return float(np.mean(told)) if told else -1.0

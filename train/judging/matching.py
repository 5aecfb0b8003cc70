"""COCO's matching of detections to boxes, vectorised: who found what, for every threshold at once.

The rules are those of `COCOeval.evaluateImg` (pycocotools 2.0.11), to the bit: within an image and category the
detections choose in order of score; each takes the free box it overlaps most (the later one of equals), boxes that count
before those that are ignored (crowds, areas out of range); a crowd may be taken any number of times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.judging.engines import AREAS
from train.judging.inputs import Bools, Detections, Floats, Ints, Truth


@dataclass(frozen=True)
class Matches:
    """Detections by category, image, then score, cut to the best `max_detections` of each; N are left.

    `rows_N` are rows of the detections given; `image_N`, `category_N` rows of the truth's ids; `box_TN` the row of the
    truth's box that was taken at each threshold, -1 = none; `ignored_TN` says that a detection counts neither way;
    `counted_A` which of the truth's boxes count.
    """

    rows_N: Ints
    image_N: Ints
    category_N: Ints
    scores_N: Floats
    box_TN: Ints
    ignored_TN: Bools
    counted_A: Bools

    def hits_TN(self) -> Bools:
        """True positives at each threshold."""
        hits: Bools = (self.box_TN >= 0) & ~self.ignored_TN
        return hits

    def by_score(self, category: int) -> Ints:
        """The places of a category's detections, best first; equals by image, as pycocotools sorts them."""
        first, last = np.searchsorted(self.category_N, [category, category + 1])
        places: Ints = first + np.argsort(-self.scores_N[first:last], kind="stable")
        return places


def match(
    truth: Truth, found: Detections, iou_thresholds_T: Floats, area_px: tuple[float, float] = AREAS["all"], max_detections: int = 100
) -> Matches:
    """Match detections to boxes of the same image and category."""
    counted = ~(truth.iscrowd_A | (truth.areas_A < area_px[0]) | (truth.areas_A > area_px[1]))
    image, category = truth.rows_of_images(found.image_ids_D), truth.rows_of_categories(found.category_ids_D)
    rows, groups = _best_of_each(category * len(truth.image_ids_I) + image, found.scores_D, max_detections)
    boxes = found.boxes_xywh_D4[rows]
    taken = _take(truth, counted, boxes, groups, np.minimum(iou_thresholds_T, 1 - 1e-10))
    size = boxes[:, 2] * boxes[:, 3]
    outside = (size < area_px[0]) | (size > area_px[1])
    ignored = np.where(taken >= 0, ~counted[taken] if len(counted) else False, outside[None, :])
    return Matches(rows, image[rows], category[rows], found.scores_D[rows], taken, ignored, counted)


def pair_iou(boxes_P4: Floats, others_P4: Floats, crowd_P: Bools) -> Floats:
    """Intersection over union of pairs of xywh boxes in `maskApi.c`'s order of operations, so equal to the last bit.

    Where `crowd_P` is true the union is the first box's own area.
    """
    low = np.maximum(boxes_P4[:, :2], others_P4[:, :2])
    high = np.minimum(boxes_P4[:, 2:] + boxes_P4[:, :2], others_P4[:, 2:] + others_P4[:, :2])
    sides = high - low
    inside = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    area = boxes_P4[:, 2] * boxes_P4[:, 3]
    union = np.where(crowd_P, area, area + others_P4[:, 2] * others_P4[:, 3] - inside)
    ratio: Floats = np.divide(inside, union, out=np.zeros_like(inside), where=inside > 0)
    return ratio


def candidate_pairs(groups_N: Ints, groups_sorted_A: Ints) -> tuple[Ints, Ints]:
    """All pairs (place in N, place in A) whose groups are equal; A is sorted by group."""
    first = np.searchsorted(groups_sorted_A, groups_N, side="left")
    count = np.searchsorted(groups_sorted_A, groups_N, side="right") - first
    left = np.repeat(np.arange(len(groups_N)), count)
    within = np.arange(len(left)) - np.repeat(np.cumsum(count) - count, count)
    return left, first[left] + within


def _best_of_each(groups_D: Ints, scores_D: Floats, most: int) -> tuple[Ints, Ints]:
    order = np.lexsort((-scores_D, groups_D))
    groups = groups_D[order]
    kept = _rank(groups) < most
    return order[kept], groups[kept]


def _rank(groups_sorted_N: Ints) -> Ints:
    """The place of each within its run of equals."""
    starts = np.flatnonzero(np.r_[True, groups_sorted_N[1:] != groups_sorted_N[:-1]]) if len(groups_sorted_N) else np.zeros(0, int)
    lengths = np.diff(np.r_[starts, len(groups_sorted_N)])
    return np.arange(len(groups_sorted_N)) - np.repeat(starts, lengths)


def _take(truth: Truth, counted_A: Bools, boxes_N4: Floats, groups_N: Ints, thresholds_T: Floats) -> Ints:
    """Which box each detection takes at each threshold, (T, N), -1 = none. Round r: the r-th detection of every group."""
    groups_A = truth.rows_of_categories(truth.category_ids_A) * len(truth.image_ids_I) + truth.rows_of_images(truth.image_ids_A)
    order_A = np.argsort(groups_A, kind="stable")
    left, right = candidate_pairs(groups_N, groups_A[order_A])
    box = order_A[right]
    overlap = pair_iou(boxes_N4[left], truth.boxes_xywh_A4[box], truth.iscrowd_A[box])
    near = overlap >= thresholds_T.min(initial=1.0)
    left, box, overlap = left[near], box[near], overlap[near]
    taken_TN = np.full((len(thresholds_T), len(boxes_N4)), -1, dtype=np.int64)
    if not len(left):
        return taken_TN
    # Ascending by preference, so that the last pair that is still possible is the one to take.
    order = np.lexsort((box, overlap, counted_A[box], left))
    left, box, overlap = left[order], box[order], overlap[order]
    choosers = np.unique(left)
    rounds = _rank(groups_N[choosers])[np.searchsorted(choosers, left)]
    order = np.argsort(rounds, kind="stable")
    left, box, overlap, rounds = left[order], box[order], overlap[order], rounds[order]
    enough_PT = overlap[:, None] >= thresholds_T[None, :]
    free_AT = np.ones((len(counted_A), len(thresholds_T)), dtype=bool)
    bounds = np.searchsorted(rounds, np.arange(rounds[-1] + 2))
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        _one_round(slice(start, stop), left, box, enough_PT, free_AT, truth.iscrowd_A, taken_TN)
    return taken_TN


def _one_round(
    part: slice, left_P: Ints, box_P: Ints, enough_PT: Bools, free_AT: Bools, crowd_A: Bools, taken_TN: NDArray[np.int64]
) -> None:
    left, box = left_P[part], box_P[part]
    possible_PT = enough_PT[part] & (free_AT[box] | crowd_A[box][:, None])
    starts = np.flatnonzero(np.r_[True, left[1:] != left[:-1]])
    places_PT = np.where(possible_PT, np.arange(len(left))[:, None], -1)
    best_CT = np.maximum.reduceat(places_PT, starts, axis=0)
    chooser, threshold = np.nonzero(best_CT >= 0)
    chosen = box[best_CT[chooser, threshold]]
    taken_TN[threshold, left[starts][chooser]] = chosen
    free_AT[chosen, threshold] = False

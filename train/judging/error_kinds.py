"""TIDE's six kinds of error and what each costs (Bolya et al., ECCV 2020), at IoU .5.

A false positive that overlaps no box of its class by .5 is a *Loc*alisation error when it overlaps one by .1, a
*Cls* error when it overlaps a box of another class by .5, a *Dupe* when the box of its class is taken already, *Bkg*
when it overlaps no box by .1, and *Both* otherwise. A box that nobody found, and that no Cls or Loc error lies on, is a
*Miss*. The cost of a kind is the AP50 gained by mending it alone: Cls and Loc become right (the best-scored for each
box, the rest vanish), Both, Dupe and Bkg vanish, Miss is struck from the boxes to find.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from train.judging.engines import RECALLS_R
from train.judging.inputs import Bools, Detections, Floats, Ints, Truth
from train.judging.matching import Matches, candidate_pairs, pair_iou

KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1


@dataclass(frozen=True)
class ErrorKinds:
    """What went wrong where. N are the detections of the matching, A the boxes of the truth.

    `kind_N` is a place in :data:`KINDS`, -1 = right or ignored; `box_N` the box a detection was meant for, -1 = none.
    """

    kind_N: Ints
    box_N: Ints
    missed_A: Bools
    counts: dict[str, int]
    delta_ap50: dict[str, float]
    ap50: float


def error_kinds(truth: Truth, found: Detections, matches50: Matches) -> ErrorKinds:
    """Sort every error into its kind; `matches50` is the matching at IoU .5 (:attr:`Evaluation.matches50`)."""
    same_iou, same_box, other_iou, other_box = _nearest(truth, found, matches50)
    wrong_N = (matches50.box_TN[0] < 0) & ~matches50.ignored_TN[0]
    conditions = [
        (same_iou >= BACKGROUND_IOU) & (same_iou < FOREGROUND_IOU),
        other_iou >= FOREGROUND_IOU,
        same_iou >= FOREGROUND_IOU,
        np.maximum(same_iou, other_iou) < BACKGROUND_IOU,
    ]
    places = [KINDS.index(kind) for kind in ("Loc", "Cls", "Dupe", "Bkg")]
    kind_N = np.where(wrong_N, np.select(conditions, places, KINDS.index("Both")), -1)
    box_N = np.select([kind_N == KINDS.index("Cls"), np.isin(kind_N, [KINDS.index("Loc"), KINDS.index("Dupe")])], [other_box, same_box], -1)
    mendable_N = np.isin(kind_N, [KINDS.index("Cls"), KINDS.index("Loc")])
    unfound_A = matches50.counted_A.copy()
    unfound_A[matches50.box_TN[0][matches50.box_TN[0] >= 0]] = False
    missed_A = unfound_A.copy()
    missed_A[box_N[mendable_N]] = False
    counts = {kind: int(np.count_nonzero(kind_N == place)) for place, kind in enumerate(KINDS[:-1])} | {"Miss": int(missed_A.sum())}
    sums = _Sums(truth, matches50)
    base = sums.ap50()
    costs = dict.fromkeys(KINDS, 0.0)
    if base >= 0:
        costs = {kind: sums.mended(kind, kind_N, box_N, unfound_A, missed_A) - base for kind in KINDS}
    return ErrorKinds(kind_N, box_N, missed_A, counts, costs, base)


def _nearest(truth: Truth, found: Detections, matches: Matches) -> tuple[Floats, Ints, Floats, Ints]:
    """For each detection the box that counts which it overlaps most: of its class, and of the others (iou, row; twice)."""
    rows_A = np.flatnonzero(matches.counted_A)
    rows_A = rows_A[np.argsort(truth.rows_of_images(truth.image_ids_A[rows_A]), kind="stable")]
    left, right = candidate_pairs(matches.image_N, truth.rows_of_images(truth.image_ids_A[rows_A]))
    box = rows_A[right]
    overlap = pair_iou(found.boxes_xywh_D4[matches.rows_N[left]], truth.boxes_xywh_A4[box], np.zeros(len(box), dtype=bool))
    same = truth.rows_of_categories(truth.category_ids_A)[box] == matches.category_N[left]
    best = []
    for part in (same, ~same):
        iou_N, box_N = np.zeros(len(matches.rows_N)), np.full(len(matches.rows_N), -1)
        ascending = np.argsort(overlap[part], kind="stable")
        iou_N[left[part][ascending]] = overlap[part][ascending]
        box_N[left[part][ascending]] = box[part][ascending]
        best += [iou_N, box_N]
    return best[0], best[1], best[2], best[3]


class _Sums:
    """AP50 over and over, each time with another error mended."""

    def __init__(self, truth: Truth, matches: Matches) -> None:
        self.category_A = truth.rows_of_categories(truth.category_ids_A)
        self.category_N, self.scores_N = matches.category_N, matches.scores_N
        self.hits_N, self.kept_N = matches.hits_TN()[0], ~matches.ignored_TN[0]
        self.counted_A = matches.counted_A
        self.categories = len(truth.names_K)

    def mended(self, kind: str, kind_N: Ints, box_N: Ints, unfound_A: Bools, missed_A: Bools) -> float:
        if kind == "Miss":
            return self.ap50(struck_A=missed_A)
        of_kind_N = kind_N == KINDS.index(kind)
        if kind not in {"Cls", "Loc"}:
            return self.ap50(gone_N=of_kind_N)
        category_N = self.category_N.copy()
        category_N[of_kind_N] = self.category_A[box_N[of_kind_N]]
        right_N = np.zeros(len(kind_N), dtype=bool)
        mending = np.flatnonzero(of_kind_N)
        mending = mending[np.argsort(-self.scores_N[mending], kind="stable")]
        _, first = np.unique(box_N[mending], return_index=True)
        best = mending[first]
        right_N[best[unfound_A[box_N[best]]]] = True
        return self.ap50(gone_N=of_kind_N & ~right_N, right_N=right_N, category_N=category_N)

    def ap50(
        self,
        gone_N: Bools | None = None,
        right_N: Bools | None = None,
        category_N: Ints | None = None,
        struck_A: Bools | None = None,
    ) -> float:
        kept_N = self.kept_N if gone_N is None else self.kept_N & ~gone_N
        hits_N = self.hits_N if right_N is None else self.hits_N | right_N
        category_N = self.category_N if category_N is None else category_N
        counted_A = self.counted_A if struck_A is None else self.counted_A & ~struck_A
        boxes_K = np.bincount(self.category_A[counted_A], minlength=self.categories)
        values = []
        for place in np.flatnonzero(np.bincount(self.category_A[self.counted_A], minlength=self.categories)):
            mine = np.flatnonzero(kept_N & (category_N == place))
            mine = mine[np.argsort(-self.scores_N[mine], kind="stable")]
            # A class whose boxes were all struck drops out of the mean, as a class without boxes does in COCO.
            if boxes_K[place]:
                values.append(_ap(hits_N[mine], int(boxes_K[place])))
        return float(np.mean(values)) if values else -1.0


def _ap(hits: Bools, boxes: int) -> float:
    """101-point AP."""
    found = np.cumsum(hits)
    envelope = np.maximum.accumulate((found / np.arange(1, len(hits) + 1))[::-1])[::-1]
    at = np.searchsorted(found / boxes, RECALLS_R, side="left")
    return float(np.r_[envelope, 0.0][np.minimum(at, len(hits))].mean())

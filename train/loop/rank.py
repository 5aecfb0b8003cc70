"""What to look at next: waiting images in the order of what a box drawn in them is expected to bring.

    need    a box that the model expects is worth the more, the rarer its class is among the labelled boxes, (rarest / count) ** need;
            images further up the queue count as labelled, so that no class is served beyond its turn
    doubt   of boxes that are needed alike, one that the model is unsure of comes first (more weight than that does harm)
    cost    what counts is an image's mean over its boxes, drawn towards the mean of all images as if it had some boxes more of
            that worth: else images of one box, whose means vary most, would come first and crowded ones last
    new     an image like one that is labelled, or already further up the queue, brings less
    apart   where two checkpoints disagree on an image, it brings more

Of images that bring the same, the cheap ones come first. The weights were chosen on two pools (LOG.md, 2026-11-26, fourth session).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotate.boxes import Floats, iou_matrix

#: Seconds to check a proposed box and to draw a missing one (Papadopoulos 2016, 2017), and to open an image.
CHECK_S, DRAW_S, OPEN_S = 1.6, 7.0, 2.0
#: Images among which similarity is followed exactly; those behind keep their own order.
GREEDY = 1500


@dataclass(frozen=True)
class Glance:
    """What a model sees in one waiting image.

    Attributes:
        scores_D: of each box the chance that it is one, in [0, 1].
        labels_D: contiguous labels.
        vector: the image's look, of unit length; None = unknown.
        disagreement: in [0, 1], how far two checkpoints differ on it; 0 where there is only one.
    """

    image: str
    scores_D: Floats
    labels_D: NDArray[np.int64]
    vector: Floats | None = None
    disagreement: float = 0.0


@dataclass(frozen=True)
class Ranked:
    """One entry of the queue; `score` falls evenly from 1 to 0 along it, `cost_s` are the seconds a reviewer will need."""

    image: str
    score: float
    reason: str
    cost_s: float

    def to_json(self) -> dict[str, Any]:
        return {"image": self.image, "score": round(self.score, 6), "reason": self.reason, "cost_s": round(self.cost_s, 1)}


@dataclass(frozen=True)
class Weights:
    """How much each part counts; 0 switches a part off.

    Attributes:
        need: the power by which rare classes are preferred.
        doubt: share by which a box of score one half is worth more than a sure one.
        prior_boxes: average boxes that every image is thought to have besides its own.
        novelty: share of the worth that an image loses by being the very picture of another.
        disagreement: share that it gains where two checkpoints have nothing in common.
    """

    need: float = 0.5
    doubt: float = 0.02
    prior_boxes: float = 4.0
    novelty: float = 0.5
    disagreement: float = 0.5


@dataclass(frozen=True)
class Known:
    """What is labelled: boxes per class (C,), class names, and the looks of labelled images (M, E)."""

    counts_C: NDArray[np.int64]
    names: tuple[str, ...]
    vectors_ME: Floats = field(default_factory=lambda: np.zeros((0, 0)))


def order(glances: Sequence[Glance], known: Known, weights: Weights = Weights()) -> list[Ranked]:
    """The queue, best first."""
    if not glances:
        return []
    pool = _Pool(glances, known, weights)
    return [
        Ranked(glances[row].image, 1 - place / len(glances), _reason(glances[row], pool, row, known), float(pool.costs_N[row]))
        for place, row in enumerate(pool.order())
    ]


def cost_s(scores_D: Floats) -> float:
    """Seconds a reviewer will need: likely boxes are checked, unlikely ones may have to be drawn."""
    seen = np.clip(scores_D, 0, 1)
    return float(OPEN_S + (seen * CHECK_S + seen * (1 - seen) * DRAW_S).sum())


class _Pool:
    """The waiting images as arrays: expected boxes and their worth by class (N, C), costs and novelties (N,), looks (N, E)."""

    def __init__(self, glances: Sequence[Glance], known: Known, weights: Weights) -> None:
        self.weights = weights
        self.counts_C: Floats = np.asarray(known.counts_C + 1.0, dtype=np.float64)
        self.boxes_NC = np.zeros((len(glances), len(known.names)))
        self.worth_NC = np.zeros_like(self.boxes_NC)
        for row, glance in enumerate(glances):
            p = np.clip(glance.scores_D, 0, 1)
            np.add.at(self.boxes_NC[row], glance.labels_D, p)
            np.add.at(self.worth_NC[row], glance.labels_D, p * (1 + weights.doubt * 4 * p * (1 - p)))
        self.costs_N = np.array([cost_s(glance.scores_D) for glance in glances])
        self.apart_N = 1 + weights.disagreement * np.array([glance.disagreement for glance in glances])
        width = max((len(glance.vector) for glance in glances if glance.vector is not None), default=0)
        unknown = np.zeros(width)
        self.looks_NE = np.array([unknown if glance.vector is None else glance.vector for glance in glances], dtype=np.float32)
        self.new_N = np.ones(len(glances))
        if known.vectors_ME.size and width:
            self.new_N = np.clip(1 - (self.looks_NE @ known.vectors_ME.T.astype(np.float32)).max(axis=1), 0, 1).astype(np.float64)
        looked = self.new_N[self.looks_NE.any(axis=1)] if width else self.new_N[:0]
        #: Novelty from here on is whole: how far a usual image of these is from what is labelled.
        self.usual_new = float(np.median(looked)) or 1.0 if len(looked) else 1.0

    def value(self, rows: NDArray[np.int64], counts_C: Floats, new_N: Floats) -> Floats:
        """Of some rows, (R,), given the boxes labelled by class and the novelty of those rows (R,)."""
        worth = self.worth_NC[rows] @ need(counts_C, self.weights.need)
        boxes, prior = self.boxes_NC[rows].sum(axis=1), self.weights.prior_boxes
        usual = worth.sum() / max(boxes.sum(), 1e-9)
        means = (worth + prior * usual) / (boxes + max(prior, 1e-9))
        fresh = 1 - self.weights.novelty * (1 - np.minimum(new_N / self.usual_new, 1))
        return np.asarray(means * fresh * self.apart_N[rows])

    def order(self) -> list[int]:
        """All rows, best first: each that is chosen counts as labelled for the next; beyond GREEDY rows they keep their first order."""
        every = np.arange(len(self.costs_N))
        first = np.lexsort((self.costs_N, -np.round(self.value(every, self.counts_C, self.new_N), 6)))
        left, tail = first[:GREEDY], first[GREEDY:]
        counts_C, new_N, chosen = self.counts_C.copy(), self.new_N.copy(), []
        while len(left):
            value = self.value(left, counts_C, new_N[left])
            among = np.flatnonzero(value >= value.max() - 1e-6)
            at = int(among[self.costs_N[left[among]].argmin()])
            row = int(left[at])
            chosen.append(row)
            left = np.delete(left, at)
            counts_C += self.boxes_NC[row]
            new_N[left] = np.minimum(new_N[left], np.clip(1 - self.looks_NE[left] @ self.looks_NE[row], 0, 1))
        return [*chosen, *tail.tolist()]


def need(counts_C: Floats, power: float) -> Floats:
    """How much a box of each class is needed, 1 for the rarest: (rarest / count) ** power, (C,)."""
    return np.asarray((counts_C.min() / counts_C) ** power if len(counts_C) else counts_C)


def _reason(glance: Glance, pool: _Pool, row: int, known: Known) -> str:
    """Why it is here, in words."""
    words = []
    unsure = int(((glance.scores_D > 0.15) & (glance.scores_D < 0.85)).sum())
    if unsure:
        words.append(f"{unsure} unsure {'box' if unsure == 1 else 'boxes'}")
    if len(glance.scores_D):
        label = int((pool.worth_NC[row] * need(pool.counts_C, pool.weights.need)).argmax())
        words.append(f"mostly {known.names[label]} ({known.counts_C[label]} labelled)")
    if glance.disagreement > 0.5:
        words.append("checkpoints disagree")
    if known.vectors_ME.size and pool.new_N[row] > 0.3:
        words.append("unlike what is labelled")
    return ", ".join(words) or "no box is foretold in it"


def disagreement(boxes_a_N4: Floats, labels_a_N: NDArray[np.int64], boxes_b_M4: Floats, labels_b_M: NDArray[np.int64]) -> float:
    """1 − F1 of two answers taken as each other's truth at IoU .5 and equal class; 0 where both see nothing."""
    if not len(labels_a_N) and not len(labels_b_M):
        return 0.0
    same = (iou_matrix(boxes_a_N4, boxes_b_M4) >= 0.5) & (labels_a_N[:, None] == labels_b_M[None, :])
    found_a, found_b = same.any(axis=1).sum(), same.any(axis=0).sum()
    return float(1 - (found_a + found_b) / (len(labels_a_N) + len(labels_b_M)))

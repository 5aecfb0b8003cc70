"""What to look at next: waiting images in the order of what a look at them is expected to bring.

    gain    each box that the model sees counts by how unsure the model is of it, times the need for its class (rare among
            the labelled boxes = needed); where two checkpoints disagree on an image, more
    new     an image like one that is labelled, or already further up the queue, brings less
    cost    boxes to check or draw; of images that bring the same, the cheap ones come first

Uncertainty of a box with score p is 4p(1 − p): 1 at one half, 0 where the model is sure either way.
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
    """What a model sees in one waiting image: scores (D,) in [0, 1], labels (D,); `vector` is its look (unit length), None = unknown.

    `disagreement` in [0, 1]: how far two checkpoints differ on it, 0 where there is only one.
    """

    image: str
    scores_D: Floats
    labels_D: NDArray[np.int64]
    vector: Floats | None = None
    disagreement: float = 0.0


@dataclass(frozen=True)
class Ranked:
    """One entry of the queue; `score` in [0, 1], `cost_s` the seconds a reviewer will need."""

    image: str
    score: float
    reason: str
    cost_s: float

    def to_json(self) -> dict[str, Any]:
        return {"image": self.image, "score": round(self.score, 6), "reason": self.reason, "cost_s": round(self.cost_s, 1)}


@dataclass(frozen=True)
class Weights:
    """How much each part counts. 0 switches a part off.

    Need and cost are powers. Larger ones bring rare classes and cheap images sooner, and leave the crowded images of the common
    class, which the last tenth of the mAP wants, to the end (LOG.md, 2026-11-25).
    """

    disagreement: float = 0.5
    novelty: float = 0.7
    cost: float = 0.5
    certain: float = 0.2
    need: float = 0.35


@dataclass(frozen=True)
class Known:
    """What is labelled: boxes per class (C,), class names, and the looks of labelled images (M, E)."""

    counts_C: NDArray[np.int64]
    names: tuple[str, ...]
    vectors_ME: Floats = field(default_factory=lambda: np.zeros((0, 0)))


def need(counts_C: NDArray[np.int64], power: float) -> Floats:
    """How much a box of each class is needed, 1 for the rarest: (rarest / count) ** power, (C,)."""
    counts = counts_C + 1.0
    return np.asarray((counts.min() / counts) ** power if len(counts) else counts)


def order(glances: Sequence[Glance], known: Known, weights: Weights = Weights()) -> list[Ranked]:
    """The queue, best first."""
    if not glances:
        return []
    need_C = need(known.counts_C, weights.need)
    parts = [_gains(glance, need_C, weights) for glance in glances]
    gains_N, costs_N = np.array([gain for gain, _ in parts]), np.array([cost_s(glance.scores_D) for glance in glances])
    novelty_N = _novelty(glances, known)
    value_N = (gains_N + weights.disagreement * np.array([g.disagreement for g in glances]) + 0.02) / (costs_N / OPEN_S) ** weights.cost
    places, scores = _greedy(glances, value_N / value_N.max(), novelty_N, costs_N, weights.novelty)
    return [
        Ranked(glances[row].image, score, _reason(glances[row], parts[row][1], float(novelty_N[row]), known), float(costs_N[row]))
        for row, score in zip(places, scores, strict=True)
    ]


def cost_s(scores_D: Floats) -> float:
    """Seconds a reviewer will need: likely boxes are checked, unlikely ones may have to be drawn."""
    seen = np.clip(scores_D, 0, 1)
    return float(OPEN_S + (seen * CHECK_S + seen * (1 - seen) * DRAW_S).sum())


def _gains(glance: Glance, need_C: Floats, weights: Weights) -> tuple[float, int | None]:
    """The gain of an image and the class that brings most of it."""
    if not len(glance.scores_D):
        return 0.0, None
    p = np.clip(glance.scores_D, 0, 1)
    gain_D = need_C[glance.labels_D] * (4 * p * (1 - p) + weights.certain * p)
    by_class = np.bincount(glance.labels_D, weights=gain_D)
    return float(gain_D.sum()), int(by_class.argmax())


def _novelty(glances: Sequence[Glance], known: Known) -> Floats:
    """1 − the greatest cosine similarity to a labelled image, in [0, 1]; 1 where looks are unknown."""
    if not known.vectors_ME.size:
        return np.ones(len(glances))
    result = np.ones(len(glances))
    for row, glance in enumerate(glances):
        if glance.vector is not None:
            result[row] = np.clip(1 - float((known.vectors_ME @ glance.vector).max()), 0, 1)
    return result


def _greedy(glances: Sequence[Glance], value_N: Floats, novelty_N: Floats, costs_N: Floats, weight: float) -> tuple[list[int], list[float]]:
    """Rows best first: each choice takes novelty from what looks like it. Equal scores: the cheap one first."""
    with_looks = [row for row, glance in enumerate(glances) if glance.vector is not None]
    scale = float(np.median(novelty_N[with_looks])) or 1.0 if with_looks else 1.0

    def worth(rows: NDArray[np.int64], novelty: Floats) -> Floats:
        return np.asarray(value_N[rows] * (1 - weight + weight * np.minimum(novelty[rows] / scale, 1)))

    every = np.arange(len(glances))
    first = np.lexsort((costs_N, -np.round(worth(every, novelty_N), 6)))
    head, tail = first[:GREEDY], first[GREEDY:]
    if not with_looks or weight == 0:
        return first.tolist(), worth(first, novelty_N).tolist()
    vectors = np.array([glances[row].vector if glances[row].vector is not None else np.zeros(1) for row in head], dtype=object)
    width = max(len(vector) for vector in vectors)
    table = np.array([vector if len(vector) == width else np.zeros(width) for vector in vectors], dtype=np.float32)
    novelty, left = novelty_N[head].copy(), np.ones(len(head), dtype=bool)
    places, scores = [], []
    for _ in range(len(head)):
        now = value_N[head] * (1 - weight + weight * np.minimum(novelty / scale, 1))
        now[~left] = -np.inf
        best = int(np.lexsort((costs_N[head], -np.round(now, 6)))[0]) if len(head) <= 300 else int(now.argmax())
        places.append(int(head[best]))
        scores.append(float(now[best]))
        left[best] = False
        novelty = np.minimum(novelty, np.clip(1 - table @ table[best], 0, 1)) if table[best].any() else novelty
    floor = scores[-1] if scores else 0.0
    return [*places, *tail.tolist()], [*scores, *np.minimum(worth(tail, novelty_N), floor).tolist()]


def _reason(glance: Glance, label: int | None, novelty: float, known: Known) -> str:
    """Why it is here, in words."""
    words = []
    unsure = int(((glance.scores_D > 0.15) & (glance.scores_D < 0.85)).sum())
    if unsure:
        words.append(f"{unsure} unsure {'box' if unsure == 1 else 'boxes'}")
    if label is not None:
        words.append(f"mostly {known.names[label]} ({known.counts_C[label]} labelled)")
    if glance.disagreement > 0.5:
        words.append("checkpoints disagree")
    if known.vectors_ME.size and novelty > 0.3:
        words.append("unlike what is labelled")
    return ", ".join(words) or "nothing is seen in it"


def disagreement(boxes_a_N4: Floats, labels_a_N: NDArray[np.int64], boxes_b_M4: Floats, labels_b_M: NDArray[np.int64]) -> float:
    """1 − F1 of two answers taken as each other's truth at IoU .5 and equal class; 0 where both see nothing."""
    if not len(labels_a_N) and not len(labels_b_M):
        return 0.0
    same = (iou_matrix(boxes_a_N4, boxes_b_M4) >= 0.5) & (labels_a_N[:, None] == labels_b_M[None, :])
    found_a, found_b = same.any(axis=1).sum(), same.any(axis=0).sum()
    return float(1 - (found_a + found_b) / (len(labels_a_N) + len(labels_b_M)))

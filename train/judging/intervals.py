"""How sure a mAP is: percentile bootstrap over images (Efron 1979), alone and for two detectors on the same images.

Images are matched once. A resample is a weight per image; since interpolated precision can only change where a box is
found, all resamples of a class are a few cumulative sums over its detections. The point estimates are pycocotools' own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from annotate.coco import Document
from train.judging.engines import IOU_THRESHOLDS_T, RECALLS_R
from train.judging.evaluate import Evaluation, evaluate
from train.judging.inputs import Bools, Detections, Floats, Ints, Truth
from train.judging.matching import Matches, match

Found: TypeAlias = Sequence[Mapping[str, Any]] | Detections
Counts: TypeAlias = NDArray[np.int32]
_CELLS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A number and where it lies with the stated confidence; None = there is no box to tell from."""

    point: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Intervals:
    """Of one detector. `per_category` is keyed by category id and holds AP."""

    ap: Interval
    ap50: Interval
    per_category: dict[int, Interval]
    resamples: int
    confidence: float

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Paired:
    """Detector b against detector a on the same images; differences are b − a.

    `better` is the share of resamples in which b's AP is the higher one (equals count half).
    """

    ap_a: float
    ap_b: float
    delta_ap: Interval
    delta_ap50: Interval
    per_category: dict[int, Interval]
    better: float
    resamples: int
    confidence: float

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def intervals(
    ground_truth: Document | Truth, detections: Found, *, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Intervals:
    """Bootstrap intervals of AP, AP50 and each class's AP.

    Raises:
        CorruptError, UsageError: as :func:`train.judging.evaluate.evaluate`.
    """
    return of_evaluation(evaluate(ground_truth, detections), resamples=resamples, seed=seed, confidence=confidence)


def of_evaluation(evaluation: Evaluation, *, resamples: int = 1000, seed: int = 0, confidence: float = 0.95) -> Intervals:
    """:func:`intervals` where the evaluation is there already."""
    weights_IS = _weights(len(evaluation.truth.image_ids_I), resamples, seed)
    ap_STK = resampled_ap(evaluation.truth, evaluation.found, weights_IS)
    spread = _Spread(confidence)
    points = (entry["ap"] for entry in evaluation.per_category)
    return Intervals(
        spread.of(evaluation.stats[0], _mean(ap_STK)),
        spread.of(evaluation.stats[1], _mean(ap_STK[:, :1])),
        {
            number: spread.of(point, _mean(ap_STK[:, :, place : place + 1]))
            for place, (number, point) in enumerate(zip(evaluation.truth.category_ids_K.tolist(), points, strict=True))
        },
        resamples,
        confidence,
    )


def paired(
    ground_truth: Document | Truth,
    detections_a: Found,
    detections_b: Found,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Paired:
    """The difference of two detectors' AP, with its interval: both are resampled on the same images.

    Raises:
        CorruptError, UsageError: as :func:`train.judging.evaluate.evaluate`.
    """
    a = evaluate(ground_truth, detections_a)
    b = evaluate(a.truth, detections_b)
    weights_IS = _weights(len(a.truth.image_ids_I), resamples, seed)
    ap_a_STK, ap_b_STK = (resampled_ap(each.truth, each.found, weights_IS) for each in (a, b))
    deltas_S = _mean(ap_b_STK) - _mean(ap_a_STK)
    spread = _Spread(confidence)
    return Paired(
        a.stats[0],
        b.stats[0],
        spread.of(b.stats[0] - a.stats[0], deltas_S),
        spread.of(b.stats[1] - a.stats[1], _mean(ap_b_STK[:, :1]) - _mean(ap_a_STK[:, :1])),
        {
            number: spread.of(_class_ap(b, place) - _class_ap(a, place), _class_mean(ap_b_STK, place) - _class_mean(ap_a_STK, place))
            for place, number in enumerate(a.truth.category_ids_K.tolist())
        },
        float(np.mean((deltas_S > 0) + 0.5 * (deltas_S == 0))) if deltas_S.size else 0.5,
        resamples,
        confidence,
    )


def resampled_ap(truth: Truth, found: Detections, weights_IS: NDArray[Any]) -> Floats:
    """AP of every resample, IoU threshold and category, (S, T, K); NaN where the resample has no box of the category.

    `weights_IS` says how often each image is drawn. With weights of 1 it is pycocotools' AP up to rounding.
    """
    weights_IS = weights_IS.astype(np.int32, copy=False)
    matches = match(truth, found, IOU_THRESHOLDS_T)
    boxes_IK = np.zeros((len(truth.image_ids_I), len(truth.names_K)), dtype=np.int64)
    rows = truth.rows_of_images(truth.image_ids_A), truth.rows_of_categories(truth.category_ids_A)
    np.add.at(boxes_IK, rows, matches.counted_A.astype(np.int64))
    ap_STK = np.full((weights_IS.shape[1], len(IOU_THRESHOLDS_T), len(truth.names_K)), np.nan)
    for place in range(len(truth.names_K)):
        order = matches.by_score(place)
        at_once = max(1, _CELLS // max(1, len(order)))
        for start in range(0, weights_IS.shape[1], at_once):
            part = slice(start, start + at_once)
            ap_STK[part, :, place] = _class_resamples(matches, order, weights_IS[:, part], boxes_IK[:, place])
    return ap_STK


def _class_resamples(matches: Matches, order: Ints, weights_IS: Counts, boxes_I: Ints) -> Floats:
    boxes_S = boxes_I @ weights_IS
    drawn_NS = weights_IS[matches.image_N[order]]
    seen_NS = np.cumsum(drawn_NS, axis=0, dtype=np.int32)
    hits_TN, ignored_TN = matches.hits_TN()[:, order], matches.ignored_TN[:, order]
    ap_ST = np.empty((weights_IS.shape[1], len(hits_TN)))
    for place, (hits_N, ignored_N) in enumerate(zip(hits_TN, ignored_TN, strict=True)):
        ap_ST[:, place] = _ap(drawn_NS, seen_NS, hits_N, ignored_N, boxes_S)
    ap_ST[boxes_S == 0] = np.nan
    return ap_ST


def _ap(drawn_NS: Counts, seen_NS: Counts, hits_N: Bools, ignored_N: Bools, boxes_S: Ints) -> Floats:
    """101-point AP of each resample, (S,). Precision is looked up where a box is found: between, it only falls."""
    at = np.flatnonzero(hits_N)
    if not len(at):
        return np.zeros(drawn_NS.shape[1])
    found_PS = np.cumsum(drawn_NS[at], axis=0, dtype=np.int32)
    kept_PS = seen_NS[at]
    if ignored_N.any():
        kept_PS = kept_PS - _before(drawn_NS, np.flatnonzero(ignored_N), at)
    precision_PS = found_PS / (kept_PS + np.spacing(1))
    envelope_PS = np.maximum.accumulate(precision_PS[::-1], axis=0)[::-1]
    passed_PS = np.searchsorted(RECALLS_R, found_PS / np.maximum(boxes_S, 1), side="right")
    steps_PS = np.diff(passed_PS, axis=0, prepend=0)
    ap: Floats = np.einsum("ps,ps->s", envelope_PS, steps_PS) / len(RECALLS_R)
    return ap


def _before(drawn_NS: Counts, ignored: Ints, at: Ints) -> Counts:
    """How many ignored detections stand before each place, per resample, (P, S)."""
    total = np.cumsum(drawn_NS[ignored], axis=0, dtype=np.int32)
    padded = np.concatenate([np.zeros((1, drawn_NS.shape[1]), np.int32), total])
    before: Counts = padded[np.searchsorted(ignored, at)]
    return before


def _weights(images: int, resamples: int, seed: int) -> Counts:
    """How often each image is drawn in each resample, (I, S), int32."""
    rng = np.random.default_rng(seed)
    shares = np.full(images, 1 / images) if images else np.zeros(0)
    drawn = rng.multinomial(images, shares, size=resamples) if images else np.zeros((resamples, 0))
    return np.ascontiguousarray(drawn.T.astype(np.int32))


@dataclass(frozen=True)
class _Spread:
    confidence: float

    def of(self, point: float, values_S: Floats) -> Interval:
        told = values_S[np.isfinite(values_S)]
        if not told.size:
            return Interval(point, None, None)
        low, high = np.quantile(told, [(1 - self.confidence) / 2, (1 + self.confidence) / 2])
        return Interval(point, float(low), float(high))


def _mean(ap_STK: Floats) -> Floats:
    """The mean over thresholds and those categories that have boxes, (S,)."""
    flat = ap_STK.reshape(len(ap_STK), -1)
    present = np.isfinite(flat)
    count = present.sum(axis=1)
    mean: Floats = np.divide(np.where(present, flat, 0.0).sum(axis=1), count, out=np.full(len(flat), np.nan), where=count > 0)
    return mean


def _class_mean(ap_STK: Floats, place: int) -> Floats:
    return _mean(ap_STK[:, :, place : place + 1])


def _class_ap(evaluation: Evaluation, place: int) -> float:
    values = evaluation.curves.precision_TRKAM[:, :, place, 0, -1]
    return float(values.mean()) if (values > -1).all() else -1.0

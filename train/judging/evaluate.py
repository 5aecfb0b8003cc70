"""COCO mAP: the twelve numbers in pycocotools' order and with pycocotools' digits, and what stands behind each class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from annotate.coco import Document, read_document
from train.judging import inputs
from train.judging.engines import AREAS, IOU_THRESHOLDS_T, Curves, engine_named, hotcoco_curves, hotcoco_truth, load_hotcoco_file
from train.judging.inputs import Detections, Floats, Truth
from train.judging.matching import Matches, match

#: The twelve numbers: (name, of precision?, IoU threshold or None for all ten, area, place among the detection limits).
STATS: tuple[tuple[str, bool, float | None, str, int], ...] = (
    ("AP", True, None, "all", -1),
    ("AP50", True, 0.5, "all", -1),
    ("AP75", True, 0.75, "all", -1),
    ("APsmall", True, None, "small", -1),
    ("APmedium", True, None, "medium", -1),
    ("APlarge", True, None, "large", -1),
    ("AR1", False, None, "all", 0),
    ("AR10", False, None, "all", 1),
    ("AR100", False, None, "all", -1),
    ("ARsmall", False, None, "small", -1),
    ("ARmedium", False, None, "medium", -1),
    ("ARlarge", False, None, "large", -1),
)
STAT_NAMES = tuple(name for name, *_ in STATS)


@dataclass(frozen=True)
class OperatingPoint:
    """Where a detector's F1 at IoU .5 is best: keep detections with `score >= threshold`. None = there is no box at all."""

    f1: float | None
    threshold: float | None
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class Evaluation:
    """The judgement of one set of detections. `stats` are the twelve numbers of :data:`STATS`; -1 = no such box exists."""

    truth: Truth
    curves: Curves
    stats: list[float]
    engine: str
    found_in: Detections | Path

    @cached_property
    def found(self) -> Detections:
        """The detections; read again where the engine read them from a file itself."""
        if isinstance(self.found_in, Path):
            return inputs.detections(inputs.read_detections(self.found_in), self.truth)
        return self.found_in

    @cached_property
    def matches50(self) -> Matches:
        """The matching at IoU .5."""
        return match(self.truth, self.found, IOU_THRESHOLDS_T[:1], max_detections=self.curves.max_dets_M[-1])

    @cached_property
    def per_category(self) -> list[dict[str, Any]]:
        """One entry per category, by id: `id name ap ap50 ap75 ar boxes f1 threshold precision recall`."""
        boxes = np.bincount(
            self.truth.rows_of_categories(self.truth.category_ids_A[~self.truth.iscrowd_A]), minlength=len(self.truth.names_K)
        )
        entries = []
        for place, (number, name) in enumerate(zip(self.truth.category_ids_K.tolist(), self.truth.names_K, strict=True)):
            precision_TR = self.curves.precision_TRKAM[:, :, place, 0, -1]
            numbers = {
                "ap": _mean(precision_TR),
                "ap50": _mean(precision_TR[0]),
                "ap75": _mean(precision_TR[5]),
                "ar": _mean(self.curves.recall_TKAM[:, place, 0, -1]),
            }
            point = best_f1(self.matches50, [place], int(boxes[place]))
            entries.append({"id": number, "name": name, **numbers, "boxes": int(boxes[place]), **dataclasses.asdict(point)})
        return entries

    @cached_property
    def best(self) -> OperatingPoint:
        """The one threshold for all classes at which F1 over all detections is best."""
        return best_f1(self.matches50, range(len(self.truth.names_K)), int(np.count_nonzero(~self.truth.iscrowd_A)))

    def precision_at(self, iou_threshold: float, category: int | None = None) -> Floats:
        """Precision at the 101 recall points, (101,), of the category at that place, or the mean over all that have boxes."""
        place = int(np.flatnonzero(np.isclose(IOU_THRESHOLDS_T, iou_threshold))[0])
        curves_RK = self.curves.precision_TRKAM[place, :, :, 0, -1]
        if category is not None:
            return curves_RK[:, category]
        present = (curves_RK > -1).all(axis=0)
        return curves_RK[:, present].mean(axis=1) if present.any() else np.full(len(curves_RK), -1.0)

    def to_json(self) -> dict[str, Any]:
        """What `boxwright evaluate --json` and `metrics.json` hold."""
        return {
            "stats": self.stats,
            "stat_names": list(STAT_NAMES),
            "per_category": self.per_category,
            "best": dataclasses.asdict(self.best),
            "images": len(self.truth.image_ids_I),
            "boxes": int(np.count_nonzero(~self.truth.iscrowd_A)),
            "detections": len(self.found),
            "engine": self.engine,
        }


def evaluate(
    ground_truth: Document | Truth,
    detections: Sequence[Mapping[str, Any]] | Detections,
    *,
    engine: str = "hotcoco",
    max_detections: int = 100,
) -> Evaluation:
    """Judge detections (COCO results, or arrays) against a COCO document.

    Empty detections give AP 0; a truth without boxes gives -1, as in pycocotools.

    Raises:
        CorruptError: the ground truth or the detections are not COCO's.
        UsageError: unknown engine; detections for images or categories that the truth does not have.
    """
    truth = ground_truth if isinstance(ground_truth, Truth) else inputs.truth(ground_truth)
    if isinstance(detections, Detections):
        inputs.check(detections, truth)
        found = detections
    else:
        found = inputs.detections(detections, truth)
    curves = engine_named(engine)(truth, found, _limits(max_detections))
    return Evaluation(truth, curves, summarize(curves, max_detections), engine, found)


def evaluate_files(ground_truth: Path, detections: Path, *, engine: str = "hotcoco", max_detections: int = 100) -> Evaluation:
    """Judge a file of COCO results against a COCO file; the default engine reads large files of results itself.

    Raises:
        NotFoundError: a file is not there.
        CorruptError, UsageError: as :func:`evaluate`.
    """
    truth = inputs.truth(read_document(ground_truth))
    if engine == "hotcoco" and detections.is_file():
        gt = hotcoco_truth(truth)
        dt = load_hotcoco_file(gt, detections)
        if dt is not None:
            curves = hotcoco_curves(gt, dt, _limits(max_detections))
            return Evaluation(truth, curves, summarize(curves, max_detections), engine, detections)
    return evaluate(truth, inputs.read_detections(detections), engine=engine, max_detections=max_detections)


def summarize(curves: Curves, max_detections: int = 100) -> list[float]:
    """The twelve numbers, in the order and with the arithmetic of `COCOeval.summarize`."""
    limits = {0: 0, 1: curves.max_dets_M.index(10), -1: curves.max_dets_M.index(max_detections)}
    stats = []
    for _, of_precision, threshold, area, limit in STATS:
        values = curves.precision_TRKAM if of_precision else curves.recall_TKAM
        if threshold is not None:
            values = values[np.isclose(IOU_THRESHOLDS_T, threshold)]
        stats.append(_mean(values[..., list(AREAS).index(area), limits[limit]]))
    return stats


def best_f1(matches: Matches, categories: Sequence[int], boxes: int) -> OperatingPoint:
    """The best F1 of the detections of these categories (places), of `boxes` that count, by the first threshold's matching."""
    if not boxes:
        return OperatingPoint(None, None, None, None)
    kept = np.isin(matches.category_N, np.asarray(categories)) & ~matches.ignored_TN[0]
    scores, hits = matches.scores_N[kept], matches.hits_TN()[0, kept]
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], np.cumsum(hits[order])
    # A threshold keeps all of several equal scores, so only the last of them is a point one can choose.
    last = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True]) if len(scores) else np.zeros(0, dtype=int)
    if not len(last) or not found[-1]:
        return OperatingPoint(0.0, None, 0.0, 0.0)
    f1 = 2 * found[last] / (last + 1 + boxes)
    best = int(f1.argmax())
    place = int(last[best])
    return OperatingPoint(float(f1[best]), float(scores[place]), float(found[place] / (place + 1)), float(found[place] / boxes))


def _limits(max_detections: int) -> tuple[int, ...]:
    return tuple(sorted({1, 10, max_detections}))


def _mean(values: Floats) -> float:
    present = values[values > -1]
    return float(np.mean(present)) if present.size else -1.0

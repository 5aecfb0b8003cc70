"""What a mAP hides: who is taken for whom, whether scores mean what they say, and where a detector is weak."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.judging.engines import AREAS
from train.judging.evaluate import Evaluation, evaluate
from train.judging.inputs import Detections, Floats, Ints, Truth
from train.judging.matching import Matches, match

#: Images by number of boxes: (name, least, most).
COUNTS = (("no box", 0, 0), ("1 box", 1, 1), ("2–4 boxes", 2, 4), ("5–9 boxes", 5, 9), ("10 boxes or more", 10, 10**9))
#: Groups of images that are told apart at most.
MOST_SLICES = 40


@dataclass(frozen=True)
class Confusion:
    """Boxes by true (rows) and predicted (columns) category, (K + 1, K + 1); the last row and column are background."""

    counts_KK: Ints
    threshold: float
    iou_threshold: float


@dataclass(frozen=True)
class Calibration:
    """How often detections of a score are right. `ece` is the expected calibration error (Naeini et al. 2015), in [0, 1].

    B bins of equal width; mean score and share of right ones are NaN in empty bins.
    """

    score_B: Floats
    right_B: Floats
    count_B: Ints
    ece: float | None


def confusion(truth: Truth, found: Detections, threshold: float, iou_threshold: float = 0.5) -> Confusion:
    """Who is taken for whom among detections with at least that score.

    Boxes and detections of one class find each other first; what is left over is matched across classes, and what is
    left then is background. Crowds count for nothing.
    """
    kept = Detections(*(column[found.scores_D >= threshold] for column in _columns(found)))
    thresholds = np.array([iou_threshold])
    within = match(truth, kept, thresholds)
    size = len(truth.names_K)
    counts = np.zeros((size + 1, size + 1), dtype=np.int64)
    category_A, taken = truth.rows_of_categories(truth.category_ids_A), within.box_TN[0]
    hits = within.hits_TN()[0]
    np.add.at(counts, (within.category_N[hits], within.category_N[hits]), 1)

    free_A = within.counted_A.copy()
    free_A[taken[taken >= 0]] = False
    rows_A, rows_D = np.flatnonzero(free_A), within.rows_N[(taken < 0) & ~within.ignored_TN[0]]
    across = match(_one_class(truth, rows_A), _rows(kept, rows_D, 0), thresholds)
    predicted = truth.rows_of_categories(kept.category_ids_D)[rows_D][across.rows_N]
    other = across.box_TN[0]
    met = other >= 0
    np.add.at(counts, (category_A[rows_A[other[met]]], predicted[met]), 1)
    np.add.at(counts, (np.full((~met).sum(), size), predicted[~met]), 1)
    missed = np.setdiff1d(np.arange(len(rows_A)), other[met])
    np.add.at(counts, (category_A[rows_A[missed]], np.full(len(missed), size)), 1)
    return Confusion(counts, threshold, iou_threshold)


def calibration(matches50: Matches, bins: int = 10) -> Calibration:
    """Reliability of the scores of all detections that count, right meaning a box of the class at IoU .5."""
    kept = ~matches50.ignored_TN[0]
    scores, hits = matches50.scores_N[kept], matches50.hits_TN()[0, kept]
    bin_of = np.clip((scores * bins).astype(np.int64), 0, bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    some = np.where(count > 0, count, 1)
    mean_score = np.where(count > 0, np.bincount(bin_of, scores, bins) / some, np.nan)
    right = np.where(count > 0, np.bincount(bin_of, hits.astype(float), bins) / some, np.nan)
    ece = float(np.nansum(np.abs(mean_score - right) * count) / count.sum()) if count.sum() else None
    return Calibration(mean_score, right, count, ece)


def by_size(evaluation: Evaluation) -> list[dict[str, Any]]:
    """AP and AR of small, medium and large boxes, and how many there are: `name boxes ap ar`."""
    rows = []
    for place, (name, (least, most)) in enumerate(AREAS.items()):
        inside = (evaluation.truth.areas_A >= least) & (evaluation.truth.areas_A <= most) & ~evaluation.truth.iscrowd_A
        ap = evaluation.curves.precision_TRKAM[:, :, :, place, -1]
        ar = evaluation.curves.recall_TKAM[:, :, place, -1]
        rows.append({"name": name, "boxes": int(inside.sum()), "ap": _mean(ap), "ar": _mean(ar)})
    return rows


def by_count(evaluation: Evaluation) -> list[dict[str, Any]]:
    """AP by how many boxes an image holds; see :func:`of_groups`."""
    truth = evaluation.truth
    counts = np.bincount(truth.rows_of_images(truth.image_ids_A), minlength=len(truth.image_ids_I))
    groups = {name: truth.image_ids_I[(counts >= least) & (counts <= most)].tolist() for name, least, most in COUNTS}
    return of_groups(evaluation, groups)


def slices(evaluation: Evaluation, images: Iterable[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    """AP by an image field of the COCO document (`source`, `domain`, `query`; a text or a list of texts).

    [] where the images do not have it, or all have the same; the largest :data:`MOST_SLICES` groups, largest first.
    """
    groups: dict[str, list[int]] = {}
    for image in images:
        values = image.get(key)
        for value in values if isinstance(values, list) else [values]:
            groups.setdefault("(none)" if value in (None, "") else str(value), []).append(image["id"])
    if len(groups) < 2:
        return []
    ranked = sorted(groups, key=lambda name: (-len(groups[name]), name))
    return of_groups(evaluation, {name: groups[name] for name in ranked[:MOST_SLICES]})


def of_groups(evaluation: Evaluation, groups: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """AP on parts of the images, empty ones left out: `name images boxes detections ap ap50 f1`.

    AP is -1 where a part has no boxes; `detections` counts those at the whole set's F1-best threshold, which on images
    without boxes are all wrong.
    """
    rows = []
    threshold = evaluation.best.threshold
    for name, image_ids in groups.items():
        truth, found = evaluation.truth.only(image_ids), evaluation.found.only(image_ids)
        if not len(truth.image_ids_I):
            continue
        part = evaluate(truth, found, engine=evaluation.engine)
        rows.append(
            {
                "name": name,
                "images": len(truth.image_ids_I),
                "boxes": int(np.count_nonzero(~truth.iscrowd_A)),
                "detections": int(np.count_nonzero(found.scores_D >= threshold)) if threshold is not None else 0,
                "ap": part.stats[0],
                "ap50": part.stats[1],
                "f1": part.best.f1,
            }
        )
    return rows


def image_quality(evaluation: Evaluation, threshold: float) -> list[tuple[int, int, int, int]]:
    """For each image (id, found, wrong, missed) at IoU .5 among detections with at least that score."""
    matches, size = evaluation.matches50, len(evaluation.truth.image_ids_I)
    kept = (matches.scores_N >= threshold) & ~matches.ignored_TN[0]
    hits = matches.hits_TN()[0]
    right = np.bincount(matches.image_N[kept & hits], minlength=size)
    wrong = np.bincount(matches.image_N[kept & ~hits], minlength=size)
    boxes = np.bincount(evaluation.truth.rows_of_images(evaluation.truth.image_ids_A[matches.counted_A]), minlength=size)
    return list(zip(evaluation.truth.image_ids_I.tolist(), right.tolist(), wrong.tolist(), (boxes - right).tolist(), strict=True))


def _columns(found: Detections) -> list[Any]:
    return [getattr(found, field.name) for field in dataclasses.fields(found)]


def _rows(found: Detections, rows: Ints, category_id: int) -> Detections:
    return Detections(found.image_ids_D[rows], np.full(len(rows), category_id), found.boxes_xywh_D4[rows], found.scores_D[rows])


def _one_class(truth: Truth, rows: Ints) -> Truth:
    return Truth(
        truth.image_ids_I,
        np.zeros(1, dtype=np.int64),
        ("any",),
        truth.image_ids_A[rows],
        np.zeros(len(rows), dtype=np.int64),
        truth.boxes_xywh_A4[rows],
        truth.areas_A[rows],
        np.zeros(len(rows), dtype=bool),
    )


def _mean(values: Floats) -> float:
    present = values[values > -1]
    return float(np.mean(present)) if present.size else -1.0

"""COCO's precision and recall arrays, from one of two engines that agree in every digit.

pycocotools is the oracle; hotcoco does the same arithmetic in Rust, some fifty times faster, and is the default. Both
number the annotations from 1 (see :mod:`train.judging.inputs`).
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from collect.errors import unknown_name
from train.judging.inputs import Detections, Floats, Truth

ENGINES = {
    "hotcoco": "train.judging.engines:with_hotcoco",
    "pycocotools": "train.judging.engines:with_pycocotools",
}
#: COCO's ten IoU thresholds, written as pycocotools writes them: other ways differ in the last bit.
IOU_THRESHOLDS_T: Floats = np.linspace(0.5, 0.95, 10, endpoint=True)
#: COCO's 101 recall points.
RECALLS_R: Floats = np.linspace(0.0, 1.00, 101, endpoint=True)
#: name -> (least, greatest) area in square pixels, in the order of the arrays' axis A.
AREAS = {"all": (0.0, 1e10), "small": (0.0, 1024.0), "medium": (1024.0, 9216.0), "large": (9216.0, 1e10)}


@dataclass(frozen=True)
class Curves:
    """Precision (T, R, K, A, M), the score at each point of it, and recall (T, K, A, M); -1 where there is no box.

    T IoU thresholds, R recall points, K categories by id, A areas (:data:`AREAS`), M = `max_dets_M` detections an image.
    """

    precision_TRKAM: Floats
    recall_TKAM: Floats
    scores_TRKAM: Floats
    max_dets_M: tuple[int, ...]


Engine = Callable[[Truth, Detections, tuple[int, ...]], Curves]


def engine_named(name: str) -> Engine:
    """The engine of that name.

    Raises:
        UsageError: there is none; lists those there are.
    """
    if name not in ENGINES:
        raise unknown_name("evaluation engine", name, ENGINES)
    module, _, attribute = ENGINES[name].partition(":")
    return cast("Engine", getattr(importlib.import_module(module), attribute))


def with_hotcoco(truth: Truth, found: Detections, max_dets_M: tuple[int, ...]) -> Curves:
    """Curves by hotcoco."""
    gt = hotcoco_truth(truth)
    columns = [found.image_ids_D, found.boxes_xywh_D4, found.scores_D, found.category_ids_D]
    dt = gt.load_res(np.column_stack(columns).astype(np.float64)) if len(found) else gt.load_res([])
    return hotcoco_curves(gt, dt, max_dets_M)


def hotcoco_truth(truth: Truth) -> Any:
    """The truth as a `hotcoco.COCO`."""
    import hotcoco

    return hotcoco.COCO.from_arrays(
        [{"id": number, "width": 1, "height": 1, "file_name": ""} for number in truth.image_ids_I.tolist()],
        _categories(truth),
        truth.image_ids_A,
        truth.category_ids_A,
        truth.boxes_xywh_A4,
        area=truth.areas_A,
        iscrowd=truth.iscrowd_A,
    )


def hotcoco_curves(gt: Any, dt: Any, max_dets_M: tuple[int, ...]) -> Curves:
    """Curves of two `hotcoco.COCO`."""
    evaluator = hotcoco_evaluator(gt, dt, max_dets_M)
    evaluator.accumulate()
    return _curves(evaluator.eval, max_dets_M)


def hotcoco_evaluator(gt: Any, dt: Any, max_dets_M: tuple[int, ...]) -> Any:
    """A `hotcoco.COCOeval` whose images have been matched."""
    import hotcoco

    evaluator = hotcoco.COCOeval(gt, dt, "bbox")
    if max_dets_M != (1, 10, 100):
        evaluator.params.max_dets = list(max_dets_M)
    evaluator.evaluate()
    return evaluator


def load_hotcoco_file(gt: Any, path: Path) -> Any | None:
    """Detections read by hotcoco straight from a file, or None where anything in it is odd.

    hotcoco only warns about strangers, and takes an entry without a score or box, or with null for one; whoever gets None
    reads the file again with :func:`train.judging.inputs.read_detections`, which says what is wrong with it.
    """
    raw = path.read_bytes()
    if not raw.lstrip().startswith(b"[") or b"null" in raw:
        return None
    try:
        dt = gt.load_res(str(path))
    except (ValueError, KeyError, TypeError, OSError, RuntimeError):
        return None
    count = dt.stats()["annotation_count"]
    complete = all(raw.count(key) == count for key in (b'"bbox"', b'"score"'))
    return dt if complete and not dt.load_warnings else None


def with_pycocotools(truth: Truth, found: Detections, max_dets_M: tuple[int, ...]) -> Curves:
    """Curves by pycocotools: the oracle."""
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(*pycocotools_pair(truth, found), "bbox")
        evaluator.params.maxDets = list(max_dets_M)
        evaluator.evaluate()
        evaluator.accumulate()
    return _curves(evaluator.eval, max_dets_M)


def pycocotools_pair(truth: Truth, found: Detections) -> tuple[Any, Any]:
    """Truth and detections as two `pycocotools.coco.COCO`; the second is what `loadRes` makes, and may be empty."""
    from pycocotools.coco import COCO

    shared = {"images": [{"id": number} for number in truth.image_ids_I.tolist()], "categories": _categories(truth)}
    found_areas = found.boxes_xywh_D4[:, 2] * found.boxes_xywh_D4[:, 3]
    sides = (
        _annotations(truth.image_ids_A, truth.category_ids_A, truth.boxes_xywh_A4, truth.areas_A, iscrowd=truth.iscrowd_A.astype(int)),
        _annotations(found.image_ids_D, found.category_ids_D, found.boxes_xywh_D4, found_areas, score=found.scores_D),
    )
    pair = []
    for side in sides:
        coco = COCO()
        coco.dataset = {**shared, "annotations": side}
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        pair.append(coco)
    return pair[0], pair[1]


def _annotations(image_ids_N: Any, category_ids_N: Any, boxes_N4: Any, areas_N: Any, **more: Any) -> list[dict[str, Any]]:
    key, values = next(iter(more.items()))
    columns = zip(image_ids_N.tolist(), category_ids_N.tolist(), boxes_N4.tolist(), areas_N.tolist(), values.tolist(), strict=True)
    return [
        {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": 0, key: value}
        for number, (image, category, box, area, value) in enumerate(columns, 1)
    ]


def _categories(truth: Truth) -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for number, name in zip(truth.category_ids_K.tolist(), truth.names_K, strict=True)]


def _curves(accumulated: Any, max_dets_M: tuple[int, ...]) -> Curves:
    precision, recall, scores = (np.asarray(accumulated[key], dtype=np.float64) for key in ("precision", "recall", "scores"))
    return Curves(precision, recall, scores, max_dets_M)

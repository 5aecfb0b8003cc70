"""A run's detector as ONNX, handed out only when onnxruntime finds the same boxes on real images.

Each family needs its own exporter (facts in LOG.md): `Detector.exporter` is tried first, the other one after it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from annotate.boxes import iou_matrix, xywh_from_xyxy
from collect.errors import MissingServiceError, RefusedError
from collect.files import storage_errors
from train.data.augment import GREY
from train.detectors.detector import Detector

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]
#: Boxes that agree this well are the same; scores may differ by so much.
SAME_IOU, SAME_SCORE = 0.99, 1e-3
SCORE_LEAST = 0.05


@dataclass(frozen=True)
class Exported:
    """A file that passed: which exporter wrote it, how far it is from torch, and whether OpenCV's DNN module reads it."""

    path: Path
    exporter: str
    images: int
    boxes: int
    worst_score: float
    worst_iou: float
    opencv: str


def letterboxed(image_HW3: NDArray[np.uint8], side_px: int) -> Floats:
    """The model's input (1, 3, S, S), RGB in 0..255: the image at its longest side, padded right and below."""
    height, width = image_HW3.shape[:2]
    scale = side_px / max(height, width)
    inner = cv2.resize(image_HW3, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA)
    canvas = np.full((side_px, side_px, 3), GREY, dtype=np.float32)
    canvas[: inner.shape[0], : inner.shape[1]] = inner
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None])


def export(detector: Detector, path: Path, images: Sequence[NDArray[np.uint8]]) -> Exported:
    """Write `path` and hold it against torch on `images` (uint8 RGB, any size).

    Input `image`: float32 (1, 3, S, S). Outputs `boxes` xyxy (N, 4) in pixels of the input, `scores` (N,), `labels` (N,).

    Raises:
        MissingServiceError: onnx or onnxruntime is not installed.
        RefusedError: no exporter writes a file that finds the same boxes; nothing is left behind.
    """
    _needed()
    wrapper = detector.export_wrapper().cpu().eval()
    inputs = [letterboxed(image, detector.image_size) for image in images]
    expected = [_torch_answer(wrapper, one) for one in inputs]
    reasons = []
    for exporter in dict.fromkeys((detector.exporter, "legacy", "dynamo")):
        try:
            _write(wrapper, inputs[0], path, exporter)
            worst_iou, worst_score = _compared(path, inputs, expected)
        except _Mismatch as error:
            reasons.append(f"{exporter}: {error}")
        except Exception as error:  # exporters raise whatever their tracing meets
            logger.info("exporter %s", exporter, exc_info=True)
            reasons.append(f"{exporter}: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")
        else:
            boxes = sum(int((scores >= SCORE_LEAST).sum()) for _, scores, _ in expected)
            return Exported(path, exporter, len(images), boxes, worst_score, worst_iou, _opencv(path, inputs[0]))
        path.unlink(missing_ok=True)
    raise RefusedError("no ONNX file was written, since none does what the detector does – " + "; ".join(reasons))


class _Mismatch(Exception):  # noqa: N818 - not an error of ours but a finding
    pass


def _needed() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise MissingServiceError(f"ONNX export needs {error.name}; `pip install 'boxwright[export]'` brings it") from error


def _write(wrapper: torch.nn.Module, example: Floats, path: Path, exporter: str) -> None:
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["boxes", "scores", "labels"]}
    with storage_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracers warn about every shape they fix, which is what we ask for
        given = torch.from_numpy(example)
        if exporter == "dynamo":
            torch.onnx.export(wrapper, (given,), str(path), dynamo=True, external_data=False, **names)
        else:
            axes = {"boxes": {0: "found"}, "scores": {0: "found"}, "labels": {0: "found"}}
            torch.onnx.export(wrapper, (given,), str(path), dynamo=False, opset_version=17, dynamic_axes=axes, **names)


def _torch_answer(wrapper: torch.nn.Module, example: Floats) -> tuple[Floats, Floats, NDArray[np.int64]]:
    with torch.no_grad():
        boxes, scores, labels = wrapper(torch.from_numpy(example))
    return boxes.numpy(), scores.numpy(), labels.numpy()


def _compared(path: Path, inputs: list[Floats], expected: list[tuple[Floats, Floats, NDArray[np.int64]]]) -> tuple[float, float]:
    """The worst overlap and the worst difference of scores over all boxes that count."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst_iou, worst_score = 1.0, 0.0
    for example, (boxes, scores, labels) in zip(inputs, expected, strict=True):
        found = session.run(None, {"image": example})
        sure = scores >= SCORE_LEAST + SAME_SCORE
        if not sure.any():
            continue
        if not len(found[1]):
            raise _Mismatch(f"{int(sure.sum())} boxes are missing")
        overlap = iou_matrix(xywh_from_xyxy(boxes[sure].astype(np.float64)), xywh_from_xyxy(found[0].astype(np.float64)))
        distance = np.abs(scores[sure][:, None] - found[1][None, :])
        same = (labels[sure][:, None] == found[2][None, :]) & (distance <= SAME_SCORE)
        best = np.where(same, overlap, 0.0)
        match = best.argmax(axis=1)
        worst_iou = min(worst_iou, float(best.max(axis=1).min()))
        if worst_iou < SAME_IOU:
            raise _Mismatch(f"a box of torch's has no equal one (best IoU {worst_iou:.3f})")
        worst_score = max(worst_score, float(distance[np.arange(len(match)), match].max()))
    return worst_iou, worst_score


def _opencv(path: Path, example: Floats) -> str:
    """Either "reads it", or why OpenCV's DNN module does not."""
    try:
        network = cv2.dnn.readNetFromONNX(str(path))
        network.setInput(example)
        network.forward(network.getUnconnectedOutLayersNames())
    except cv2.error as error:
        why = " ".join(str(error.err).split())
        return f"does not read it ({why[:80]})"
    return "reads it"

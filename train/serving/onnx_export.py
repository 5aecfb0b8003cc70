"""A run's detector as ONNX, handed out only when onnxruntime finds the same boxes on real images.

Each family needs its own exporter (table in docs/train.md): `Detector.exporter` is tried first, the other one after it.
Dense detectors have a second form that stops before suppression. OpenCV's DNN module reads that one: of what suppression
needs (TopK, NonMaxSuppression, shapes that depend on values) its importer knows too little.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from annotate.boxes import iou_matrix, xywh_from_xyxy
from collect.errors import MissingServiceError, RefusedError, StorageError
from collect.files import storage_errors
from train.data.augment import GREY
from train.detectors.detector import Detector

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Answer = Sequence[NDArray[Any]]
#: Runs a model on one input and gives what it answers.
Runner = Callable[[Floats], Answer]
#: Boxes that agree this well are the same; scores may differ by so much.
SAME_IOU, SAME_SCORE = 0.99, 1e-3
SCORE_LEAST = 0.05
_OUTPUTS = ("boxes", "scores", "labels")

#: what is said of a file that OpenCV's importer stumbles over
UNREAD = "does not read it"


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


class _Places(nn.Module):
    """The form without suppression: boxes xyxy (P, 4) and scores (P, C) of all places of one image."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image_13HW: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores = self.detector.places(image_13HW)
        return boxes[0], scores[0]


def letterboxed(image_HW3: NDArray[np.uint8], side_px: int) -> Floats:
    """The model's input (1, 3, S, S), RGB in 0..255: the image at its longest side, padded right and below."""
    height, width = image_HW3.shape[:2]
    scale = side_px / max(height, width)
    inner = cv2.resize(image_HW3, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA)
    canvas = np.full((side_px, side_px, 3), GREY, dtype=np.float32)
    canvas[: inner.shape[0], : inner.shape[1]] = inner
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None])


def export(detector: Detector, path: Path, images: Sequence[NDArray[np.uint8]], *, suppressed: bool = True) -> Exported:
    """Write `path` and hold it against torch on `images` (uint8 RGB, any size).

    Input `image`: float32 (1, 3, S, S). Outputs `boxes` xyxy (N, 4) in pixels of the input, `scores` (N,), `labels` (N,);
    with `suppressed=False` `boxes` (P, 4) and `scores` (P, C) of all places, for a reader that suppresses by itself.

    Raises:
        MissingServiceError: onnx or onnxruntime is not installed.
        RefusedError: no exporter writes a file that finds the same boxes, or there is none to find; nothing is left behind.
        UsageError: a form without suppression is asked of a detector that is not dense.
    """
    check_installed()
    wrapper = (detector.export_wrapper() if suppressed else _Places(detector)).cpu().eval()
    inputs = [letterboxed(image, detector.image_size) for image in images]
    expected = [_torch_answer(wrapper, one) for one in inputs]
    boxes = sum(int((answer[1] >= SCORE_LEAST).sum()) for answer in expected)
    if not boxes:
        raise RefusedError(f"on these {len(images)} images the detector finds no box at all, so nothing can be compared; train it longer")
    reasons = []
    for exporter in dict.fromkeys((detector.exporter, "legacy", "dynamo")):
        try:
            write(wrapper, inputs[0], path, exporter, _OUTPUTS[: len(expected[0])])
            worst_iou, worst_score = _compared(_with_onnxruntime(path), inputs, expected)
        except StorageError:
            raise
        except _Mismatch as error:
            reasons.append(f"{exporter}: {error}")
        except Exception as error:  # exporters raise whatever their tracing meets
            logger.info("exporter %s", exporter, exc_info=True)
            said = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip() or "no words"  # some colour their words
            reasons.append(f"{exporter}: {type(error).__name__}: {said.splitlines()[0]}")
        else:
            return Exported(path, exporter, len(images), boxes, worst_score, worst_iou, _opencv(path, inputs, expected))
        path.unlink(missing_ok=True)
    raise RefusedError("no ONNX file was written, since none does what the detector does – " + "; ".join(reasons))


class _Mismatch(Exception):  # noqa: N818 - not an error of ours but a finding
    pass


def check_installed() -> None:
    """
    Raises:
        MissingServiceError: onnx or onnxruntime is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise MissingServiceError(f"ONNX export needs {error.name}; `pip install 'boxwright[export]'` brings it") from error


def write(wrapper: nn.Module, example: Floats, path: Path, exporter: str, outputs: Sequence[str]) -> None:
    """Write a module's graph, its input called `image`, by the exporter `dynamo` or `legacy`; both raise whatever their tracing meets."""
    names: dict[str, Any] = {"input_names": ["image"], "output_names": list(outputs)}
    with storage_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # what cannot be written is said before the work, and not as a failure of the exporter
    with warnings.catch_warnings(), torch.no_grad(), _silence():
        warnings.simplefilter("ignore")  # tracers warn about every shape they fix, which is what we ask for
        given = torch.from_numpy(example)
        if exporter == "dynamo":
            torch.onnx.export(wrapper, (given,), str(path), dynamo=True, external_data=False, **names)
        else:
            axes = {name: {0: "found"} for name in outputs} if len(outputs) == len(_OUTPUTS) else {}
            torch.onnx.export(wrapper, (given,), str(path), dynamo=False, opset_version=17, dynamic_axes=axes, **names)


@contextmanager
def _silence() -> Iterator[None]:
    """Exporters print whole graphs, some from C++; what matters of it is in the exception they raise."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    with Path(os.devnull).open("w", encoding="ascii") as nowhere:
        for number, _ in kept:
            os.dup2(nowhere.fileno(), number)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)


def _torch_answer(wrapper: nn.Module, example: Floats) -> Answer:
    with torch.no_grad():
        return [output.numpy() for output in wrapper(torch.from_numpy(example))]


def _with_onnxruntime(path: Path) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda example: cast("Answer", session.run(None, {"image": example}))


def _with_opencv(path: Path, outputs: Sequence[str]) -> Runner:
    network = cv2.dnn.readNetFromONNX(str(path))

    def run(example: Floats) -> Answer:
        network.setInput(example)
        return network.forward(outputs)

    return run


def _told(answer: Answer) -> tuple[NDArray[np.float64], Floats, NDArray[np.int64]]:
    """Boxes xyxy, scores and labels of either form; of places, those worth a look."""
    boxes, scores, *labels = answer
    if labels:
        return boxes.reshape(-1, 4).astype(np.float64), scores.ravel(), labels[0].ravel().astype(np.int64)
    place, label = np.nonzero(scores >= SCORE_LEAST)
    return boxes[place].astype(np.float64), scores[place, label], label


def _compared(run: Runner, inputs: list[Floats], expected: list[Answer]) -> tuple[float, float]:
    """The worst overlap and the worst difference of scores over all boxes that count."""
    worst_iou, worst_score = 1.0, 0.0
    for example, answer in zip(inputs, expected, strict=True):
        boxes, scores, labels = _told(answer)
        found_boxes, found_scores, found_labels = _told(run(example))
        sure = scores >= SCORE_LEAST + SAME_SCORE
        if not sure.any():
            continue
        if not len(found_scores):
            raise _Mismatch(f"{int(sure.sum())} boxes are missing")
        overlap = iou_matrix(xywh_from_xyxy(boxes[sure]), xywh_from_xyxy(found_boxes))
        distance = np.abs(scores[sure][:, None] - found_scores[None, :])
        same = (labels[sure][:, None] == found_labels[None, :]) & (distance <= SAME_SCORE)
        best = np.where(same, overlap, 0.0)
        match = best.argmax(axis=1)
        worst_iou = min(worst_iou, float(best.max(axis=1).min()))
        if worst_iou < SAME_IOU:
            if _tied(scores, found_scores):
                raise _Mismatch("the scores are the same, but so many are equal that suppression keeps other boxes: train it longer")
            raise _Mismatch(f"a box of torch's has no equal one (best IoU {worst_iou:.3f})")
        worst_score = max(worst_score, float(distance[np.arange(len(match)), match].max()))
    return worst_iou, worst_score


def _tied(scores: Floats, found_scores: Floats) -> bool:
    """Whether two answers have the same scores, best first, and neighbours among them too near to tell apart."""
    count = min(len(scores), len(found_scores))
    ours, theirs = (np.sort(one)[::-1][:count] for one in (scores, found_scores))
    return count > 1 and bool(np.abs(ours - theirs).max() <= SAME_SCORE) and bool(np.median(-np.diff(ours)) <= SAME_SCORE)


def _opencv(path: Path, inputs: list[Floats], expected: list[Answer]) -> str:
    """Whether OpenCV's DNN module reads the file and finds the same boxes, in words."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # else its own words come before ours
    try:
        _compared(_with_opencv(path, _OUTPUTS[: len(expected[0])]), inputs, expected)
    except cv2.error as error:
        logger.info("OpenCV does not read %s: %s", path, " ".join(str(error.err).split()))
        return UNREAD
    except _Mismatch as error:
        return f"reads it but finds other boxes: {error}"
    finally:
        cv2.utils.logging.setLogLevel(level)
    return "reads it and finds the same boxes"

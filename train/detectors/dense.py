"""What dense detectors share: the places they answer at, the best of the answers, and non-maximum suppression."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from train.detectors.detector import PER_IMAGE, SCORE_LEAST, RawDetections

MOST_PLACES = 1000


@lru_cache(maxsize=32)
def places(height: int, width: int, strides: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres (P, 2) in pixels and strides (P,) of all cells, level by level, row by row.

    Made outside of torch's operators, so that an exported graph holds them as constants: OpenCV's DNN module does not
    read the operators that would make them.
    """
    points, steps = [], []
    for stride in strides:
        y, x = np.mgrid[: height // stride, : width // stride]
        points.append((np.stack([x.ravel(), y.ravel()], 1) + 0.5) * stride)
        steps.append(np.full(x.size, float(stride)))
    with torch.inference_mode(False):  # kept for trainings, even if a prediction asked first
        centres, sides = (torch.from_numpy(np.concatenate(each).astype(np.float32)).to(device) for each in (points, steps))
    return centres, sides


def inside(boxes_BP4: Tensor, height: int, width: int) -> Tensor:
    """Boxes xyxy cut at the border of the image."""
    return torch.stack([boxes_BP4[..., side].clamp(0, width if side % 2 == 0 else height) for side in range(4)], -1)


def best_places(scores_PC: Tensor, boxes_P4: Tensor, most: int = MOST_PLACES) -> RawDetections:
    """The up to `most` best pairs of place and class above the least score, best first; a place may answer several classes."""
    classes = scores_PC.shape[1]
    best, flat = scores_PC.flatten().topk(min(most, scores_PC.numel()))
    kept = best > SCORE_LEAST
    best, flat = best[kept], flat[kept]
    return RawDetections(boxes_P4[torch.div(flat, classes, rounding_mode="floor")], best, flat % classes)


def suppressed(parts: list[RawDetections], iou: float) -> RawDetections:
    """All parts together: of boxes of one class that overlap by more than `iou` the best; at most 100."""
    boxes = torch.cat([part.boxes_xyxy_N4 for part in parts])
    scores = torch.cat([part.scores_N for part in parts])
    labels = torch.cat([part.labels_N for part in parts])
    keep = batched_nms(boxes, scores, labels, iou)[:PER_IMAGE]
    return RawDetections(boxes[keep], scores[keep], labels[keep])

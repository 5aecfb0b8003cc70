"""From scores at many places to the boxes that a dense detector answers: the best places, then non-maximum suppression."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from train.detectors.detector import PER_IMAGE, SCORE_LEAST, RawDetections

MOST_PLACES = 1000


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

"""Tiled inference for small objects: the image as a whole and in overlapping tiles, answers merged.

Akyon et al., "Slicing Aided Hyper Inference" (ICIP 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from annotate.boxes import xyxy_from_xywh
from collect.errors import UsageError
from train.detectors.detector import Detections

_EDGE_PX = 2.0


@dataclass(frozen=True)
class Tiling:
    """Tiles of `side_px` that overlap by the share `overlap`. Answers that overlap by more than `merge_iou` are one."""

    side_px: int
    overlap: float = 0.25
    merge_iou: float = 0.5

    def __post_init__(self) -> None:
        if self.side_px < 32 or not 0 <= self.overlap < 0.9:
            raise UsageError(
                f"tiles of {self.side_px} px with an overlap of {self.overlap:g}: at least 32 px, and an overlap from 0 to 0.9"
            )

    def windows(self, size_wh: tuple[int, int]) -> list[tuple[int, int, int, int]]:
        """All tiles, xyxy pixels: they cover the image; none where it is no larger than one tile.

        >>> Tiling(100, overlap=0.5).windows((150, 100))
        [(0, 0, 100, 100), (50, 0, 150, 100)]
        """
        if max(size_wh) <= self.side_px:
            return []
        columns, rows = (self._starts(length) for length in size_wh)
        return [(x, y, min(x + self.side_px, size_wh[0]), min(y + self.side_px, size_wh[1])) for y in rows for x in columns]

    def _starts(self, length: int) -> list[int]:
        if length <= self.side_px:
            return [0]
        step = self.side_px * (1 - self.overlap)
        count = int(np.ceil((length - self.side_px) / step)) + 1
        return np.rint(np.linspace(0, length - self.side_px, count)).astype(int).tolist()  # type: ignore[no-any-return]


def in_whole(found: Detections, window: tuple[int, int, int, int], size_wh: tuple[int, int]) -> Detections:
    """A tile's answer in pixels of the whole image, without boxes that an inner edge of the tile cuts."""
    x1, y1, x2, y2 = window
    boxes = xyxy_from_xywh(found.boxes_xywh_N4) + np.array([x1, y1, x1, y1])
    cut = (
        ((boxes[:, 0] < x1 + _EDGE_PX) & (x1 > 0))
        | ((boxes[:, 1] < y1 + _EDGE_PX) & (y1 > 0))
        | ((boxes[:, 2] > x2 - _EDGE_PX) & (x2 < size_wh[0]))
        | ((boxes[:, 3] > y2 - _EDGE_PX) & (y2 < size_wh[1]))
    )
    moved = Detections(found.boxes_xywh_N4 + np.array([x1, y1, 0, 0]), found.scores_N, found.labels_N)
    return moved.take(~cut)


def merge(parts: list[Detections], iou: float, most: int = 100) -> Detections:
    """All answers, of which those that lie over a better one of the same class are dropped; best score first."""
    boxes = np.concatenate([part.boxes_xywh_N4 for part in parts])
    scores = np.concatenate([part.scores_N for part in parts])
    labels = np.concatenate([part.labels_N for part in parts])
    keep = batched_nms(torch.from_numpy(xyxy_from_xywh(boxes)), torch.from_numpy(scores), torch.from_numpy(labels), iou)[:most]
    rows: NDArray[np.int64] = keep.numpy()
    return Detections(boxes, scores, labels).take(rows)

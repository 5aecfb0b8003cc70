"""The one module that converts boxes. COCO is `[x, y, width, height]` in pixels of the upright image, origin top left."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def xyxy_from_xywh(boxes_N4: Floats) -> Floats:
    """`[x, y, w, h]` → `[x1, y1, x2, y2]`, shape (N, 4), pixels.

    >>> xyxy_from_xywh(np.array([[1.0, 2.0, 3.0, 4.0]])).tolist()
    [[1.0, 2.0, 4.0, 6.0]]
    """
    boxes = np.asarray(boxes_N4, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xywh_from_xyxy(boxes_N4: Floats) -> Floats:
    """`[x1, y1, x2, y2]` → `[x, y, w, h]`, shape (N, 4), pixels."""
    boxes = np.asarray(boxes_N4, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def xywh_from_relative(box_xywh: tuple[float, float, float, float], size_wh: tuple[int, int]) -> tuple[float, float, float, float]:
    """A box relative to the image (FiftyOne, Open Images) in pixels.

    >>> xywh_from_relative((0.5, 0.25, 0.25, 0.5), (200, 100))
    (100.0, 25.0, 50.0, 50.0)
    """
    (x, y, w, h), (width, height) = box_xywh, size_wh
    return x * width, y * height, w * width, h * height


def relative_from_xywh(box_xywh: tuple[float, float, float, float], size_wh: tuple[int, int]) -> tuple[float, float, float, float]:
    """A box in pixels relative to the image's size."""
    (x, y, w, h), (width, height) = box_xywh, size_wh
    return x / width, y / height, w / width, h / height


def clip_xywh(box_xywh: tuple[float, float, float, float], size_wh: tuple[int, int]) -> tuple[float, float, float, float]:
    """The part of a box inside the image; width or height is 0 where nothing is inside.

    >>> clip_xywh((-5.0, 10.0, 20.0, 200.0), (100, 50))
    (0.0, 10.0, 15.0, 40.0)
    """
    (x, y, w, h), (width, height) = box_xywh, size_wh
    x1, y1 = min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))
    x2, y2 = min(max(x + w, 0.0), float(width)), min(max(y + h, 0.0), float(height))
    if x1 == x and y1 == y and x2 == x + w and y2 == y + h:
        return x, y, w, h
    return x1, y1, max(x2 - x1, 0.0), max(y2 - y1, 0.0)


def iou_matrix(boxes_N4: Floats, others_M4: Floats, crowd_M: NDArray[np.bool_] | None = None) -> Floats:
    """Intersection over union of xywh boxes, shape (N, M), float64.

    Where `crowd_M` is true the union is the first box's own area, as in the COCO API's `maskUtils.iou`.
    """
    a, b = xyxy_from_xywh(boxes_N4), xyxy_from_xywh(others_M4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
    union = area_a[:, None] + area_b[None, :] - inside
    if crowd_M is not None:
        union = np.where(np.asarray(crowd_M, dtype=bool)[None, :], area_a[:, None], union)
    ratio: Floats = np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)
    return ratio

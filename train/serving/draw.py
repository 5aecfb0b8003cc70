"""Detections drawn on a picture, for people."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from annotate.coco import Category
from train.detectors.detector import Detections


def draw(image_HW3: NDArray[np.uint8], found: Detections, categories: Sequence[Category]) -> NDArray[np.uint8]:
    """A copy of an RGB picture with a box, a class and a score for each detection, one colour per class."""
    canvas = np.ascontiguousarray(image_HW3.copy())
    thick = max(1, round(max(canvas.shape[:2]) / 400))
    scale = max(0.4, max(canvas.shape[:2]) / 1600)
    for (x, y, w, h), score, label in zip(found.boxes_xywh_N4.tolist(), found.scores_N.tolist(), found.labels_N.tolist(), strict=True):
        colour = _colour(label, len(categories))
        left, top, right, bottom = round(x), round(y), round(x + w), round(y + h)
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, thick)
        text = f"{categories[label].name} {score:.2f}"
        (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
        base = max(top, high + 4)
        cv2.rectangle(canvas, (left, base - high - 4), (left + wide + 4, base), colour, -1)
        cv2.putText(canvas, text, (left + 2, base - 3), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thick, cv2.LINE_AA)
    return canvas


def _colour(label: int, count: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(label / max(count, 1), 0.85, 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)

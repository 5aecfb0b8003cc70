"""Detections drawn on a picture, for people."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from annotate.coco import Category

if TYPE_CHECKING:
    from train.detectors.detector import Detections

#: `(left, top, right, bottom)` in whole pixels.
Corners: TypeAlias = tuple[int, int, int, int]
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw(image_HW3: NDArray[np.uint8], found: Detections, categories: Sequence[Category]) -> NDArray[np.uint8]:
    """A copy of an RGB picture with a box, a class and a score for each detection, one colour per class.

    Names lie on the boxes, where there is room for that beside each other and within the picture; the best scores choose first.
    """
    canvas = np.ascontiguousarray(image_HW3.copy())
    height, width = canvas.shape[:2]
    thick, scale = max(2, round(max(height, width) / 400)), max(0.45, max(height, width) / 1400)
    pen = max(1, round(1.5 * scale))
    boxes = [(round(x), round(y), round(x + w), round(y + h)) for x, y, w, h in found.boxes_xywh_N4.tolist()]
    named = list(zip(boxes, found.scores_N.tolist(), found.labels_N.tolist(), strict=True))
    for box, _, label in reversed(named):
        cv2.rectangle(canvas, box[:2], box[2:], _colour(label, len(categories)), thick)
    taken: list[Corners] = []
    for box, score, label in named:
        text = f"{categories[label].name} {score:.2f}"
        (wide, high), below = cv2.getTextSize(text, _FONT, scale, pen)
        places = list(_places(box, (wide + 6, high + below + 2), (width, height)))
        place = next((place for place in places if not any(_meet(place, other) for other in taken)), places[0])
        taken.append(place)
        colour = _colour(label, len(categories))
        cv2.rectangle(canvas, place[:2], place[2:], colour, -1)
        cv2.putText(canvas, text, (place[0] + 3, place[3] - below), _FONT, scale, _on(colour), pen, cv2.LINE_AA)
    return canvas


def _places(box: Corners, size_wh: tuple[int, int], canvas_wh: tuple[int, int]) -> Iterator[Corners]:
    """Where a box's name may lie, best first: above it, inside at its top, below it, inside at its foot; never outside the picture.

    >>> list(_places((90, 2, 99, 50), (30, 10), (100, 60)))
    [(70, 0, 100, 10), (70, 2, 100, 12), (70, 50, 100, 60), (70, 40, 100, 50)]
    """
    wide, high = size_wh
    left = max(0, min(box[0], canvas_wh[0] - wide))
    for top in (box[1] - high, box[1], box[3], box[3] - high):
        inside = max(0, min(top, canvas_wh[1] - high))
        yield left, inside, left + wide, inside + high


def _meet(one: Corners, other: Corners) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _colour(label: int, count: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(label / max(count, 1), 0.85, 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def _on(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """White or black, whichever is read more easily on a colour (luma of ITU-R BT.601)."""
    return (0, 0, 0) if float(np.dot(colour, (0.299, 0.587, 0.114))) > 110 else (255, 255, 255)

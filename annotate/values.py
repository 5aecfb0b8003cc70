"""What single values of label files mean, and what is wrong with them: numbers, file names, boxes, masks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from annotate.boxes import clip_xywh

#: A box may stick out of its image by this much for rounding's sake; it is clipped, and nobody needs to hear of it.
ROUNDING_PX = 0.01
_TOO_LARGE = 2**63


def whole(value: object) -> int | None:
    """A whole number of 64 bits from an int, a float without a fraction or a text of either; None where it is none.

    >>> whole(7), whole(7.0), whole("7"), whole(7.5), whole(True), whole(None), whole(2**63)
    (7, 7, 7, None, None, None, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) < _TOO_LARGE else None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return int(number) if abs(number) < _TOO_LARGE and number == int(number) else None  # False for NaN


def climbs(file_name: str) -> bool:
    r"""Whether a file name leads out of its folder by `..`, in the manner of either family of systems.

    >>> climbs("../../etc/passwd"), climbs("a\\..\\..\\b"), climbs("train/a.jpg")
    (True, True, False)
    """
    return ".." in PurePosixPath(file_name).parts or ".." in PureWindowsPath(file_name).parts or "\0" in file_name


def rle_box(segmentation: dict[str, Any]) -> tuple[tuple[float, float, float, float], float] | None:
    """The box (xywh px) and area of a run-length mask, compressed or not; None where it is no mask.

    The reading is the COCO API's own (`pycocotools.mask`).
    """
    from pycocotools import mask

    try:
        height, width = (int(side) for side in segmentation["size"])
        counts = segmentation["counts"]
        if isinstance(counts, list):
            if sum(counts) != height * width or any(run < 0 for run in counts):
                return None
            encoded = mask.frPyObjects(segmentation, height, width)
        else:
            encoded = {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
        x, y, w, h = (float(value) for value in mask.toBbox(encoded))
        return (x, y, w, h), float(mask.area(encoded))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def polygons_box(polygons: Iterable[Any]) -> tuple[float, float, float, float] | None:
    """The box (xywh px) around polygons given as `[[x1, y1, x2, y2, …], …]`; None where there are no finite points."""
    try:
        numbers = [[float(value) for value in polygon] for polygon in polygons]
    except (TypeError, ValueError):
        return None
    xs, ys = [x for polygon in numbers for x in polygon[0::2]], [y for polygon in numbers for y in polygon[1::2]]
    if not xs or not ys or not all(math.isfinite(value) for value in (*xs, *ys)):
        return None
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def fit_box(box_xywh: tuple[float, float, float, float], size_wh: tuple[int, int]) -> tuple[tuple[float, float, float, float] | None, str]:
    """A box cut to its image, and what was wrong with it ("" = nothing). None where nothing of it is left.

    >>> fit_box((-5.0, 0.0, 20.0, 10.0), (100, 50))
    ((0.0, 0.0, 15.0, 10.0), 'sticks out of the image of 100×50; clipped')
    >>> fit_box((1.0, 1.0, 0.0, 3.0), (100, 50))
    (None, 'the box 1,1,0,3 has no area')
    """
    clipped = clip_xywh(box_xywh, size_wh)
    if clipped == box_xywh and clipped[2] > 0 and clipped[3] > 0:
        return clipped, ""
    named = ",".join(f"{value:g}" for value in box_xywh)
    if not all(math.isfinite(value) for value in box_xywh):
        return None, f"the box {named} is not finite"
    if box_xywh[2] <= 0 or box_xywh[3] <= 0:
        return None, f"the box {named} has no area"
    if clipped[2] <= 0 or clipped[3] <= 0:
        return None, f"the box {named} lies outside the image of {size_wh[0]}×{size_wh[1]}"
    moved = max(abs(new - old) for new, old in zip(clipped, box_xywh, strict=True))
    return clipped, f"sticks out of the image of {size_wh[0]}×{size_wh[1]}; clipped" if moved > ROUNDING_PX else ""

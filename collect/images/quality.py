"""Scores of what makes a picture useless, each in [0, 1], 1 = certainly bad, from a small greyscale version of it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BLANK_STD = 20.0
_DARK_LEVEL = 24
_SOFT, _SHARP = 2, 22
_STEP = 12
_FLAT = 8
_LETTER_EDGES = 8
_LEVELS = np.arange(256)
_SQUARES = _LEVELS * _LEVELS

Grey = NDArray[np.uint8]
Histogram = NDArray[np.int64]


def scores(grey: Image.Image) -> dict[str, float]:
    """`blank`, `dark`, `blurred`, `placeholder` and `watermark` of an upright greyscale picture."""
    histogram = np.array(grey.histogram(), dtype=np.int64)
    grey_HW = np.asarray(grey)
    values = {
        "blank": blank(histogram),
        "dark": dark(histogram),
        "blurred": blurred(grey_HW),
        "placeholder": placeholder(histogram),
        "watermark": banner(grey_HW),
    }
    return {name: round(value, 3) for name, value in values.items()}


def blank(histogram_256: Histogram) -> float:
    """1 for one flat colour, 0 from a standard deviation of 20 grey levels on."""
    total = int(histogram_256.sum())
    mean = float(histogram_256 @ _LEVELS) / total
    variance = float(histogram_256 @ _SQUARES) / total - mean * mean
    return float(max(0.0, 1.0 - max(0.0, variance) ** 0.5 / _BLANK_STD))


def dark(histogram_256: Histogram) -> float:
    """The share of pixels that are all but black."""
    return float(histogram_256[:_DARK_LEVEL].sum() / histogram_256.sum())


def placeholder(histogram_256: Histogram) -> float:
    """How much the picture looks drawn and flat, as 'image not available' does: few grey levels make up nearly all of it."""
    shares = histogram_256.reshape(64, 4).sum(axis=1) / histogram_256.sum()
    flat = float(np.sort(shares)[-2:].sum())
    if flat <= 0.6:
        return 0.0
    spread = int(np.count_nonzero(shares > 0.002))
    return max(0.0, min(1.0, (flat - 0.6) / 0.35)) * max(0.0, min(1.0, (24 - spread) / 12))


def blurred(grey_HW: Grey) -> float:
    """1 where no edge is sharp: the strongest hundredth of second differences along the rows is 2 grey levels; 0 from 22 on."""
    if grey_HW.shape[1] < 3 or grey_HW.shape[0] < 3:
        return 0.0
    grey = grey_HW[::2].astype(np.int16)
    second = np.abs(2 * grey[:, 1:-1] - grey[:, :-2] - grey[:, 2:]).ravel()
    hundredth = max(1, math.ceil(second.size * 0.01))
    if np.count_nonzero(second >= _SHARP) >= hundredth:
        return 0.0  # most pictures: sorting out the exact level would take ten times as long
    place = second.size - hundredth
    sharp = int(np.partition(second, place)[place])  # the level that a hundredth of all steps reach
    return max(0.0, min(1.0, 1 - (sharp - _SOFT) / (_SHARP - _SOFT)))


def banner(grey_HW: Grey) -> float:
    """How sure a strip at the bottom or top is an agency's banner: a full-width edge, flat behind it, a line of text upon it."""
    height, width = grey_HW.shape
    lowest, highest = max(3, round(height * 0.03)), round(height * 0.2)
    if highest <= lowest:
        return 0.0
    tails_2RW = np.stack([grey_HW[height - highest - 1 :], grey_HW[highest::-1]]).astype(np.int16)
    steps = tails_2RW[:, 1 : highest - lowest + 2] - tails_2RW[:, : highest - lowest + 1]
    up, down = (np.add.reduce(steps > _STEP, axis=2, dtype=np.int32), np.add.reduce(steps < -_STEP, axis=2, dtype=np.int32))
    surest = 0.0
    for tail, agree in zip(tails_2RW, np.maximum(up, down), strict=True):
        edge = int(agree.argmax())
        if agree[edge] >= 0.75 * width and _is_written_upon(tail[edge + 1 :]):
            surest = max(surest, float(agree[edge]) / width)
    return surest


def _is_written_upon(strip_HW: NDArray[np.int16]) -> bool:
    """Whether most of a strip is one level and some row of it changes often: letters do, a frame or its shadow does not."""
    away = np.abs(strip_HW - np.median(strip_HW))
    marks = away > 2 * _STEP
    changes = int(np.count_nonzero(marks[:, 1:] != marks[:, :-1], axis=1).max())
    # Nothing written upon it is a letterbox bar, too much is a part of the scene.
    return float((away <= _FLAT).mean()) >= 0.5 and 0.01 < float(marks.mean()) < 0.35 and changes >= _LETTER_EDGES

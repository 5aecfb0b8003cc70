"""Scores of what makes a picture useless, each in [0, 1], 1 = certainly bad, from a small greyscale version of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
_NAMES = ("blank", "dark", "blurred", "placeholder", "watermark")

Grey = NDArray[np.uint8]
Histograms = NDArray[np.int64]
Floats = NDArray[np.float64]


def scores(greys: Sequence[Image.Image]) -> list[dict[str, float]]:
    """`blank`, `dark`, `blurred`, `placeholder` and `watermark` of upright greyscale pictures."""
    if not greys:
        return []
    histograms = np.array([grey.histogram() for grey in greys], dtype=np.int64)
    greys_HW = [np.asarray(grey) for grey in greys]
    values = zip(
        blank(histograms).tolist(),
        dark(histograms).tolist(),
        map(blurred, greys_HW),
        placeholder(histograms).tolist(),
        map(banner, greys_HW),
        strict=True,
    )
    return [{name: round(value, 3) for name, value in zip(_NAMES, row, strict=True)} for row in values]


def blank(histograms_N256: Histograms) -> Floats:
    """1 for one flat colour, 0 from a standard deviation of 20 grey levels on."""
    totals = histograms_N256.sum(axis=1)
    means = histograms_N256 @ _LEVELS / totals
    variances = histograms_N256 @ _SQUARES / totals - means * means
    return np.asarray(np.maximum(0.0, 1.0 - np.sqrt(np.maximum(0.0, variances)) / _BLANK_STD))


def dark(histograms_N256: Histograms) -> Floats:
    """The share of pixels that are all but black."""
    return np.asarray(histograms_N256[:, :_DARK_LEVEL].sum(axis=1) / histograms_N256.sum(axis=1))


def placeholder(histograms_N256: Histograms) -> Floats:
    """How much the picture looks drawn and flat, as 'image not available' does: few grey levels make up nearly all of it."""
    shares = histograms_N256.reshape(-1, 64, 4).sum(axis=2) / histograms_N256.sum(axis=1, keepdims=True)
    flat = np.sort(shares, axis=1)[:, -2:].sum(axis=1)
    spread = np.count_nonzero(shares > 0.002, axis=1)
    return np.asarray(np.clip((flat - 0.6) / 0.35, 0.0, 1.0) * np.clip((24 - spread) / 12, 0.0, 1.0))


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
    tails_2RW = np.empty((2, highest + 1, width), np.int16)
    tails_2RW[0], tails_2RW[1] = grey_HW[height - highest - 1 :], grey_HW[highest::-1]
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

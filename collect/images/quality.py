"""Scores of what makes a picture useless, each in [0, 1], 1 = certainly bad, from a small greyscale version of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLANK_STD = 20.0
_DARK_LEVEL = 24
_SHARP = 6.0


def scores(grey_HW: NDArray[np.uint8]) -> dict[str, float]:
    """`blank`, `dark`, `blurred`, `placeholder` and `watermark` of a greyscale picture, (H, W), upright or not."""
    values = {
        "blank": blank(grey_HW),
        "dark": dark(grey_HW),
        "blurred": blurred(grey_HW),
        "placeholder": placeholder(grey_HW),
        "watermark": banner(grey_HW),
    }
    return {name: round(value, 3) for name, value in values.items()}


def blank(grey_HW: NDArray[np.uint8]) -> float:
    """1 for one flat colour, 0 from a standard deviation of 20 grey levels on."""
    return float(max(0.0, 1.0 - grey_HW.std() / _BLANK_STD))


def dark(grey_HW: NDArray[np.uint8]) -> float:
    """The share of pixels that are all but black."""
    return float((grey_HW < _DARK_LEVEL).mean())


def blurred(grey_HW: NDArray[np.uint8]) -> float:
    """1 where no edge is sharp: the strongest hundredth of the steps between neighbours against the picture's contrast."""
    if min(grey_HW.shape) < 3:
        return 0.0
    grey = grey_HW.astype(np.int16)
    second = np.abs(4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:])
    sharp = float(np.percentile(second, 99))
    return float(_SHARP / (_SHARP + sharp))


def placeholder(grey_HW: NDArray[np.uint8]) -> float:
    """How much the picture looks drawn and flat, as 'image not available' does: few grey levels make up nearly all of it."""
    shares = np.bincount(grey_HW.ravel() >> 2, minlength=64) / grey_HW.size
    top = np.sort(shares)[::-1]
    flat = float(top[:2].sum())
    spread = int((shares > 0.002).sum())
    return max(0.0, min(1.0, (flat - 0.6) / 0.35)) * max(0.0, min(1.0, (24 - spread) / 12))


def banner(grey_HW: NDArray[np.uint8]) -> float:
    """How sure a strip at the bottom or top is an agency's banner: a full-width edge, flat behind it, text upon it."""
    return max(_strip(grey_HW), _strip(grey_HW[::-1]))


def _strip(grey_HW: NDArray[np.uint8]) -> float:
    height = grey_HW.shape[0]
    lowest, highest = max(3, round(height * 0.03)), round(height * 0.2)
    if highest <= lowest:
        return 0.0
    tail = grey_HW[height - highest - 1 :].astype(np.int16)
    steps = np.diff(tail, axis=0)
    agree = np.maximum((steps > 12).mean(axis=1), (steps < -12).mean(axis=1))[: highest - lowest + 1]
    edge = int(agree.argmax())
    strip = tail[edge + 1 :]
    off = np.abs(strip - np.median(strip)) > 24
    text = float(off.mean())
    if not 0.01 < text < 0.35:
        return 0.0  # nothing written upon it, or no flat strip: a letterbox bar, or part of the scene
    return float(agree[edge])

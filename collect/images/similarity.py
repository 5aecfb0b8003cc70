"""The second, stricter test: whether two thumbnails show the same picture, one perhaps cropped or mirrored."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collect.images.hashing import SIGNATURE_SIDE, resampling, signature_array

#: Correlation from which two thumbnails are one picture, and from which one is a part of the other (a part is met only to
#: within the steps below); LOG.md has the measurement.
MATCH, PART_MATCH = 0.94, 0.92
_SCALES = (0.86, 0.88, 0.9, 0.93)
_STEPS = 7
_SOMEWHAT = 0.3


def confirmed(signature_a: str, signature_b: str) -> bool:
    """Whether two signatures show the same picture: as they are, mirrored, or one a part of the other; False where one is missing.

    Brightness and contrast do not count.
    """
    if not (signature_a and signature_b):
        return False
    a, b = signature_array(signature_a), signature_array(signature_b)
    if a.std() < 1 or b.std() < 1:
        return bool(np.abs(a - b).max() < 4)  # a flat picture equals only another flat one of the same grey
    unit_a, mirrored = _unit(a[None])[0], b[:, ::-1]
    wholes = [(float(unit_a @ _unit(other[None])[0]), other) for other in (b, mirrored)]
    if max(whole for whole, _other in wholes) >= MATCH:
        return True
    # Parts are tried where the wholes agree somewhat: a crop that shares nine tenths of each side does.
    return any(whole > _SOMEWHAT and (_best_part(a, other) >= PART_MATCH or _best_part(other, a) >= PART_MATCH) for whole, other in wholes)


def _best_part(whole: NDArray[np.float32], crop: NDArray[np.float32]) -> float:
    """The correlation of `crop` with the part of `whole` that resembles it most.

    No part is made: with `y` and `x` the matrices that cut it along the sides, the part is `y W xᵀ`, its product with the crop
    `C` is the product of `yᵀ C` with `W xᵀ`, and the square of its length is that of `yᵀ y` with `W xᵀ x Wᵀ`.
    """
    cuts, squares, sums = _cuts()
    whole = np.asarray(whole - whole.mean(), np.float32)  # every part is shifted alike, which its correlation does not see
    wanted = _unit(crop[None])[0].reshape(crop.shape)
    products = _pairs(cuts.swapaxes(1, 2) @ wanted, whole @ cuts.swapaxes(1, 2))
    means = (sums @ whole) @ sums.swapaxes(1, 2) / SIGNATURE_SIDE**2
    lengths = _pairs(squares, whole @ squares @ whole.T) - SIGNATURE_SIDE**2 * means**2
    # A part without any contrast resembles nothing: what is left of its length is rounding.
    return float((products / np.sqrt(np.maximum(lengths, 1.0))).max())


def _pairs(along_y: NDArray[Any], along_x: NDArray[Any]) -> NDArray[np.float32]:
    """For each scale the sums of products of every matrix of the one with every matrix of the other, (scales, steps, steps)."""
    shape = (len(_SCALES), _STEPS, SIGNATURE_SIDE**2)
    return np.asarray(along_y.reshape(shape) @ along_x.reshape(shape).swapaxes(1, 2), np.float32)


def _unit(pictures_NHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pictures as vectors of mean 0 and length 1, (N, H · W)."""
    flat = pictures_NHW.reshape(len(pictures_NHW), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6), dtype=np.float32)


@cache
def _cuts() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The matrices that cut the parts of every scale along one side, (scales · steps, 24, 24), their squares `cutᵀ cut`, and the
    sums of their rows, (scales, steps, 24).
    """
    cuts = np.array([resampling(float(offset), scale, SIGNATURE_SIDE) for scale in _SCALES for offset in np.linspace(0, 1 - scale, _STEPS)])
    return cuts, cuts.swapaxes(1, 2) @ cuts, cuts.sum(axis=1).reshape(len(_SCALES), _STEPS, SIGNATURE_SIDE)

"""The second, stricter test: whether two thumbnails show the same picture, one perhaps cropped or mirrored."""

from __future__ import annotations

from functools import cache

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
    """The correlation of `crop` with the part of `whole` that resembles it most."""
    cuts, side = _cuts(), SIGNATURE_SIDE
    # All cuts along x at once, then for each scale those along y.
    across = (cuts @ whole.T).reshape(len(_SCALES), _STEPS * side, side)
    wanted, best = _unit(crop[None])[0], 0.0
    for along, columns in zip(cuts.reshape(len(_SCALES), _STEPS * side, side), across, strict=True):
        parts = (along @ columns.T).reshape(_STEPS, side, _STEPS, side).transpose(0, 2, 1, 3)
        best = max(best, float((_unit(parts.reshape(-1, side, side)) @ wanted).max()))
    return best


def _unit(pictures_NHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pictures as vectors of mean 0 and length 1, (N, H · W)."""
    flat = pictures_NHW.reshape(len(pictures_NHW), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6), dtype=np.float32)


@cache
def _cuts() -> NDArray[np.float32]:
    """The matrices that cut the windows of every scale along one side, one below the other, (scales · steps · 24, 24)."""
    return np.concatenate(
        [
            resampling(float(offset), scale, SIGNATURE_SIDE)
            for scale in _SCALES
            for offset in np.linspace(0, 1 - scale, _STEPS)
        ]
    )  # fmt: skip

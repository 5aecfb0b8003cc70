"""The second, stricter test: whether two thumbnails show the same picture, one perhaps cropped or mirrored."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from collect.images.hashing import SIGNATURE_SIDE, resampling, signature_array

#: Correlation from which two thumbnails are one picture; LOG.md has the measurement.
MATCH = 0.94
_SCALES = (0.86, 0.88, 0.9, 0.92, 0.95)
_STEPS = 5
_SOMEWHAT = 0.3


def confirmed(signature_a: str, signature_b: str) -> bool:
    """Whether two signatures show the same picture; False where one is missing."""
    return bool(signature_a and signature_b) and similarity(signature_a, signature_b) >= MATCH


def similarity(signature_a: str, signature_b: str) -> float:
    """The best correlation of two thumbnails: as they are, mirrored, or one against a part of the other.

    1 = equal but for brightness and contrast. A flat picture equals only another flat one of the same grey. Parts are tried
    where the wholes agree somewhat: a crop that shares nine tenths of each side does.
    """
    a, b = signature_array(signature_a), signature_array(signature_b)
    if a.std() < 1 or b.std() < 1:
        return float(np.abs(a - b).max() < 4)
    best = 0.0
    for other in (b, b[:, ::-1]):
        whole = float(_unit(a[None])[0] @ _unit(other[None])[0])
        best = max(best, whole)
        if _SOMEWHAT < whole < MATCH:
            best = max(best, _best_part(a, other), _best_part(other, a))
        if best >= MATCH:
            break
    return best


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

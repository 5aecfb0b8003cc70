"""The 64-bit perceptual hash, and the small thumbnail that confirms what the hash suspects."""

from __future__ import annotations

import base64
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH_SIDE = 32
SIGNATURE_SIDE = 16
_LOW = 8


@cache
def _dct_rows() -> NDArray[np.float32]:
    """The first eight rows of the orthonormal DCT-II of 32 points, (8, 32)."""
    frequency, place = np.arange(_LOW)[:, None], np.arange(HASH_SIDE)[None, :]
    rows = np.cos(np.pi * (2 * place + 1) * frequency / (2 * HASH_SIDE)) * np.sqrt(2 / HASH_SIDE)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, dtype=np.float32)


def phash(grey: Image.Image) -> str:
    """64-bit DCT hash of a greyscale picture as 16 hex digits (Zauner 2010: 32×32, lowest 8×8 coefficients, their median)."""
    small = np.asarray(grey.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS), dtype=np.float32)
    rows = _dct_rows()
    low = (rows @ small @ rows.T).ravel()
    return np.packbits(low > np.median(low[1:])).tobytes().hex()


def signature(grey: Image.Image) -> str:
    """A 16×16 greyscale thumbnail, base85: small enough to keep for every image ever held."""
    small = grey.resize((SIGNATURE_SIDE, SIGNATURE_SIDE), Image.Resampling.BOX)
    return base64.b85encode(small.tobytes()).decode()


def signature_array(text: str) -> NDArray[np.float32]:
    """The thumbnail of :func:`signature` as (16, 16)."""
    return np.frombuffer(base64.b85decode(text), np.uint8).reshape(SIGNATURE_SIDE, SIGNATURE_SIDE).astype(np.float32)


def as_uint64(hashes: list[str]) -> NDArray[np.uint64]:
    """Hashes of 16 hex digits as (N,) uint64."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=">u8").astype(np.uint64)

"""The 64-bit perceptual hash, the hashes of a picture's windows, and the thumbnail that confirms what hashes suspect."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image  # the books work with hashes and need no Pillow

HASH_SIDE = 32
SIGNATURE_SIDE = 24
#: A crop of a picture looks like one of its windows: 3 × 3 of them, each nine tenths of the sides.
WINDOW_SCALE = 0.9
WINDOW_OFFSETS = (0.0, 0.05, 0.1)
NUM_WINDOWS = len(WINDOW_OFFSETS) ** 2
_LOW = 8
_BOX = 4  # PIL.Image.Resampling.BOX


@dataclass(frozen=True)
class Look:
    """All hashes of one picture, of eight bytes each: of the whole, of its nine windows one after the other, of its mirror image.

    Without a thumbnail there is only the first.
    """

    full: bytes
    windows: bytes = b""
    mirror: bytes = b""


def phash(grey: Image.Image) -> str:
    """64-bit DCT hash of a greyscale picture as 16 hex digits (Zauner 2010: 32×32, lowest 8×8 coefficients, their median)."""
    return phashes([grey])[0]


def phashes(greys: Sequence[Image.Image]) -> list[str]:
    """As :func:`phash`, for several pictures at once."""
    small = b"".join([grey.resize((HASH_SIDE, HASH_SIDE), _BOX).tobytes() for grey in greys])
    small_NSS = np.frombuffer(small, np.uint8).reshape(-1, HASH_SIDE, HASH_SIDE).astype(np.float32)
    rows = _dct_rows()
    bits = _bits(np.asarray(rows @ small_NSS @ rows.T, np.float32).reshape(-1, _LOW * _LOW)).tobytes().hex()
    return [bits[begin : begin + 16] for begin in range(0, len(bits), 16)]


def signature(grey: Image.Image) -> str:
    """A 24×24 greyscale thumbnail in base64: small enough to keep for every image ever held."""
    small = grey.resize((SIGNATURE_SIDE, SIGNATURE_SIDE), _BOX)
    return base64.b64encode(small.tobytes()).decode()


def signature_array(text: str) -> NDArray[np.float32]:
    """The thumbnail of :func:`signature` as (24, 24)."""
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(SIGNATURE_SIDE, SIGNATURE_SIDE).astype(np.float32)


def look(phash_hex: str, signature_text: str) -> Look:
    """A picture's hashes from what the ledger keeps of it; without a signature there is only the full one."""
    return looks([(phash_hex, signature_text)])[0]


def looks(kept: Sequence[tuple[str, str]]) -> list[Look]:
    """As :func:`look`, for several pictures at once, which takes a third of the time. Each is `(phash, signature)`."""
    known = [signature_array(signature_text) for _, signature_text in kept if signature_text]
    found: Iterator[bytes] = iter(_hashes(np.stack(known))) if known else iter(())
    answers = []
    for phash_hex, signature_text in kept:
        others = next(found) if signature_text else b""
        answers.append(Look(bytes.fromhex(phash_hex), others[: 8 * NUM_WINDOWS], others[8 * NUM_WINDOWS :]))
    return answers


def _hashes(thumbnails_NSS: NDArray[np.float32]) -> list[bytes]:
    """Of each thumbnail the hashes of its nine windows and of its mirror image."""
    operator, rows, count, number = _window_rows(), _thumbnail_rows(), len(WINDOW_OFFSETS), len(thumbnails_NSS)
    # Cropping, resizing and the DCT are linear and separable: all nine spectra are two products of 24×24 matrices.
    spectra = (operator @ thumbnails_NSS @ operator.T).reshape(number, count, _LOW, count, _LOW).transpose(0, 1, 3, 2, 4)
    mirrored = rows @ np.ascontiguousarray(thumbnails_NSS[:, :, ::-1]) @ rows.T
    both = np.concatenate([spectra.reshape(number, -1, _LOW * _LOW), mirrored.reshape(number, 1, -1)], axis=1)
    return [bits.tobytes() for bits in _bits(both.reshape(-1, _LOW * _LOW)).reshape(number, -1)]


def as_uint64(hashes: bytes) -> NDArray[np.uint64]:
    """Hashes of eight bytes, one after the other, as (N,) uint64."""
    return np.frombuffer(hashes, dtype=">u8").astype(np.uint64)


def _bits(spectra_N64: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The eight bytes of each spectrum's hash: which coefficients exceed the median of all but the first."""
    medians = np.sort(spectra_N64[:, 1:], axis=1)[:, 31:32]  # of 63; np.median takes ten times as long
    return np.packbits(spectra_N64 > medians, axis=1)


@cache
def _dct_rows() -> NDArray[np.float32]:
    """The first eight rows of the orthonormal DCT-II of 32 points, (8, 32)."""
    frequency, place = np.arange(_LOW)[:, None], np.arange(HASH_SIDE)[None, :]
    rows = np.cos(np.pi * (2 * place + 1) * frequency / (2 * HASH_SIDE)) * np.sqrt(2 / HASH_SIDE)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, dtype=np.float32)


@cache
def _window_rows() -> NDArray[np.float32]:
    """Thumbnail side to the low DCT rows of each of the three windows along it, (3 · 8, 24)."""
    return np.concatenate([_dct_rows() @ resampling(offset, WINDOW_SCALE, HASH_SIDE) for offset in WINDOW_OFFSETS])


@cache
def _thumbnail_rows() -> NDArray[np.float32]:
    """Thumbnail side to the low DCT rows of the whole, (8, 24)."""
    return np.asarray(_dct_rows() @ resampling(0.0, 1.0, HASH_SIDE), dtype=np.float32)


@cache
def resampling(offset: float, scale: float, length: int) -> NDArray[np.float32]:
    """The matrix (length, 24) that samples `length` points, linearly between neighbours, from a part of a thumbnail's side.

    The part begins at `offset` and is `scale` long, both as shares of the side.
    """
    places = (offset + (np.arange(length) + 0.5) / length * scale) * SIGNATURE_SIDE - 0.5
    places = np.clip(places, 0, SIGNATURE_SIDE - 1)
    below = np.minimum(places.astype(int), SIGNATURE_SIDE - 2)
    matrix = np.zeros((length, SIGNATURE_SIDE), np.float32)
    matrix[np.arange(length), below] = 1 - (places - below)
    matrix[np.arange(length), below + 1] = places - below
    return matrix

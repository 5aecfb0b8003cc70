"""Near-duplicates: a perceptual hash suspects, a second and stricter look at two thumbnails decides.

The search is complete to its radius: two 64-bit hashes at most `radius` bits apart agree to within `radius // 4` bits in at
least one of their four 16-bit bands (multi-index hashing, Norouzi et al. 2012), so probing every band with every mask of
that many bits finds them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collect.images.hashing import as_uint64, signature_array

_BANDS = 4
_BAND_BITS = 16
_KEYS = 1 << _BAND_BITS
_SEAL_AT = 65_536
_MATCH = 0.9
_BLOCK = 1 << 20


class NearIndex:
    """Hashes of all images ever held, to be asked for those near a new one; grows one by one, 40 bytes each plus bands.

    The newest hashes are compared one by one (numpy does fifty million in a few hundredths of a second); once they are many
    they are sorted into bands.
    """

    def __init__(self, radius_bits: int = 10) -> None:
        self.radius_bits = radius_bits
        self._hashes = np.zeros(1024, np.uint64)
        self._keys = bytearray()
        self._size = 0
        self._bands: list[_Band] = []
        self._sealed = 0

    def __len__(self) -> int:
        return self._size

    def add(self, phash: str, sha256: str) -> None:
        """Remember a picture: 16 and 64 hex digits."""
        self.extend([(sha256, phash)])

    def extend(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Remember pictures given as `(sha256, phash)`."""
        entries = list(pairs)
        if not entries:
            return
        new = as_uint64([phash for _sha256, phash in entries])
        while self._size + len(new) > len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
        self._hashes[self._size : self._size + len(new)] = new
        self._size += len(new)
        self._keys += bytes.fromhex("".join(sha256 for sha256, _phash in entries))
        if self._size - self._sealed > max(_SEAL_AT, self._sealed // 4):
            self._bands = [_Band(self._hashes[: self._size], band) for band in range(_BANDS)]
            self._sealed = self._size

    def query(self, phash: str) -> list[tuple[str, int]]:
        """All remembered pictures within the radius, as `(sha256, distance in bits)`, nearest first."""
        wanted = as_uint64([phash])[0]
        tail = self._hashes[self._sealed : self._size]
        places = np.flatnonzero(np.bitwise_count(tail ^ wanted) <= self.radius_bits) + self._sealed
        if self._bands:
            masks = _masks(self.radius_bits // _BANDS)
            suspects = np.unique(np.concatenate([band.rows(wanted, masks) for band in self._bands]))
            near = np.bitwise_count(self._hashes[suspects] ^ wanted) <= self.radius_bits
            places = np.concatenate([places, suspects[near]])
        distances = np.bitwise_count(self._hashes[places] ^ wanted)
        order = np.argsort(distances, kind="stable")
        return [(self._key(int(places[n])), int(distances[n])) for n in order]

    def _key(self, place: int) -> str:
        return self._keys[place * 32 : place * 32 + 32].hex()


class _Band:
    """One band of many hashes: row numbers sorted by the band's 16 bits."""

    def __init__(self, hashes_N: NDArray[np.uint64], band: int) -> None:
        self.shift = np.uint64(band * _BAND_BITS)
        keys = ((hashes_N >> self.shift) & np.uint64(_KEYS - 1)).astype(np.uint16)
        self.order = np.argsort(keys, kind="stable").astype(np.int32)
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=_KEYS))]).astype(np.int32)

    def rows(self, wanted: np.uint64, masks: NDArray[np.int64]) -> NDArray[np.int32]:
        """Rows whose band equals that of `wanted` but for one of the masks."""
        probes = int((wanted >> self.shift) & np.uint64(_KEYS - 1)) ^ masks
        return self.order[ranges(self.starts[probes], self.starts[probes + 1])]


def ranges(starts: NDArray[Any], ends: NDArray[Any]) -> NDArray[np.int64]:
    """All whole numbers of the half-open ranges, one after the other.

    >>> ranges(np.array([2, 9]), np.array([4, 10])).tolist()
    [2, 3, 9]
    """
    lengths = (ends - starts).astype(np.int64)
    total = int(lengths.sum())
    begins = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(total) + np.repeat(starts - begins, lengths), dtype=np.int64)


@cache
def _masks(num_bits: int) -> NDArray[np.int64]:
    """All 16-bit masks with at most so many bits set."""
    places = range(_BAND_BITS)
    found: list[int] = [sum(1 << place for place in chosen) for size in range(num_bits + 1) for chosen in combinations(places, size)]
    return np.array(found, dtype=np.int64)


def confirmed(signature_a: str, signature_b: str) -> bool:
    """The second test: whether two thumbnails show the same picture."""
    return similarity(signature_a, signature_b) >= _MATCH


def similarity(signature_a: str, signature_b: str) -> float:
    """Correlation of two thumbnails, 1 = equal but for brightness and contrast."""
    a, b = signature_array(signature_a).ravel(), signature_array(signature_b).ravel()
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else float(np.array_equal(a, b))


def near_pairs(hashes_N: NDArray[np.uint64], radius_bits: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of rows within the radius, in blocks `(first, second)`; a pair may come more than once, never as `(n, n)`."""
    for number in range(_BANDS):
        band = _Band(hashes_N, number)
        keys = ((hashes_N >> band.shift) & np.uint64(_KEYS - 1)).astype(np.int64)[band.order]
        for mask in _masks(radius_bits // _BANDS):
            yield from _joined(hashes_N, band, keys, int(mask), radius_bits)


def _joined(
    hashes_N: NDArray[np.uint64], band: _Band, keys_N: NDArray[np.int64], mask: int, radius_bits: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs whose keys in a band differ by exactly `mask`; the work is cut so that a block stays in the cache."""
    sorted_hashes = hashes_N[band.order]
    partners = keys_N ^ mask
    starts, ends = band.starts[partners].astype(np.int64), band.starts[partners + 1].astype(np.int64)
    rows = np.arange(len(keys_N))
    starts = np.maximum(starts, rows + 1)  # each pair from its lower side only
    lengths = np.maximum(ends - starts, 0)
    cuts = np.searchsorted(np.cumsum(lengths), np.arange(_BLOCK, int(lengths.sum()) + _BLOCK, _BLOCK))
    begin = 0
    for cut in cuts:
        end = min(int(cut) + 1, len(rows))
        sizes = lengths[begin:end]
        first = np.repeat(rows[begin:end], sizes)
        second = ranges(starts[begin:end], starts[begin:end] + sizes)
        near = np.bitwise_count(sorted_hashes[first] ^ sorted_hashes[second]) <= radius_bits
        if near.any():
            yield band.order[first[near]].astype(np.int64), band.order[second[near]].astype(np.int64)
        begin = end


def clusters(phashes: Sequence[str], signatures: Sequence[str] | None = None, radius_bits: int = 10) -> list[int]:
    """Which pictures belong together: equal labels for those joined by near-duplicate pairs, labels counted from 0.

    With `signatures` a pair counts only where the second test confirms it.
    """
    parents = list(range(len(phashes)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    if phashes:
        for first, second in near_pairs(as_uint64(list(phashes)), radius_bits):
            for a, b in zip(first.tolist(), second.tolist(), strict=True):
                root_a, root_b = root(a), root(b)
                if root_a != root_b and (signatures is None or confirmed(signatures[a], signatures[b])):
                    parents[max(root_a, root_b)] = min(root_a, root_b)
    labels: dict[int, int] = {}
    return [labels.setdefault(root(place), len(labels)) for place in range(len(phashes))]

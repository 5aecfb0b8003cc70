"""Near-duplicates: perceptual hashes suspect, a second and stricter look at two thumbnails decides.

Each picture has a hash of its whole, of nine windows, and of its mirror image. Two pictures are suspects where the whole of
one is within `radius` bits of the whole, of a window (a crop) or of the mirror image of the other. The search is complete to
its radius: 64-bit hashes at most ten bits apart cannot differ by three bits or more in three of their 16-bit bands and by two in
the fourth, for that is eleven; so probing every band with every mask of two bits (one in the fourth) finds them all
(multi-index hashing, Norouzi et al. 2012).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collect.images.hashing import NUM_WINDOWS, Look, as_uint64, look
from collect.images.similarity import confirmed

_BANDS = 4
_BAND_BITS = 16
_KEYS = 1 << _BAND_BITS
_SEAL_AT = 4096  # pictures
_BLOCK = 1 << 18

Hashes = NDArray[np.uint64]


class NearIndex:
    """Hashes of all images ever held, to be asked for those near new ones; grows by about 270 bytes each."""

    def __init__(self, radius_bits: int = 10) -> None:
        self._wholes, self._windows = HashTable(radius_bits, _SEAL_AT), HashTable(radius_bits, _SEAL_AT * NUM_WINDOWS)
        self._sha256s = bytearray()

    def __len__(self) -> int:
        return len(self._wholes)

    def extend(self, sha256s: Sequence[str], phashes: Sequence[str], windows: Sequence[bytes]) -> None:
        """Remember pictures by their sha256s and hashes in hex; `windows` are :attr:`Look.windows`."""
        if not sha256s:
            return
        owners = np.arange(len(self), len(self) + len(sha256s), dtype=np.int32)
        self._windows.extend(as_uint64(b"".join(windows)), np.repeat(owners, [len(entry) // 8 for entry in windows]))
        self._wholes.extend(as_uint64(bytes.fromhex("".join(phashes))), owners)
        self._sha256s += bytes.fromhex("".join(sha256s))

    def suspects(self, seen: Sequence[Look]) -> list[list[tuple[str, int]]]:
        """For each picture asked for, those remembered within the radius as `(sha256, distance in bits)`, nearest first."""
        found: list[dict[int, int]] = [{} for _ in seen]
        hashes = [one.full + one.mirror + one.windows for one in seen]
        asker = np.repeat(np.arange(len(seen)), [len(entry) // 8 for entry in hashes]).tolist()
        for which, owner, distance in self._wholes.within(as_uint64(b"".join(hashes))):
            near = found[asker[which]]
            near[owner] = min(distance, near.get(owner, 64))
        for which, owner, distance in self._windows.within(as_uint64(b"".join([one.full for one in seen]))):
            found[which][owner] = min(distance, found[which].get(owner, 64))
        return [[(self._sha256(owner), distance) for owner, distance in sorted(near.items(), key=lambda entry: entry[1])] for near in found]

    def _sha256(self, place: int) -> str:
        return self._sha256s[place * 32 : place * 32 + 32].hex()


class HashTable:
    """64-bit hashes with their owners' numbers, searched within a radius.

    The newest are compared one by one (numpy compares a million in a millisecond); once they are more than `seal_at` and a
    sixteenth of all, everything is sorted into bands anew.
    """

    def __init__(self, radius_bits: int, seal_at: int) -> None:
        self._radius, self._seal_at = radius_bits, seal_at
        self._hashes, self._owners = np.zeros(1024, np.uint64), np.zeros(1024, np.int32)
        self._size = self._sealed = 0
        self._bands: list[_Band] = []

    def __len__(self) -> int:
        return self._size

    def extend(self, hashes_N: Hashes, owners_N: NDArray[np.int32]) -> None:
        end = self._size + len(hashes_N)
        if end > len(self._hashes):
            room = max(end, 2 * len(self._hashes)) - len(self._hashes)
            self._hashes = np.concatenate([self._hashes, np.zeros(room, np.uint64)])
            self._owners = np.concatenate([self._owners, np.zeros(room, np.int32)])
        self._hashes[self._size : end] = hashes_N
        self._owners[self._size : end] = owners_N
        self._size = end
        if self._size - self._sealed > max(self._seal_at, self._sealed // 16):
            self._bands = [_Band(self._hashes[: self._size], band) for band in range(_BANDS)]
            self._sealed = self._size

    def within(self, asked_Q: Hashes) -> Iterator[tuple[int, int, int]]:
        """`(which was asked for, owner, distance)` of every hash within the radius of one asked for; some may come more than once."""
        tail = self._hashes[self._sealed : self._size]
        step = max(1, _BLOCK // max(1, len(tail)))
        for begin in range(0, len(asked_Q) if len(tail) else 0, step):
            distances = np.bitwise_count(asked_Q[begin : begin + step, None] ^ tail)
            near = np.flatnonzero(distances <= self._radius)
            which, rows = np.divmod(near, len(tail))
            yield from zip(
                (begin + which).tolist(), self._owners[self._sealed + rows].tolist(), distances.ravel()[near].tolist(), strict=True
            )
        for band, num_bits in zip(self._bands, _band_radii(self._radius), strict=True) if self._bands else ():
            which, rows = band.rows(asked_Q, _masks(num_bits))
            distances = np.bitwise_count(self._hashes[rows] ^ asked_Q[which])
            near = np.flatnonzero(distances <= self._radius)
            yield from zip(which[near].tolist(), self._owners[rows[near]].tolist(), distances[near].tolist(), strict=True)


class _Band:
    """One band of many hashes: row numbers sorted by the band's 16 bits."""

    def __init__(self, hashes_N: Hashes, band: int) -> None:
        self.shift = np.uint64(band * _BAND_BITS)
        keys = self.keys(hashes_N)
        self.order = np.argsort(keys, kind="stable").astype(np.int32)
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=_KEYS))]).astype(np.int32)

    def keys(self, hashes_N: Hashes) -> NDArray[np.uint16]:
        return ((hashes_N >> self.shift) & np.uint64(_KEYS - 1)).astype(np.uint16)

    def rows(self, asked_Q: Hashes, masks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Rows whose band equals that of an asked hash but for one of the masks, as `(which was asked, row)`."""
        probes = (self.keys(asked_Q).astype(np.int64)[:, None] ^ masks).ravel()
        starts, ends = self.starts[probes], self.starts[probes + 1]
        which = np.repeat(np.arange(len(probes)) // len(masks), ends - starts)
        return which, self.order[ranges(starts, ends)]


def near_pairs(left_N: Hashes, right_M: Hashes | None, radius_bits: int) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """All pairs `(row of left, row of right)` within the radius, in blocks; a pair may come more than once.

    `right_M` None joins `left_N` with itself: each pair once from either side, no row with itself. As many threads work as
    there are cores: numpy lets go of the interpreter's lock in what takes the time.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for number, num_bits in enumerate(_band_radii(radius_bits)):
            band = _Band(left_N if right_M is None else right_M, number)
            order = band.order if right_M is None else np.argsort(band.keys(left_N), kind="stable").astype(np.int32)
            left = left_N[order]
            join = _Join(left, left if right_M is None else right_M[band.order], band, radius_bits, right_M is None)
            for blocks in threads.map(join.pairs, _masks(num_bits).tolist()):
                for first, second in blocks:
                    yield order[first], band.order[second]


def _band_radii(radius_bits: int) -> list[int]:
    """How far each band must be searched: hashes within the radius cannot be further apart than this in all bands at once.

    >>> _band_radii(10), _band_radii(3)
    ([2, 2, 2, 1], [0, 0, 0, 0])
    """
    each, rest = divmod(radius_bits - _BANDS + 1, _BANDS)
    return [each + 1] * rest + [each] * (_BANDS - rest)


@dataclass(frozen=True)
class _Join:
    """Two lists of hashes, both sorted by the keys of one band."""

    left_N: Hashes
    right_M: Hashes
    band: _Band
    radius_bits: int
    with_itself: bool

    def pairs(self, mask: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Places of near pairs whose keys differ by exactly `mask`."""
        keys = self.band.keys(self.left_N).astype(np.int64) ^ mask
        starts, ends = self.band.starts[keys], self.band.starts[keys + 1]
        if self.with_itself:
            starts = np.maximum(starts, np.arange(1, len(keys) + 1, dtype=np.int32))
        return list(_near_in_ranges(self.left_N, self.right_M, starts, ends, self.radius_bits))


def _near_in_ranges(
    left_N: Hashes, right_M: Hashes, starts_N: NDArray[np.int32], ends_N: NDArray[np.int32], radius_bits: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of left row n with right rows `starts[n]:ends[n]` that are near, in blocks small enough for the cache."""
    rows = np.flatnonzero(ends_N > starts_N)
    lengths = (ends_N - starts_N)[rows]
    totals = np.cumsum(lengths, dtype=np.int64)
    begin = 0
    while begin < len(rows):
        done = int(totals[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(totals, done + _BLOCK)))
        block, sizes = rows[begin:end], lengths[begin:end]
        second = ranges(starts_N[block], ends_N[block])
        near = np.flatnonzero(np.bitwise_count(np.repeat(left_N[block], sizes) ^ right_M[second]) <= radius_bits)
        if len(near):
            yield np.repeat(block, sizes)[near], second[near]
        begin = end


def clusters(phashes: Sequence[str], signatures: Sequence[str] | None = None, radius_bits: int = 10) -> list[int]:
    """Which pictures belong together: equal labels for those joined by near-duplicate pairs, labels counted from 0.

    With `signatures` ("" where one is missing) crops and mirror images are found too, and a pair counts only where the second
    test confirms it; a pair of which one signature is missing counts by its hashes.
    """
    joined = _Union(len(phashes))
    if signatures is None:
        pairs: Iterable[tuple[Any, Any]] = near_pairs(as_uint64(bytes.fromhex("".join(phashes))), None, radius_bits) if phashes else ()
    else:
        pairs = _suspect_pairs(phashes, signatures, radius_bits)
    for first, second in pairs:
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            if a != b and joined.root(a) != joined.root(b) and _same(signatures, a, b):
                joined.join(a, b)
    return joined.labels()


def _same(signatures: Sequence[str] | None, a: int, b: int) -> bool:
    return signatures is None or not (signatures[a] and signatures[b]) or confirmed(signatures[a], signatures[b])


def _suspect_pairs(phashes: Sequence[str], signatures: Sequence[str], radius_bits: int) -> Iterator[tuple[Any, Any]]:
    if not phashes:
        return
    wholes = as_uint64(bytes.fromhex("".join(phashes)))
    looks = [look(phash, signature) for phash, signature in zip(phashes, signatures, strict=True)]
    others = [one.windows + one.mirror for one in looks]
    owners = np.repeat(np.arange(len(others)), [len(entry) // 8 for entry in others])
    yield from near_pairs(wholes, None, radius_bits)
    for first, second in near_pairs(wholes, as_uint64(b"".join(others)), radius_bits):
        yield first, owners[second]


class _Union:
    """Disjoint sets of the numbers below `size`."""

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))

    def root(self, place: int) -> int:
        parents = self._parents
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    def join(self, a: int, b: int) -> None:
        root_a, root_b = self.root(a), self.root(b)
        self._parents[max(root_a, root_b)] = min(root_a, root_b)

    def labels(self) -> list[int]:
        labels: dict[int, int] = {}
        return [labels.setdefault(self.root(place), len(labels)) for place in range(len(self._parents))]


def ranges(starts: NDArray[Any], ends: NDArray[Any]) -> NDArray[np.int64]:
    """All whole numbers of the half-open ranges, one after the other.

    >>> ranges(np.array([2, 9]), np.array([4, 10])).tolist()
    [2, 3, 9]
    """
    lengths = (ends - starts).astype(np.int64)
    begins = np.cumsum(lengths) - lengths
    return np.asarray(np.repeat(starts - begins, lengths) + np.arange(int(lengths.sum())), dtype=np.int64)


@cache
def _masks(num_bits: int) -> NDArray[np.int64]:
    """All 16-bit masks with at most so many bits set."""
    places = range(_BAND_BITS)
    found: list[int] = [sum(1 << place for place in chosen) for size in range(num_bits + 1) for chosen in combinations(places, size)]
    return np.array(found, dtype=np.int64)

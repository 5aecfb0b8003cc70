"""Selective search: class-free proposals from a segmentation that grows together (Uijlings et al., IJCV 2013).

Small segments (Felzenszwalb & Huttenlocher, IJCV 2004, of scikit-image) are merged, most alike neighbours first; the box
of every segment that ever existed is a proposal. Likeness is the sum of four terms in [0, 1]: colour and texture histograms
in common, smallness of both, and how well the two fill their common box.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_BINS = 25
_TEXTURE_BINS = 8


@dataclass
class _Region:
    box_xyxy: tuple[int, int, int, int]
    size_px: int
    colour: NDArray[np.float64]
    texture: NDArray[np.float64]
    neighbours: set[int]

    def merged(self, other: _Region) -> _Region:
        total = self.size_px + other.size_px
        a, b = self.box_xyxy, other.box_xyxy
        return _Region(
            (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])),
            total,
            (self.colour * self.size_px + other.colour * other.size_px) / total,
            (self.texture * self.size_px + other.texture * other.size_px) / total,
            self.neighbours | other.neighbours,
        )


def proposals(image_HW3: NDArray[np.uint8], *, scale: float = 100.0, min_side_px: int = 8, most: int = 1000) -> NDArray[np.float32]:
    """Boxes xyxy in pixels, (N, 4), the largest merges first, N ≤ `most`; RGB, uint8.

    `scale` is the segmentation's: larger gives fewer, larger segments to start from.
    """
    from skimage.segmentation import felzenszwalb

    segments_HW = felzenszwalb(image_HW3, scale=scale, sigma=0.8, min_size=40).astype(np.int64)
    regions = _regions(image_HW3, segments_HW)
    area = float(segments_HW.size)
    queue = [(-_likeness(regions[a], regions[b], area), a, b) for a in regions for b in regions[a].neighbours if a < b]
    heapq.heapify(queue)
    boxes = {region.box_xyxy: None for region in regions.values()}
    while queue:
        _, a, b = heapq.heappop(queue)
        if a not in regions or b not in regions:
            continue
        number = max(regions) + 1
        region = regions.pop(a).merged(regions.pop(b))
        region.neighbours = {n for n in region.neighbours if n in regions}
        for neighbour in region.neighbours:
            regions[neighbour].neighbours.add(number)
            heapq.heappush(queue, (-_likeness(region, regions[neighbour], area), neighbour, number))
        regions[number] = region
        boxes[region.box_xyxy] = None
    found = np.array(list(boxes)[::-1], dtype=np.float32).reshape(-1, 4)
    large = (found[:, 2] - found[:, 0] >= min_side_px) & (found[:, 3] - found[:, 1] >= min_side_px)
    return found[large][:most]


def _regions(image_HW3: NDArray[np.uint8], segments_HW: NDArray[np.int64]) -> dict[int, _Region]:
    count = int(segments_HW.max()) + 1
    flat = segments_HW.ravel()
    sizes = np.bincount(flat, minlength=count)
    colour = _histograms(cv2.cvtColor(image_HW3, cv2.COLOR_RGB2HSV), flat, count, _BINS)
    grey = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY)
    slopes = np.stack([cv2.convertScaleAbs(cv2.Sobel(grey, cv2.CV_16S, *axis)) for axis in ((1, 0), (0, 1))], axis=-1)
    texture = _histograms(slopes, flat, count, _TEXTURE_BINS)
    rows, columns = np.indices(segments_HW.shape)
    low = np.full((count, 2), np.iinfo(np.int64).max)
    high = np.zeros((count, 2), dtype=np.int64)
    for axis, values in enumerate((columns, rows)):
        np.minimum.at(low[:, axis], flat, values.ravel())
        np.maximum.at(high[:, axis], flat, values.ravel() + 1)
    neighbours = _neighbours(segments_HW)
    return {
        n: _Region((*low[n].tolist(), *high[n].tolist()), int(sizes[n]), colour[n], texture[n], neighbours.get(n, set()))
        for n in range(count)
    }


def _histograms(channels_HWC: NDArray[np.uint8], flat: NDArray[np.int64], count: int, bins: int) -> NDArray[np.float64]:
    """A histogram per segment over all channels, (count, C · bins), each adding up to 1."""
    parts = []
    for channel in np.moveaxis(channels_HWC, -1, 0):
        levels = channel.ravel().astype(np.int64) * bins // 256
        parts.append(np.bincount(flat * bins + levels, minlength=count * bins).reshape(count, bins))
    joined = np.concatenate(parts, axis=1).astype(np.float64)
    return np.asarray(joined / np.maximum(joined.sum(axis=1, keepdims=True), 1))


def _neighbours(segments_HW: NDArray[np.int64]) -> dict[int, set[int]]:
    pairs = np.concatenate(
        [
            np.stack([segments_HW[:, :-1].ravel(), segments_HW[:, 1:].ravel()], axis=1),
            np.stack([segments_HW[:-1].ravel(), segments_HW[1:].ravel()], axis=1),
        ]
    )
    touching: dict[int, set[int]] = {}
    for a, b in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).tolist():
        touching.setdefault(a, set()).add(b)
        touching.setdefault(b, set()).add(a)
    return touching


def _likeness(a: _Region, b: _Region, image_px: float) -> float:
    one, other = a.box_xyxy, b.box_xyxy
    common = (max(one[2], other[2]) - min(one[0], other[0])) * (max(one[3], other[3]) - min(one[1], other[1]))
    both = a.size_px + b.size_px
    alike = float(np.minimum(a.colour, b.colour).sum() + np.minimum(a.texture, b.texture).sum())
    return alike + (1 - both / image_px) + (1 - (common - both) / image_px)

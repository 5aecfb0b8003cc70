"""Augmentation: one geometric step of our own, then albumentations on the pixels.

The geometry (turn, scale, place, mirror) is a single resize of the part that will be seen, with boxes moved in float64 and
judged once against what they were before: that avoids, instead of mending, what stacks of box-aware transforms do
(visibility thresholds that hold only per transform, coordinates through float32, 1-pixel slivers).
:class:`Guarded` makes any albumentations pipeline of the user's own safe in the same way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from collect.errors import NotFoundError, UsageError
from train.data.cache import Pixels

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network for a newer version otherwise

GREY = 114
_OFF_CANVAS = 0.75


@dataclass(frozen=True)
class Sample:
    """An image with its boxes: uint8 RGB (H, W, 3); float64 xyxy pixels (N, 4); contiguous labels int64 (N,)."""

    pixels: Pixels
    boxes_N4: NDArray[np.float64]
    labels_N: NDArray[np.int64]

    def take(self, keep_N: NDArray[np.bool_]) -> Sample:
        """With only the boxes that `keep_N` marks."""
        return replace(self, boxes_N4=self.boxes_N4[keep_N], labels_N=self.labels_N[keep_N])


@dataclass(frozen=True)
class BoxRules:
    """Which boxes survive a change of geometry.

    Attributes:
        min_visible: least share of the box's area (as it was before *all* changes) that must still be seen.
        min_side_px: least width and height of what is seen, pixels.
    """

    min_visible: float = 0.3
    min_side_px: float = 2.0


def area(boxes_N4: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas of xyxy boxes (N, 4); 0 where a side is negative."""
    sides: NDArray[np.float64] = np.clip(boxes_N4[:, 2:] - boxes_N4[:, :2], 0, None)
    return sides[:, 0] * sides[:, 1]


def clip(sample: Sample, whole_area_N: NDArray[np.float64], rules: BoxRules) -> Sample:
    """Boxes cut at the canvas; those of which too little is left are dropped.

    Args:
        sample: boxes may reach outside.
        whole_area_N: the area each box would have if nothing were hidden, in the canvas's pixels.
        rules: what survives.
    """
    height, width = sample.pixels.shape[:2]
    inside = np.clip(sample.boxes_N4, 0, [width, height, width, height])
    sides = inside[:, 2:] - inside[:, :2]
    keep = (sides.min(axis=1, initial=np.inf) >= rules.min_side_px) & (area(inside) >= rules.min_visible * whole_area_N)
    return replace(sample, boxes_N4=inside).take(keep)


@dataclass(frozen=True)
class Geometry:
    """How an image is thrown onto the canvas.

    Attributes:
        zoom: least and greatest magnification; 1 = the whole image just fits.
        aspect: greatest stretch of one axis against the other.
        mirror: chance of a horizontal flip.
        turn: chance of one, two or three quarter turns, each as likely: for pictures that have no up.
        view: how large the whole image would be against the canvas at zoom 1: more than 1 = the canvas is a cut-out.
        focus: chance that the canvas is placed on a box rather than anywhere (small objects profit).
    """

    zoom: tuple[float, float] = (0.6, 1.8)
    aspect: float = 1.2
    mirror: float = 0.5
    turn: float = 0.0
    focus: float = 0.5
    view: float = 1.0
    rules: BoxRules = field(default_factory=BoxRules)


def throw(sample: Sample, size_wh: tuple[int, int], geometry: Geometry, rng: Generator) -> Sample:
    """The image turned, scaled, stretched, placed and mirrored on a grey canvas of `size_wh`, in one resize."""
    if geometry.turn and rng.random() < geometry.turn:
        sample = turn(sample, int(rng.integers(1, 4)))
    height, width = sample.pixels.shape[:2]
    stretch = np.exp(rng.uniform(-1, 1) * np.log(geometry.aspect) / 2)
    zoom = np.exp(rng.uniform(*np.log(geometry.zoom))) * geometry.view * min(size_wh[0] / width, size_wh[1] / height)
    scale = np.array([zoom * stretch, zoom / stretch])
    offset = _offset(sample, np.array(size_wh), scale, geometry.focus, rng)
    thrown = _paste(sample, size_wh, scale, offset, geometry.rules)
    return mirror(thrown) if rng.random() < geometry.mirror else thrown


def _offset(sample: Sample, size_wh: NDArray[np.int64], scale: NDArray[np.float64], focus: float, rng: Generator) -> NDArray[np.float64]:
    """Where the image's corner lies on the canvas: at random so that canvas or image is used fully, or a box is in view."""
    extent = scale * sample.pixels.shape[1::-1]
    room = size_wh - extent
    offset: NDArray[np.float64] = rng.uniform(0, 1, 2) * room
    if rng.random() < focus and len(sample.boxes_N4):
        box = sample.boxes_N4[rng.integers(len(sample.boxes_N4))]
        wanted = rng.uniform(0.2, 0.8, 2) * size_wh - scale * (box[:2] + box[2:]) / 2
        offset = np.clip(wanted, np.minimum(room, 0), np.maximum(room, 0))
    return offset


def _paste(sample: Sample, size_wh: tuple[int, int], scale: NDArray[np.float64], offset: NDArray[np.float64], rules: BoxRules) -> Sample:
    """Resize only the part that is seen, and lay it on the canvas; boxes follow the pixels to the fraction."""
    height, width = sample.pixels.shape[:2]
    low = np.clip(np.floor(-offset / scale), 0, [width - 1, height - 1]).astype(int)
    high = np.clip(np.ceil((np.array(size_wh) - offset) / scale), low + 1, [width, height]).astype(int)
    part = sample.pixels[low[1] : high[1], low[0] : high[0]]
    at = np.rint(low * scale + offset).astype(int)
    size = np.maximum(np.rint((high - low) * scale).astype(int), 1)
    shrinks = scale.min() < 0.6  # between that and 1 a bilinear resize does not alias yet, and costs a third
    resized = cv2.resize(part, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    canvas = np.full((size_wh[1], size_wh[0], 3), GREY, dtype=np.uint8)
    start, end = np.maximum(at, 0), np.minimum(at + size, size_wh)
    canvas[start[1] : end[1], start[0] : end[0]] = resized[start[1] - at[1] : end[1] - at[1], start[0] - at[0] : end[0] - at[0]]
    exact_scale, corner = size / (high - low), np.tile(low, 2)
    boxes = (sample.boxes_N4 - corner) * np.tile(exact_scale, 2) + np.tile(at, 2)
    return clip(Sample(canvas, boxes, sample.labels_N), area(boxes), rules)


def letterbox(sample: Sample, size_wh: tuple[int, int]) -> Sample:
    """The whole image, as large as it fits, at the top left of a grey canvas: how a detector sees at test time."""
    height, width = sample.pixels.shape[:2]
    scale = min(size_wh[0] / width, size_wh[1] / height)
    rules = BoxRules(0.0, 0.0)
    return _paste(sample, size_wh, np.array([scale, scale]), np.zeros(2), rules)


def mirror(sample: Sample) -> Sample:
    """Left and right exchanged."""
    width = sample.pixels.shape[1]
    boxes = sample.boxes_N4.copy()
    boxes[:, [0, 2]] = width - sample.boxes_N4[:, [2, 0]]
    return replace(sample, pixels=cv2.flip(sample.pixels, 1), boxes_N4=boxes)


def turn(sample: Sample, quarters: int) -> Sample:
    """Turned counter-clockwise by 1, 2 or 3 quarters of a circle; nothing is lost and nothing resampled."""
    height, width = sample.pixels.shape[:2]
    x1, y1, x2, y2 = sample.boxes_N4.T
    boxes = {
        1: (y1, width - x2, y2, width - x1),
        2: (width - x2, height - y2, width - x1, height - y1),
        3: (height - y2, x1, height - y1, x2),
    }
    pixels = np.ascontiguousarray(np.rot90(sample.pixels, quarters))
    return replace(sample, pixels=pixels, boxes_N4=np.stack(boxes[quarters], axis=1))


def mosaic(samples: Sequence[Sample], size_wh: tuple[int, int], geometry: Geometry, rng: Generator) -> Sample:
    """Four images in the quarters of one canvas, cut at a random cross (Bochkovskiy et al., YOLOv4, 2020)."""
    width, height = size_wh
    cross_x, cross_y = (int(side * rng.uniform(0.35, 0.65)) for side in size_wh)
    canvas = np.full((height, width, 3), GREY, dtype=np.uint8)
    boxes, labels = [], []
    for place, sample in enumerate(samples[:4]):
        x1, x2 = (0, cross_x) if place % 2 == 0 else (cross_x, width)
        y1, y2 = (0, cross_y) if place < 2 else (cross_y, height)
        part = throw(sample, (x2 - x1, y2 - y1), geometry, rng)
        canvas[y1:y2, x1:x2] = part.pixels
        boxes.append(part.boxes_N4 + np.array([x1, y1, x1, y1]))
        labels.append(part.labels_N)
    return Sample(canvas, np.concatenate(boxes), np.concatenate(labels))


def mixup(sample: Sample, other: Sample, rng: Generator) -> Sample:
    """Two images of one size blended, with the boxes of both (Zhang et al., 2018; as for detection in Zhang et al., 2019)."""
    share = float(rng.beta(8.0, 8.0))
    return Sample(
        cv2.addWeighted(sample.pixels, share, other.pixels, 1 - share, 0),
        np.concatenate([sample.boxes_N4, other.boxes_N4]),
        np.concatenate([sample.labels_N, other.labels_N]),
    )


def copy_paste(sample: Sample, other: Sample, rng: Generator, most: int = 3, rules: BoxRules | None = None) -> Sample:
    """Some objects of `other` pasted, box and all, where they hide no more of a box than `rules` allow.

    Dwibedi et al., "Cut, Paste and Learn" (2017); without masks the whole box is pasted, its border softened.
    """
    rules = rules or BoxRules()
    pixels, boxes, labels = sample.pixels.copy(), sample.boxes_N4, sample.labels_N
    height, width = pixels.shape[:2]
    for row in rng.permutation(len(other.boxes_N4))[:most]:
        x1, y1, x2, y2 = np.rint(np.clip(other.boxes_N4[row], 0, None)).astype(int)
        patch = other.pixels[y1:y2, x1:x2]
        h, w = patch.shape[:2]
        if min(h, w) < max(rules.min_side_px, 4) or h >= height or w >= width:
            continue
        left, top = int(rng.integers(width - w)), int(rng.integers(height - h))
        placed = np.array([[left, top, left + w, top + h]], dtype=np.float64)
        if (_overlap(boxes, placed) > 1 - rules.min_visible).any():
            continue
        _blend(pixels[top : top + h, left : left + w], patch)
        boxes, labels = np.concatenate([boxes, placed]), np.append(labels, other.labels_N[row])
    return Sample(pixels, boxes, labels)


def _overlap(boxes_N4: NDArray[np.float64], placed_14: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each box that the placed one hides, or share of the placed one that lies on it, whichever is greater."""
    low, high = np.maximum(boxes_N4[:, :2], placed_14[:, :2]), np.minimum(boxes_N4[:, 2:], placed_14[:, 2:])
    hidden: NDArray[np.float64] = np.clip(high - low, 0, None).prod(axis=1)
    return np.maximum(hidden / np.maximum(area(boxes_N4), 1e-9), hidden / area(placed_14))


def _blend(target: Pixels, patch: Pixels) -> None:
    h, w = patch.shape[:2]
    edge = np.minimum(1, (0.5 + np.minimum(np.arange(w), np.arange(w)[::-1])) / 3)[None, :]
    weight = np.minimum(edge, np.minimum(1, (0.5 + np.minimum(np.arange(h), np.arange(h)[::-1])) / 3)[:, None])[..., None]
    target[:] = (patch * weight + target * (1 - weight)).astype(np.uint8)


class Guarded:
    """An albumentations pipeline that cannot damage boxes.

    Boxes are passed with their row as label, so integer labels stay integers; invalid boxes (zero width) are filtered, not
    raised on. The corners of each box travel along as keypoints, which are not cut at the canvas: visibility is judged
    once, at the end, against the whole box as it would be without any crop. Boxes that did not move keep every bit.

    Args:
        transforms: albumentations transforms, geometric ones included.
        rules: which boxes survive.
    """

    def __init__(self, transforms: Sequence[Any], rules: BoxRules | None = None) -> None:
        from albumentations import BboxParams, Compose, DualTransform, KeypointParams

        for transform in _flat(transforms):
            if getattr(transform, "rotate_method", None) == "largest_box":
                transform.rotate_method = "ellipse"  # the largest box grows to twice the area at 45°
        self.rules = rules or BoxRules()
        self._geometric = any(isinstance(transform, DualTransform) for transform in _flat(transforms))
        boxes = BboxParams("pascal_voc", label_fields=["rows"], clip=True, filter_invalid_bboxes=True)
        corners = KeypointParams("xy", remove_invisible=False)
        self._pipeline = Compose(
            list(transforms),
            bbox_params=boxes if self._geometric else None,
            keypoint_params=corners if self._geometric else None,
        )

    def __call__(self, sample: Sample, seed: int) -> Sample:
        """The sample transformed; the same for the same `seed`, whatever came before and in whichever process."""
        self._pipeline.set_random_seed(seed)
        if not self._geometric:
            return replace(sample, pixels=self._pipeline(image=sample.pixels)["image"])
        height, width = sample.pixels.shape[:2]
        inside = np.clip(sample.boxes_N4, 0, [width, height, width, height])
        corners = inside[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
        pixels = np.ascontiguousarray(sample.pixels)
        found = self._pipeline(image=pixels, bboxes=inside, rows=np.arange(len(inside)), keypoints=corners)
        rows = np.asarray(found["rows"]).astype(np.int64).reshape(-1)
        moved = np.asarray(found["bboxes"], dtype=np.float64).reshape(-1, 4)[:, :4]
        whole = _polygon_area(np.asarray(found["keypoints"], dtype=np.float64).reshape(-1, 4, 2))[rows]
        same = np.abs(moved - inside[rows]).max(axis=1, initial=0) < 1e-3
        moved[same] = inside[rows[same]]
        return clip(Sample(found["image"], moved, sample.labels_N[rows]), whole, self.rules)


def _polygon_area(corners_N42: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas of quadrilaterals, by the shoelace formula: exact for a box under any affine map."""
    following = np.roll(corners_N42, -1, axis=1)
    cross = corners_N42[..., 0] * following[..., 1] - corners_N42[..., 1] * following[..., 0]
    doubled: NDArray[np.float64] = np.abs(cross.sum(axis=1))
    return doubled / 2


def _flat(transforms: Sequence[Any]) -> Iterator[Any]:
    """All transforms, those inside `OneOf` and `Sequential` too."""
    for transform in transforms:
        inner = getattr(transform, "transforms", None)
        if inner is None:
            yield transform
        else:
            yield from _flat(inner)


def pixel_transforms(strength: float) -> list[Any]:
    """Colour, light, blur and noise; `strength` 1 is usual, 0 = none. HSV rather than ColorJitter: the same for less time."""
    if strength <= 0:
        return []
    from albumentations import Blur, GaussNoise, HueSaturationValue, ImageCompression, OneOf, RandomBrightnessContrast, ToGray

    spoilers = [Blur(blur_limit=(3, 5)), GaussNoise(std_range=(0.02, 0.08)), ImageCompression(quality_range=(40, 90))]
    return [
        HueSaturationValue(int(8 * strength), int(30 * strength), int(10 * strength), p=0.5),
        RandomBrightnessContrast(0.25 * strength, 0.25 * strength, p=0.5),
        ToGray(p=min(0.03 * strength, 1.0)),
        OneOf(spoilers, p=min(0.1 * strength, 1.0)),
    ]


def own_transforms(path: Path) -> list[Any]:
    """The user's own pipeline, as `albumentations.save` writes it (JSON or YAML).

    Raises:
        NotFoundError, UsageError: no such file, or not a pipeline.
    """
    import albumentations

    if not path.is_file():
        raise NotFoundError(f"there is no {path}; `albumentations.save` writes such a file")
    try:
        loaded = albumentations.load(path, data_format="yaml" if path.suffix in {".yml", ".yaml"} else "json")
    except Exception as error:  # albumentations raises whatever the document leads it to
        raise UsageError(f"{path} is no albumentations pipeline: {type(error).__name__}: {error}") from error
    return list(getattr(loaded, "transforms", [loaded]))

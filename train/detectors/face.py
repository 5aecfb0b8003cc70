"""Faces by OpenCV's SSD (ResNet-10, 300×300), through windows of several sizes.

The network sees 300×300 pixels and knows faces from about a twelfth to two thirds of its view. One pass over a whole
photo therefore misses small faces, and one over a crop that a face fills gives mostly wrong boxes (opencv/opencv#15912).
So the picture is looked at through square windows: twice its size (faces that fill it), all of it, and overlapping tiles
of a half, a quarter, … of its size. Other input sizes than 300×300 are no way out: the graph's anchors are laid out for
300, and boxes come back shifted or outside the picture.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotate.boxes import Floats, xywh_from_xyxy
from collect.errors import MissingServiceError
from collect.files import sha256_file

WEIGHTS = "opencv_face_detector_uint8.pb"
GRAPH = "opencv_face_detector.pbtxt"
ENVIRONMENT = "BOXWRIGHT_FACE_DETECTOR"
_INPUT_PX = 300
_MEAN_BGR = (104.0, 177.0, 123.0)


@dataclass(frozen=True)
class Window:
    """A square view in pixels of the image; may reach outside of it. `inner` = its edges cut through the image."""

    x: float
    y: float
    side: float
    inner: bool = False


@dataclass(frozen=True)
class FaceDetector:
    """OpenCV's SSD face detector, read from a folder that holds its weights and its graph.

    Attributes:
        folder: holds `opencv_face_detector_uint8.pb` and `opencv_face_detector.pbtxt`.
        min_tile_px: tiles are halved, twice at most, while they stay at least this wide; faces under a twelfth of a tile
            are missed.
        overlap_iou: boxes overlapping more than this are one face.
    """

    folder: Path
    min_tile_px: int = 200
    overlap_iou: float = 0.35

    def __deepcopy__(self, memo: object) -> FaceDetector:
        """Itself: it holds nothing that changes, and OpenCV's network cannot be copied."""
        return self

    @cached_property
    def weights_sha256(self) -> str:
        return sha256_file(self.folder / WEIGHTS)

    @cached_property
    def _network(self) -> Any:
        import cv2

        try:
            return cv2.dnn.readNetFromTensorflow(str(self.folder / WEIGHTS), str(self.folder / GRAPH))
        except cv2.error as error:
            raise MissingServiceError(
                f"OpenCV cannot read the face detector in {self.folder}: {error}; fetch its two files again"
            ) from error

    def detect(self, image_HW3: NDArray[np.uint8], threshold: float = 0.5) -> tuple[Floats, Floats]:
        """Faces in an upright RGB picture: boxes (N, 4) as xywh pixels and scores (N,) in [0, 1], best first."""
        height, width = image_HW3.shape[:2]
        views = windows((width, height), self.min_tile_px)
        rows = np.concatenate([self._look(image_HW3, window, threshold) for window in views])
        rows = _inside(rows, (width, height))
        kept = merge(rows[:, :4], rows[:, 4], self.overlap_iou)
        return xywh_from_xyxy(rows[kept, :4]), rows[kept, 4]

    def _look(self, image_HW3: NDArray[np.uint8], window: Window, threshold: float) -> Floats:
        """The faces in one window as rows `[x1, y1, x2, y2, score]` in pixels of the image. (The graph takes no batches.)"""
        import cv2

        blob = cv2.dnn.blobFromImage(_view(image_HW3, window), 1.0, (_INPUT_PX, _INPUT_PX), _MEAN_BGR, swapRB=True, crop=False)
        self._network.setInput(blob)
        output = self._network.forward()[0, 0].astype(np.float64)
        return _placed(output[output[:, 2] >= threshold], window)


def find_folder(given: str | Path | None = None) -> Path:
    """The folder with the detector's two files: `given`, else `BOXWRIGHT_FACE_DETECTOR`, else in the cache of weights.

    Raises:
        MissingServiceError: none of them holds the files; says where they can be had.
    """
    places = [Path(place) for place in (given, os.environ.get(ENVIRONMENT)) if place]
    if not places:
        from train.fitting.weights import cache_folder  # here, since it imports torch

        places.append(cache_folder() / "face-detector")
    for place in places:
        folder = place.parent if place.is_file() else place
        if (folder / WEIGHTS).is_file() and (folder / GRAPH).is_file():
            return folder
    looked = f" (looked in {', '.join(map(str, places))})" if places else ""
    raise MissingServiceError(
        f"the OpenCV face detector is not here{looked}; put {WEIGHTS} (opencv/opencv_3rdparty, branch dnn_samples_face_detector) and "
        f"{GRAPH} (opencv/opencv_extra, testdata/dnn) into a folder and name it with --weights or {ENVIRONMENT}"
    )


def windows(size_wh: tuple[int, int], min_tile_px: int) -> list[Window]:
    """The views of a picture, largest first: twice its longer side, all of it, then tiles that overlap by half.

    >>> [(round(w.x), round(w.y), round(w.side)) for w in windows((400, 200), 400)]
    [(-200, -300, 800), (0, -100, 400)]
    >>> sorted({w.side for w in windows((4000, 3000), 200)})
    [1000.0, 2000.0, 4000, 8000]
    """
    width, height = size_wh
    longer = max(width, height)
    views = [Window(width / 2 - longer, height / 2 - longer, 2 * longer), Window((width - longer) / 2, (height - longer) / 2, longer)]
    for side in (longer / 2, longer / 4):
        if side >= min_tile_px:
            views += [Window(x, y, side, inner=True) for y in _starts(height, side) for x in _starts(width, side)]
    return views


def _starts(length: float, side: float) -> list[float]:
    """Where tiles begin along one edge, so that they overlap by at least half and none is wasted outside."""
    if length <= side:
        return [(length - side) / 2]
    count = int(np.ceil((length - side) / (side / 2))) + 1
    return [float(start) for start in np.linspace(0, length - side, count)]


def _view(image_HW3: NDArray[np.uint8], window: Window) -> NDArray[np.uint8]:
    """The window's pixels at 300×300; what lies outside of the picture is the network's mean colour."""
    import cv2

    scale = _INPUT_PX / window.side
    matrix = np.array([[scale, 0.0, -window.x * scale], [0.0, scale, -window.y * scale]])
    if scale < 1:  # shrink by area first: warpAffine alone would alias small faces away
        height, width = image_HW3.shape[:2]
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image_HW3 = cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA)
        matrix[:, :2] = np.diag([size[0] and scale * width / size[0], size[1] and scale * height / size[1]])
    fill = _MEAN_BGR[::-1]
    view: NDArray[np.uint8] = cv2.warpAffine(image_HW3, matrix, (_INPUT_PX, _INPUT_PX), flags=cv2.INTER_LINEAR, borderValue=fill)
    return view


def _placed(rows_N7: Floats, window: Window) -> Floats:
    """Network rows `[item, class, score, x1, y1, x2, y2]` (relative) as pixel rows; faces that a tile's edge cuts go."""
    relative, scores = rows_N7[:, 3:7], rows_N7[:, 2:3]
    whole = (relative > -0.05).all(axis=1) & (relative < 1.05).all(axis=1)
    if window.inner:
        whole &= (relative > 0.01).all(axis=1) & (relative < 0.99).all(axis=1)
    offset = np.array([window.x, window.y, window.x, window.y])
    return np.concatenate([relative * window.side + offset, scores], axis=1)[whole]


def _inside(rows_N5: Floats, size_wh: tuple[int, int]) -> Floats:
    """Rows clipped to the picture; those with less than half of their area, or less than 4 px, inside go."""
    width, height = size_wh
    clipped = rows_N5.copy()
    clipped[:, [0, 2]] = rows_N5[:, [0, 2]].clip(0, width)
    clipped[:, [1, 3]] = rows_N5[:, [1, 3]].clip(0, height)
    sides, before = clipped[:, 2:4] - clipped[:, :2], rows_N5[:, 2:4] - rows_N5[:, :2]
    kept: Floats = clipped[(sides.min(axis=1, initial=np.inf) >= 4) & (sides.prod(axis=1) >= 0.5 * before.prod(axis=1))]
    return kept


def merge(boxes_xyxy_N4: Floats, scores_N: Floats, overlap_iou: float, inside_share: float = 0.5) -> list[int]:
    """Greedy suppression, best score first: rows kept. A box that lies within a kept one, or holds it, is the same face."""
    boxes = boxes_xyxy_N4
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept: list[int] = []
    for row in np.argsort(-scores_N, kind="stable").tolist():
        low = np.maximum(boxes[kept, :2], boxes[row, :2])
        high = np.minimum(boxes[kept, 2:], boxes[row, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        same = shared / (areas[kept] + areas[row] - shared) > overlap_iou
        same |= shared > inside_share * np.minimum(areas[kept], areas[row])
        if not same.any():
            kept.append(row)
    return kept

"""Pictures that no hash pairs, such as strong crops, borders, captions: a network's vectors propose, keypoints decide.

Which pictures are alike to a network says nothing of whether they are the same (LOG.md: no threshold carries over from one kind of
picture to another), so neighbours by its vectors are only proposed. Two are the same where the keypoints of one (SIFT, Lowe
2004) fit those of the other under one affine map (RANSAC), one laid upon the other by that map agrees with it grey level for
grey level, and all but the margin of one lies within the other.

OpenCV does it all. Only decoding processes work here: pictures are decoded anew.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from collect.errors import NotFoundError, UsageError

#: What a network is given: RGB from 0 to 255, float32, (1, 3, 160, 160). It answers with one vector of any length.
NETWORK_SIDE_PX = 160
_PROOF_SIDE_PX = 256
_MOST_KEYPOINTS = 300
_CONTRAST = 0.02  # of SIFT; half its default, since blurred and dark pictures have few keypoints
_RATIO = 0.8  # a keypoint's nearest must be so much nearer than its second nearest (Lowe 2004)
_REACH_PX = 4.0
#: LOG.md has the measurement: photos taken in a row reach .93, the same picture cropped or bordered .96 and more.
_LEAST_INLIERS, _LEAST_AGREEMENT = 10, 0.95
_LEAST_WITHIN, _LEAST_COVERED = 0.8, 0.1

Floats = NDArray[np.float32]


class Network:
    """A network in an ONNX file, run by OpenCV on one thread.

    Raises:
        NotFoundError: there is no such file.
        UsageError: OpenCV cannot read it, or it does not take or give what it should.
    """

    def __init__(self, path: Path) -> None:
        cv2 = _opencv()
        if not path.is_file():
            raise NotFoundError(f"there is no network at {path}; `boxwright onnx --lookalikes --out {path}` writes one")
        try:
            self._net = cv2.dnn.readNetFromONNX(str(path))
            answer = self._run(np.zeros((1, 3, NETWORK_SIDE_PX, NETWORK_SIDE_PX), np.float32))
        except cv2.error as error:
            said = str(error).strip().splitlines()[-1][:200]
            raise UsageError(f"OpenCV cannot run {path} on (1, 3, {NETWORK_SIDE_PX}, {NETWORK_SIDE_PX}): {said}") from error
        if answer.size != answer.shape[-1] or answer.size < 2:
            raise UsageError(f"{path} answers with numbers of shape {answer.shape}; it must answer with one vector")
        self.num_numbers = int(answer.size)

    def vector(self, data: bytes) -> bytes:
        """What a picture's file looks like: a vector scaled to its largest number, int8, as bytes."""
        vector = self._run(self.given(data))
        return np.round(vector * (127 / max(float(np.abs(vector).max()), 1e-9))).astype(np.int8).tobytes()

    @staticmethod
    def given(data: bytes) -> Floats:
        """A picture's file as the network sees it, stretched to a square, (1, 3, 160, 160)."""
        picture = _decoded(data, "RGB", 2 * NETWORK_SIDE_PX).resize((NETWORK_SIDE_PX, NETWORK_SIDE_PX), Image.Resampling.BILINEAR)
        return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1)[None], np.float32)

    def _run(self, pixels_13SS: Floats) -> Floats:
        self._net.setInput(pixels_13SS)
        return np.asarray(self._net.forward(), np.float32).squeeze()


@dataclass(frozen=True)
class Keypoints:
    """A small grey picture (H, W), where its keypoints are (K, 2) and what surrounds them (K, 128)."""

    grey_HW: NDArray[np.uint8]
    places_K2: Floats
    surroundings_K128: Floats

    @classmethod
    def of(cls, data: bytes) -> Keypoints:
        """Those of a picture's file."""
        grey = np.asarray(_decoded(data, "L", _PROOF_SIDE_PX))
        sift = _opencv().SIFT_create(nfeatures=_MOST_KEYPOINTS, contrastThreshold=_CONTRAST)
        found, surroundings = sift.detectAndCompute(grey, None)
        places = np.array([point.pt for point in found], np.float32).reshape(-1, 2)
        return cls(grey, places, np.zeros((0, 128), np.float32) if surroundings is None else surroundings)


def same_picture(a: Keypoints, b: Keypoints) -> bool:
    """Whether one shows the other or most of it, perhaps turned, stretched or framed; brightness and contrast do not count."""
    pairs = _pairs(a.surroundings_K128, b.surroundings_K128)
    if len(pairs) < _LEAST_INLIERS:
        return False
    cv2 = _opencv()
    cv2.setRNGSeed(0)
    map_23, inliers = cv2.estimateAffine2D(
        a.places_K2[pairs[:, 0]], b.places_K2[pairs[:, 1]], ransacReprojThreshold=_REACH_PX, maxIters=1000
    )
    if map_23 is None or int(inliers.sum()) < _LEAST_INLIERS:
        return False
    scale = abs(float(np.linalg.det(map_23[:, :2])))
    size_wh = (b.grey_HW.shape[1], b.grey_HW.shape[0])
    shared = cv2.warpAffine(np.full(a.grey_HW.shape, 255, np.uint8), map_23, size_wh) == 255
    within_a, within_b = float(shared.sum()) / max(scale * a.grey_HW.size, 1e-9), float(shared.mean())
    if max(within_a, within_b) < _LEAST_WITHIN or min(within_a, within_b) < _LEAST_COVERED:
        return False
    laid = cv2.warpAffine(a.grey_HW, map_23, size_wh)[shared].astype(np.float32)
    under = b.grey_HW[shared].astype(np.float32)
    laid, under = laid - laid.mean(), under - under.mean()
    return float(laid @ under) >= _LEAST_AGREEMENT * float(np.linalg.norm(laid) * np.linalg.norm(under)) > 0


class Vectors:
    """Answers files with their vectors in base64, "" where one cannot be decoded; the network is read once in a process."""

    def __init__(self, network: str) -> None:
        self._network = _network(network)

    def __call__(self, data: bytes) -> str:
        try:
            return base64.b64encode(self._network.vector(data)).decode()
        except Exception:  # decoders raise whatever a broken file leads them to
            return ""


class AgainstTheFirst:
    """Answers each file with whether it shows the same picture as the first one; the first, and what cannot be decoded, with False."""

    def __init__(self) -> None:
        self._first: Keypoints | None = None

    def __call__(self, data: bytes) -> bool:
        try:
            found = Keypoints.of(data)
        except Exception:  # as above
            found = Keypoints(np.zeros((1, 1), np.uint8), np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
        if self._first is None:
            self._first = found
            return False
        return same_picture(found, self._first)


@cache
def _network(path: str) -> Network:
    return Network(Path(path))


def _pairs(a_K128: Floats, b_K128: Floats) -> NDArray[np.int64]:
    """Rows of keypoints that are each other's likely match, (N, 2)."""
    if len(a_K128) < 2 or len(b_K128) < 2:
        return np.zeros((0, 2), np.int64)
    found = _opencv().BFMatcher().knnMatch(a_K128, b_K128, k=2)
    return np.array([(near.queryIdx, near.trainIdx) for near, next_ in found if near.distance < _RATIO * next_.distance]).reshape(-1, 2)


def _decoded(data: bytes, mode: str, side_px: int) -> Image.Image:
    """A picture's first frame, upright, at about `side_px`: its longer side is no longer."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft(mode, (side_px, side_px))
        picture = ImageOps.exif_transpose(image).convert(mode)
    picture.thumbnail((side_px, side_px), Image.Resampling.BILINEAR)
    return picture


@cache
def _opencv() -> Any:
    import cv2

    cv2.setNumThreads(1)
    return cv2

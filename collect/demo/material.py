"""What the demo's scenes are made of: things and grounds cut from the real photographs in scikit-image's wheel.

Nothing is downloaded: only the files that `skimage/data/` holds after an install are read, and scikit-image itself is not
imported. All pictures are `(H, W, 3)` uint8 in BGR, as OpenCV reads them; an alpha is `(H, W)` float32 in [0, 1].
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from collect.errors import MissingServiceError

Picture = NDArray[np.uint8]
Alpha = NDArray[np.float32]

#: The classes of the demo, in the order of their ids.
CLASSES = ("coin", "cup", "motorcycle")


class Cutout(NamedTuple):
    """A thing without its background: `bgr (H, W, 3)`, `alpha (H, W)` with soft edges."""

    bgr: Picture
    alpha: Alpha


@dataclass(frozen=True)
class Ground:
    """A background: a photograph, or the part `region_xywh` of it that shows none of the classes.

    `tints` are BGR factors for grey photographs, one chosen per scene; an empty tuple leaves the colours as they are.
    """

    album: str
    author: str
    file: str
    region_xywh: tuple[int, int, int, int]
    tints: tuple[tuple[float, float, float], ...] = ()


_EARTH = ((0.62, 0.78, 0.95), (0.80, 0.88, 0.98), (0.55, 0.62, 0.72))
_GREEN = ((0.45, 0.80, 0.62), (0.50, 0.75, 0.75), (0.40, 0.62, 0.45))
_BRICK = ((0.55, 0.62, 0.95), (0.75, 0.80, 0.92), (0.85, 0.80, 0.75))
_COOL = ((1.00, 0.90, 0.80), (0.95, 0.95, 0.95), (0.80, 0.70, 0.62))
_PAPER = ((0.86, 0.95, 1.00), (1.00, 1.00, 1.00), (0.78, 0.90, 0.98))

#: One album per background photograph: its scenes share page and author, so that a release's groups keep it in one split.
GROUNDS = (
    Ground("brick-lane", "Ines Moreau", "brick.png", (0, 0, 512, 512), _BRICK),
    Ground("long-grass", "Tomasz Wilk", "grass.png", (0, 0, 512, 512), _GREEN),
    Ground("gravel-yard", "Aiko Sato", "gravel.png", (0, 0, 512, 512), _EARTH),
    Ground("cafe-table", "Lena Brandt", "coffee.png", (475, 0, 125, 400)),
    Ground("workshop", "Owen Price", "motorcycle_left.png", (0, 0, 330, 105)),
    Ground("launch-pad", "Dana Ortiz", "rocket.jpg", (0, 0, 290, 427)),
    Ground("portrait-studio", "Paul Nash", "astronaut.png", (90, 0, 60, 150)),
    Ground("campus-lawn", "Ravi Menon", "camera.png", (330, 210, 182, 302), _GREEN),
    Ground("moon-atlas", "Greta Lind", "moon.png", (0, 0, 512, 512), _COOL),
    Ground("night-sky", "Hugo Alves", "hubble_deep_field.jpg", (0, 0, 1000, 872)),
    Ground("eye-clinic", "Mina Rahimi", "retina.jpg", (300, 300, 820, 820)),
    Ground("tissue-lab", "Jonas Berg", "ihc.png", (0, 0, 512, 512)),
    Ground("lecture-notes", "Clara Weiss", "page.png", (0, 0, 384, 191), _PAPER),
    Ground("blackboard", "Sipho Dube", "text.png", (0, 0, 448, 172), _COOL),
    Ground("cat-blanket", "Yara Haddad", "chelsea.png", (0, 0, 451, 300)),
    Ground("grey-wall", "Nils Aasen", "clock_motion.png", (0, 0, 400, 300), _COOL),
)


@cache
def folder() -> Path:
    """Where scikit-image keeps its photographs.

    Raises:
        MissingServiceError: scikit-image is not installed, or comes without them.
    """
    spec = importlib.util.find_spec("skimage")
    place = Path(spec.origin).parent / "data" if spec and spec.origin else None
    if place is None or not (place / "coins.png").is_file():
        raise MissingServiceError("the demo's photographs are missing; `pip install scikit-image` brings them")
    return place


def photograph(name: str) -> Picture:
    """One of scikit-image's photographs as `(H, W, 3)` BGR."""
    try:
        with Image.open(folder() / name) as picture:  # Pillow: OpenCV's libpng prints about the colour profile of one of them
            return np.asarray(picture.convert("RGB"))[..., ::-1].copy()
    except OSError as error:
        raise MissingServiceError(f"the photograph {name} cannot be read from {folder()}; reinstall scikit-image") from error


@cache
def ground(index: int) -> Picture:
    """The picture of `GROUNDS[index]`, cut to its region."""
    entry = GROUNDS[index]
    x, y, width, height = entry.region_xywh
    return photograph(entry.file)[y : y + height, x : x + width].copy()


@cache
def things(name: str) -> tuple[Cutout, ...]:
    """All cut-outs of a class."""
    makers = {"coin": _coins, "cup": _cups, "motorcycle": _motorcycles}
    return tuple(makers[name]())


@cache
def clutter() -> tuple[Cutout, ...]:
    """Things that are none of the classes, some of them like one: discs for coins, a ball for cups, a face, a rocket."""
    return (
        _cut(photograph("astronaut.png"), _polygon((512, 512), _PERSON)),
        _cut(photograph("color.png"), _ellipse((370, 371), (185, 185), (180, 180))),
        _cut(photograph("retina.jpg"), _ellipse((1411, 1411), (705, 705), (690, 690)), shrink=4),
        _cut(photograph("clock_motion.png"), _ellipse((300, 400), (193, 156), (84, 64))),
        _cut(photograph("rocket.jpg"), _polygon((427, 640), _ROCKET)),
        _cut(photograph("logo.png"), _ellipse((500, 500), (247, 250), (238, 238)), shrink=2),
        _cut(photograph("page.png"), _polygon((191, 384), ((4, 4), (380, 4), (380, 187), (4, 187)))),
        _cut(photograph("ihc.png"), _ellipse((512, 512), (256, 256), (250, 250)), shrink=2),
    )


_PERSON = (
    (178, 511), (26, 440), (28, 330), (70, 230), (115, 190), (150, 152), (180, 125), (156, 95), (160, 50), (200, 20), (250, 18),
    (294, 45), (302, 90), (270, 130), (300, 190), (340, 250), (360, 340), (345, 380), (300, 400), (280, 450), (278, 511),
)  # fmt: skip
_ROCKET = (
    (310, 425), (309, 350), (309, 170), (311, 145), (318, 130), (323, 126), (328, 130), (334, 145), (335, 170), (336, 350), (336, 425),
)  # fmt: skip
_SPOON = ((404, 96), (414, 68), (424, 70), (424, 84), (412, 122))


def _coins() -> list[Cutout]:
    picture = photograph("coins.png")
    grey = cv2.GaussianBlur(picture[..., 0], (0, 0), 1.5)
    background = cv2.GaussianBlur(cv2.morphologyEx(grey, cv2.MORPH_OPEN, np.ones((71, 71), np.uint8)), (0, 0), 15)
    _, mask = cv2.threshold(cv2.subtract(grey, background), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    found = [cv2.fitEllipse(cv2.convexHull(line)) for line in outlines if cv2.contourArea(cv2.convexHull(line)) > 600]
    cutouts = []
    for ellipse in sorted(found, key=lambda entry: (round(entry[0][1] / 60), entry[0][0])):
        disc = np.zeros(grey.shape, np.uint8)
        cv2.ellipse(disc, ellipse, 255, -1)
        cutouts.append(_cut(picture, disc))
    return cutouts


def _cups() -> list[Cutout]:
    shape = (400, 600)
    with_saucer = _ellipse(shape, (277, 231), (199, 155)) | _ellipse(shape, (290, 112), (117, 94)) | _polygon(shape, _SPOON)
    return [_cut(photograph("coffee.png"), with_saucer)]


def _motorcycles() -> list[Cutout]:
    """The nearest thing in a real stereo pair: what stands out of the floor by its disparity."""
    with np.load(folder() / "motorcycle_disp.npz") as stored:
        disparity = np.where(np.isfinite(stored["arr_0"]), stored["arr_0"], 0).astype(np.float32)
    floor = np.median(disparity[:, :100], axis=1, keepdims=True)  # the strip at the left shows floor only, from row 300 down
    floor[:300] = 0
    near = ((disparity > 36) & (disparity > floor + 0.9)).astype(np.uint8) * 255
    near = cv2.morphologyEx(near, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(near)
    body = np.where(labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])), 255, 0).astype(np.uint8)
    return [_cut(photograph("motorcycle_left.png"), body)]


def _ellipse(shape: tuple[int, int], center: tuple[int, int], axes: tuple[int, int]) -> Picture:
    mask = np.zeros(shape, np.uint8)
    cv2.ellipse(mask, center, axes, 0, 0, 360, 255, -1)
    return mask


def _polygon(shape: tuple[int, int], points: tuple[tuple[int, int], ...]) -> Picture:
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.array(points, np.int32)], 255)
    return mask


def _cut(picture: Picture, mask: Any, shrink: int = 1) -> Cutout:
    """The part of a picture under a mask, cropped, its edge taken `shrink` pixels inwards and softened."""
    tight = cv2.erode(mask, np.ones((2 * shrink + 1, 2 * shrink + 1), np.uint8))
    alpha = cv2.GaussianBlur(tight, (0, 0), 1.2).astype(np.float32) / 255
    x, y, width, height = cv2.boundingRect(tight)
    window = np.s_[max(y - 3, 0) : y + height + 3, max(x - 3, 0) : x + width + 3]
    return Cutout(picture[window].copy(), alpha[window])

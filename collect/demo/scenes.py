"""Scenes like photographs, with known boxes: things of three classes and clutter laid on real backgrounds.

Every scene is a function of `(seed, index)`. A thing is scaled, turned, tilted in perspective, tinted and shaded, throws a
soft shadow and may hide another; the whole is lit unevenly, blurred and given noise. A box bounds what can be *seen* of a
thing, as an annotator would draw it: `[x, y, width, height]` in pixels, origin top left.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from PIL import Image

from collect.demo.material import CLASSES, GROUNDS, Alpha, Cutout, Picture, clutter, ground, things
from collect.records import Licence

#: A box as the simulated reviewer knows it: `(class name, (x, y, width, height))`.
Box = tuple[str, tuple[float, float, float, float]]

SIZES_WH = ((640, 480), (480, 640), (512, 512), (640, 427), (427, 640), (400, 300), (320, 400), (560, 420))
#: Longest side of a thing as a share of the scene's shorter side.
SPAN = {"coin": (0.10, 0.32), "cup": (0.22, 0.65), "motorcycle": (0.32, 0.90), "clutter": (0.15, 0.60)}
#: BGR factors of metals, and hue shifts (OpenCV's half degrees) of glazes and paints.
METALS = ((0.62, 0.80, 0.92), (0.45, 0.70, 0.92), (0.42, 0.55, 0.80), (0.85, 0.88, 0.90), (0.70, 0.74, 0.76))
HUE_SHIFTS = (0, 0, 0, 8, 20, 60, 100, 150)
LEAST_SEEN = 0.45


@dataclass(frozen=True)
class Scene:
    """One scene: JPEG bytes, what is in it and whose it says it is. `album` names its background's group."""

    index: int
    jpeg: bytes = field(repr=False)
    size_wh: tuple[int, int]
    boxes: tuple[Box, ...]
    topic: str
    album: str
    author: str
    licence: Licence
    title: str
    tags: tuple[str, ...]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.jpeg).hexdigest()


@dataclass
class _Layer:
    """A thing already laid: its alpha on the whole canvas, and what later things left visible of it."""

    name: str
    alpha: Alpha
    area: float
    seen: Alpha


def make_scenes(number: int = 300, seed: int = 0) -> list[Scene]:
    """`number` distinct scenes; equal arguments give equal bytes (with one version of OpenCV)."""
    return [make_scene(index, seed) for index in range(number)]


def make_scene(index: int, seed: int = 0) -> Scene:
    """Scene `index` of the set `seed`. Topics take turns, albums too; one scene in twelve shows no thing of any class."""
    rng = np.random.default_rng((seed, index))
    topic, place = CLASSES[index % len(CLASSES)], (index // len(CLASSES)) % len(GROUNDS)
    size_wh = SIZES_WH[int(rng.integers(len(SIZES_WH)))]
    canvas = _background(rng, place, size_wh)
    layers: list[_Layer] = []
    for name in _cast(rng, topic, empty=rng.random() < 1 / 12):
        canvas = _lay(rng, canvas, layers, name)
    canvas = _light(rng, canvas)
    jpeg = _develop(rng, canvas, sideways=index % 40 == 17)
    entry = GROUNDS[place]
    return Scene(
        index, jpeg, size_wh, tuple(_boxes(layers)), topic, entry.album, entry.author, _licence(rng, index, entry.author),
        *_words(rng, topic, entry.album),
    )  # fmt: skip


def _cast(rng: np.random.Generator, topic: str, *, empty: bool) -> list[str]:
    """What a scene shows, in the order of laying."""
    names = ["clutter"] * int(rng.integers(1, 4))
    if not empty:
        others = [str(name) for name in rng.choice(CLASSES, int(rng.integers(0, 3)), p=(0.5, 0.3, 0.2))]
        names += [topic] * int(rng.integers(2, 6) if topic == "coin" else rng.integers(1, 3)) + others
    order = sorted(range(len(names)), key=lambda entry: (names[entry] == "coin", rng.random()))  # small things lie on large ones
    return [names[entry] for entry in order]


def _background(rng: np.random.Generator, place: int, size_wh: tuple[int, int]) -> Picture:
    picture, (width, height) = ground(place), size_wh
    share = rng.uniform(0.55, 1.0)
    scale = min(picture.shape[1] / width, picture.shape[0] / height) * share
    cut_w, cut_h = max(int(width * scale), 8), max(int(height * scale), 8)
    x = int(rng.integers(picture.shape[1] - cut_w + 1))
    y = int(rng.integers(picture.shape[0] - cut_h + 1))
    part = picture[y : y + cut_h, x : x + cut_w]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    part = cv2.resize(part, size_wh, interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC)
    tints = GROUNDS[place].tints
    if tints:
        part = _tinted(part, tints[int(rng.integers(len(tints)))])
    if rng.random() < 0.4:  # a shallow depth of field
        part = cv2.GaussianBlur(part, (0, 0), float(rng.uniform(0.8, 2.5)))
    return np.asarray(part, np.uint8)


def _lay(rng: np.random.Generator, canvas: Picture, layers: list[_Layer], name: str) -> Picture:
    """Put one thing on the canvas where it hides no earlier one too much; gives up after eight places."""
    height, width = canvas.shape[:2]
    pool = clutter() if name == "clutter" else things(name)
    low, high = SPAN[name]
    span_px = min(width, height) * low * (high / low) ** rng.random()
    bgr, alpha = _posed(rng, _painted(rng, pool[int(rng.integers(len(pool)))], name), name, span_px)
    for _ in range(8):
        spot = _spot(rng, (height, width), alpha)
        whole = np.zeros((height, width), np.float32)
        window, part = spot
        whole[window] = alpha[part]
        area = float(alpha.sum())
        if whole.sum() < 0.6 * area:
            continue
        seen = [layer.seen * (1 - whole) for layer in layers]
        kept = all(after.sum() >= LEAST_SEEN * layer.area for after, layer in zip(seen, layers, strict=True) if layer.name != "clutter")
        if kept:
            for after, layer in zip(seen, layers, strict=True):
                layer.seen = after
            layers.append(_Layer(name, whole, area, whole))
            return _pasted(rng, canvas, bgr[part], whole, window)
    return canvas


def _spot(rng: np.random.Generator, size_hw: tuple[int, int], alpha: Alpha) -> tuple[Any, Any]:
    """A random place, partly outside now and then: the window of the canvas, and the part of the thing that lies in it."""
    (height, width), (tall, wide) = size_hw, alpha.shape
    x = int(rng.uniform(-0.2 * wide, width - 0.8 * wide))
    y = int(rng.uniform(-0.2 * tall, height - 0.8 * tall))
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + wide, width), min(y + tall, height)
    return np.s_[top:bottom, left:right], np.s_[top - y : bottom - y, left - x : right - x]


def _painted(rng: np.random.Generator, thing: Cutout, name: str) -> Cutout:
    """Another metal, glaze or paint, and another brightness."""
    bgr = thing.bgr
    if name == "coin":
        bgr = _tinted(bgr, METALS[int(rng.integers(len(METALS)))])
    elif name in {"cup", "motorcycle"}:
        hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + HUE_SHIFTS[int(rng.integers(len(HUE_SHIFTS)))]) % 180
        bgr = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)
    return Cutout(np.asarray(cv2.convertScaleAbs(bgr, alpha=float(rng.uniform(0.7, 1.2))), np.uint8), thing.alpha)


def _posed(rng: np.random.Generator, thing: Cutout, name: str, span_px: float) -> Cutout:
    """The thing at its size, mirrored, turned and tilted in perspective."""
    scale = span_px / max(thing.alpha.shape)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    bgr = cv2.resize(thing.bgr, None, fx=scale, fy=scale, interpolation=method)
    alpha = cv2.resize(thing.alpha, (bgr.shape[1], bgr.shape[0]), interpolation=method)
    if rng.random() < 0.5:
        bgr, alpha = bgr[:, ::-1].copy(), alpha[:, ::-1].copy()
    height, width = alpha.shape
    turn = np.deg2rad(rng.uniform(-180, 180) if name == "coin" else rng.normal(0, 10))
    corners = np.array([(-width, -height), (width, -height), (width, height), (-width, height)], np.float32) / 2
    tilt = np.array((1.0, rng.uniform(0.65, 1.0) if name == "coin" else rng.uniform(0.85, 1.1)))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    target = (corners @ rotation.T) * tilt + rng.uniform(-0.07, 0.07, (4, 2)) * (width, height)
    target -= target.min(axis=0) - 2
    size = tuple(int(value) for value in np.ceil(target.max(axis=0)) + 2)
    matrix = cv2.getPerspectiveTransform(corners + np.array((width, height), np.float32) / 2, target.astype(np.float32))
    return Cutout(
        np.asarray(cv2.warpPerspective(bgr, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.uint8),
        np.clip(cv2.warpPerspective(alpha, matrix, size), 0, 1).astype(np.float32),
    )


def _pasted(rng: np.random.Generator, canvas: Picture, bgr: Picture, whole: Alpha, window: Any) -> Picture:
    """The canvas with a thing on it, over the soft shadow that it throws."""
    spread = 0.03 * min(canvas.shape[:2])
    shift = rng.uniform(-1, 1, 2) * spread
    small = cv2.resize(whole, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    moved = cv2.warpAffine(small, np.array([[1, 0, shift[0] / 4], [0, 1, spread / 8 + abs(shift[1]) / 4]]), small.shape[::-1])
    soft = cv2.resize(cv2.GaussianBlur(moved, (0, 0), max(spread / 8, 0.6)), whole.shape[::-1])
    shaded = canvas * (1 - float(rng.uniform(0.3, 0.65)) * soft[..., None])
    alpha = whole[window][..., None]
    shaded[window] = shaded[window] * (1 - alpha) + bgr * alpha
    return np.asarray(shaded, np.uint8)


def _light(rng: np.random.Generator, canvas: Picture) -> Picture:
    """One light for the whole scene: a gradient, a colour temperature, an exposure, a vignette at times."""
    height, width = canvas.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.array((height, width), np.float32)[:, None, None] - 0.5
    direction, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.6)
    field_hw = 1 + strength * (np.cos(direction) * x + np.sin(direction) * y)
    if rng.random() < 0.4:
        field_hw *= 1 - rng.uniform(0.4, 0.9) * (x**2 + y**2)
    warmth = rng.normal(0, 0.06)
    exposure = rng.uniform(0.65, 1.25)
    colour = np.array((1 - warmth, 1.0, 1 + warmth), np.float32) * exposure
    return np.asarray(np.clip(canvas * (field_hw[..., None] * colour), 0, 255), np.uint8)


def _develop(rng: np.random.Generator, canvas: Picture, *, sideways: bool) -> bytes:
    """Camera shake or missed focus at times, sensor noise, JPEG; `sideways` as telephones store it, with an EXIF orientation."""
    chance = rng.random()
    if chance < 0.25:
        canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.6, 1.6))), np.uint8)
    elif chance < 0.4:
        length = int(rng.integers(3, 8))
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1 / length
        turn = cv2.getRotationMatrix2D((length / 2 - 0.5, length / 2 - 0.5), float(rng.uniform(0, 180)), 1)
        kernel = np.asarray(cv2.warpAffine(kernel, turn, (length, length)), np.float32)
        canvas = np.asarray(cv2.filter2D(canvas, -1, kernel / kernel.sum()), np.uint8)
    noise = rng.standard_normal(canvas.shape[:2], np.float32)[..., None] * np.float32(rng.uniform(1, 7))
    canvas = np.asarray(np.clip(canvas + noise, 0, 255), np.uint8)
    quality = int(rng.integers(72, 95))
    if sideways:
        return _turned(canvas, quality)
    _, data = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)


def _turned(canvas: Picture, quality: int) -> bytes:
    """JPEG whose pixels lie on their side and whose EXIF tag 6 sets them upright: the boxes are those of the upright picture."""
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate 90° clockwise to see it", so the pixels are turned the other way
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(np.rot90(canvas)[..., ::-1])).save(buffer, "JPEG", quality=quality, exif=exif)
    return buffer.getvalue()


def _boxes(layers: list[_Layer]) -> list[Box]:
    boxes: list[Box] = []
    for layer in layers:
        if layer.name != "clutter":
            x, y, width, height = cv2.boundingRect((layer.seen > 0.5).astype(np.uint8))
            boxes.append((layer.name, (float(x), float(y), float(width), float(height))))
    return boxes


def _tinted(picture: Picture, factors: tuple[float, float, float]) -> Picture:
    return np.asarray(np.clip(picture * np.array(factors, np.float32), 0, 255), np.uint8)


_WORDS = {
    "coin": (("coin", "money"), ("coin", "numismatics"), ("currency", "numismatics"), ("coin", "antique")),
    "cup": (("cup", "coffee"), ("cup", "espresso"), ("espresso", "crockery"), ("cup", "saucer")),
    "motorcycle": (("motorcycle", "vehicle"), ("motorcycle", "chopper"), ("motorbike", "chopper"), ("motorcycle", "street")),
}
_LICENCES = (("by", "4.0"), ("by-sa", "4.0"), ("by", "2.0"), ("cc0", "1.0"), ("by-sa", "3.0"), ("by", "4.0"), ("pdm", "1.0"))


def _words(rng: np.random.Generator, topic: str, album: str) -> tuple[str, tuple[str, ...]]:
    """Title and tags. Some scenes answer to a neighbouring word only: the planner has to follow suggestions to find them."""
    first, second = _WORDS[topic][int(rng.integers(len(_WORDS[topic])))]
    return f"{first}, {album.replace('-', ' ')}", (first, second, album)


def _licence(rng: np.random.Generator, index: int, author: str) -> Licence:
    """Most are free for reuse; one in fourteen is not (`by-nc`)."""
    kind, version = ("by-nc", "2.0") if index % 14 == 6 else _LICENCES[int(rng.integers(len(_LICENCES)))]
    public = kind in {"cc0", "pdm"}
    spdx = {"cc0": "CC0-1.0", "pdm": "PDM-1.0"}.get(kind, f"CC-{kind.upper()}-{version}")
    part = {"cc0": "publicdomain/zero", "pdm": "publicdomain/mark"}.get(kind, f"licenses/{kind}")
    return Licence(spdx=spdx, url=f"https://creativecommons.org/{part}/{version}/", creator="" if public and index % 2 else author)

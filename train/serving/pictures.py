"""Where pictures to detect on come from: files, folders, videos, a camera."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from collect.errors import MissingServiceError, NotFoundError, UsageError
from train.data.cache import UnreadableError, decode

IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"}


@dataclass(frozen=True)
class Frame:
    """One picture, RGB and upright. `name` counts from the folder given; `place` is the frame's number in a video, -1 for a picture."""

    source: str
    name: str
    pixels_HW3: NDArray[np.uint8]
    place: int = -1


@dataclass(frozen=True)
class Unreadable:
    """A file that is no picture, and why; the others go on."""

    source: str
    why: str


def frames(words: list[str], seconds: float = 0.0, without: Path | None = None) -> Iterator[Frame | Unreadable]:
    """Pictures of files, videos, folders with either (recursively, by name), and `camera` or `camera:N`.

    `seconds` bounds the time a camera is read, 0 = until it ends. What lies in the folder `without` is not read.

    Raises:
        NotFoundError: no such file, or no picture in a folder.
        UsageError: a file is neither picture nor video, or a camera has no number.
        MissingServiceError: the camera or video cannot be opened.
    """
    for word in words:
        if word == "camera" or word.startswith("camera:"):
            yield from _video(word, _camera(word), seconds)
            continue
        path = Path(word)
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in IMAGES | VIDEOS]
            files = [file for file in files if without is None or not file.resolve().is_relative_to(without.resolve())]
            if not files:
                raise NotFoundError(f"there is no picture and no video in {word} ({', '.join(sorted(IMAGES | VIDEOS))})")
            for file in files:
                try:
                    yield from _file(file, str(file.relative_to(path)))
                except MissingServiceError as error:
                    yield Unreadable(str(file), str(error))  # one of many: the others go on
        elif not path.is_file():
            raise NotFoundError(f"there is no {word}")
        elif path.suffix.lower() in IMAGES | VIDEOS:
            yield from _file(path, path.name)
        else:
            raise UsageError(f"{word} is neither a picture ({', '.join(sorted(IMAGES))}) nor a video ({', '.join(sorted(VIDEOS))})")


def _camera(word: str) -> int:
    number = word.partition(":")[2] or "0"
    if not number.isdecimal():
        raise UsageError(f"'{word}' names no camera; write camera, or camera:N with its number")
    return int(number)


def _file(path: Path, name: str) -> Iterator[Frame | Unreadable]:
    if path.suffix.lower() in VIDEOS:
        yield from _video(str(path), str(path), 0.0)
    else:
        yield _picture(path, name)


def _picture(path: Path, name: str) -> Frame | Unreadable:
    try:
        return Frame(str(path), name, decode(path))
    except UnreadableError as error:
        return Unreadable(str(path), str(error))


def _video(word: str, where: int | str, seconds: float) -> Iterator[Frame]:
    capture = cv2.VideoCapture(where)
    if not capture.isOpened():
        raise MissingServiceError(f"{word} cannot be opened as a video; is the camera there, or the file whole?")
    started, place = time.monotonic(), 0
    stem = Path(word).stem if isinstance(where, str) else word.replace(":", "-")
    try:
        while not seconds or time.monotonic() - started < seconds:
            good, bgr = capture.read()
            if not good:
                return
            yield Frame(word, f"{stem}-{place:06d}.jpg", np.asarray(bgr[:, :, ::-1], dtype=np.uint8), place)
            place += 1
    finally:
        capture.release()


def video_name(source: str) -> str:
    """What the annotated copy of a video is called.

    >>> video_name("clips/day.avi"), video_name("camera:1")
    ('day.detected.mp4', 'camera-1.detected.mp4')
    """
    return f"{Path(source).stem.replace(':', '-')}.detected.mp4"


class VideoWriter:
    """Writes frames into a file at the frame rate of the source.

    Raises:
        UsageError: at the first frame, if the file cannot be written.
    """

    def __init__(self, source: str, path: Path) -> None:
        capture = cv2.VideoCapture(source) if not source.startswith("camera") else None
        self.rate = (capture.get(cv2.CAP_PROP_FPS) if capture else 0.0) or 15.0
        if capture:
            capture.release()
        self.path = path
        self._writer: cv2.VideoWriter | None = None

    def write(self, pixels_HW3: NDArray[np.uint8]) -> None:
        height, width = pixels_HW3.shape[:2]
        if self._writer is None:
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*"mp4v"), self.rate, (width, height))
            if not self._writer.isOpened():
                raise UsageError(f"cannot write {self.path}; choose another --out")
        self._writer.write(np.ascontiguousarray(pixels_HW3[:, :, ::-1]))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()

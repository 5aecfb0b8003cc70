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


def frames(words: list[str], seconds: float = 0.0) -> Iterator[Frame | Unreadable]:
    """Pictures of files, folders (recursively, by name), videos, and `camera` or `camera:N`.

    `seconds` bounds the time a camera is read, 0 = until it ends.

    Raises:
        NotFoundError: no such file, or no picture in a folder.
        UsageError: a file is neither picture nor video.
        MissingServiceError: the camera or video cannot be opened.
    """
    for word in words:
        if word == "camera" or word.startswith("camera:"):
            yield from _video(word, int(word.partition(":")[2] or 0), seconds)
            continue
        path = Path(word)
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in IMAGES]
            if not files:
                raise NotFoundError(f"there is no picture in {word} ({', '.join(sorted(IMAGES))}); a video is named by itself")
            for file in files:
                yield _picture(file, str(file.relative_to(path)))
        elif not path.is_file():
            raise NotFoundError(f"there is no {word}")
        elif path.suffix.lower() in VIDEOS:
            yield from _video(word, str(path), 0.0)
        elif path.suffix.lower() in IMAGES:
            yield _picture(path, path.name)
        else:
            raise UsageError(f"{word} is neither a picture ({', '.join(sorted(IMAGES))}) nor a video ({', '.join(sorted(VIDEOS))})")


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


class VideoWriter:
    """Writes frames into `<stem>.detected.mp4`, at the frame rate of the source."""

    def __init__(self, source: str, folder: Path) -> None:
        capture = cv2.VideoCapture(source) if not source.startswith("camera") else None
        self.rate = (capture.get(cv2.CAP_PROP_FPS) if capture else 0.0) or 15.0
        if capture:
            capture.release()
        self.path = folder / f"{Path(source).stem.replace(':', '-')}.detected.mp4"
        self._writer: cv2.VideoWriter | None = None

    def write(self, pixels_HW3: NDArray[np.uint8]) -> None:
        height, width = pixels_HW3.shape[:2]
        if self._writer is None:
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*"mp4v"), self.rate, (width, height))
        self._writer.write(np.ascontiguousarray(pixels_HW3[:, :, ::-1]))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()

"""`video:FILE`: frames of a video, one for each step of time, the first frames of new scenes preferred.

The step is `frame_step_s` under `[collect.options.video]`, one second where nothing is said.

A frame is named by `file:///…/v.mp4#frame=123`. The frames of one video share a group, so that no split tears them apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

import cv2
import numpy as np
import numpy.typing as npt

from collect.errors import NotFoundError, UsageError, unknown_name
from collect.records import Candidate
from collect.sources.local import existing, path_of
from collect.sources.source import Page, SourceSettings, page_of, stated_licence

PAGE_SIZE = 200
#: Side of the grey thumbnail on which scenes are told apart.
_THUMBNAIL_PX = 32
#: Mean difference of grey levels (of 255) between two frames from which a new scene is taken to begin.
_NEW_SCENE = 30.0
_JPEG_QUALITY = 95
Frame = npt.NDArray[np.uint8]


def frame_number(url: str) -> int:
    """The frame that a candidate's URL names, counted from 0.

    Raises:
        UsageError: the URL names none.
    """
    fragment = urldefrag(url).fragment
    if not fragment.startswith("frame=") or not fragment[6:].isdigit():
        raise UsageError(f"'{url}' names no frame; write file:///…/video.mp4#frame=123")
    return int(fragment[6:])


class Video:
    """Takes frames of one video file.

    Raises:
        NotFoundError: there is no such file, or OpenCV cannot read it as a video.
        UsageError: an option is unknown, or no time.
    """

    terms = "open"

    def __init__(self, name: str, settings: SourceSettings) -> None:
        self.name = name
        step_s = _step_s(settings)
        self._path = existing(Path(name.partition(":")[2]))
        self._reader = _Reader(self._path)
        self._step_frames = max(1, round(step_s * self._reader.frames_per_second))
        self._stated = stated_licence(settings)

    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        """Up to two hundred frames from frame `cursor` on."""
        numbers, following = self._pick(int(cursor or 0))
        candidates = [
            Candidate(
                url=f"{self._path.as_uri()}#frame={number}",
                source=self.name,
                query=query,
                class_name=class_name,
                rank=number,
                title=f"{self._path.name}, frame {number}",
                licence=self._stated,
                group=self._path.as_uri(),
            )
            for number in numbers
        ]
        return page_of(candidates, str(following) if following is not None else None, detail=f"{self._path} has no frames left")

    def read(self, candidate: Candidate) -> bytes:
        """A frame as JPEG, upright."""
        if path_of(candidate.url) != self._path:
            raise NotFoundError(f"{candidate.url} is no frame of {self._path}")
        frame = self._reader.frame(frame_number(candidate.url))
        encoded, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        assert encoded, "OpenCV encodes any 8-bit picture as JPEG"
        return bytes(data)

    def close(self) -> None:
        self._reader.close()

    def _pick(self, start: int) -> tuple[list[int], int | None]:
        """Frames to take from `start` on, and where the next page starts; None at the end of the video.

        Of each step its scene changes are taken, and where it has none its first frame.
        """
        taken: list[int] = []
        changes: list[int] = []
        before = self._reader.thumbnail(start - 1) if start else None
        number = start
        while (thumbnail := self._reader.thumbnail(number)) is not None:
            if before is not None and float(np.abs(thumbnail.astype(np.int16) - before).mean()) >= _NEW_SCENE:
                changes.append(number)
            before = thumbnail
            number += 1
            if (number - start) % self._step_frames == 0:
                taken += changes or [number - self._step_frames]
                changes = []
                if len(taken) >= PAGE_SIZE:
                    return taken, number
        begun = (number - start) % self._step_frames
        return taken + (changes or ([number - begun] if begun else [])), None


def _step_s(settings: SourceSettings) -> float:
    """Seconds between two frames."""
    for option in settings.options:
        if option != "frame_step_s":
            raise unknown_name("option of video", option, ["frame_step_s"])
    said = settings.options.get("frame_step_s", "1")
    try:
        step_s = float(said)
    except ValueError:
        step_s = 0.0
    if not 0 < step_s < float("inf"):
        raise UsageError(f"frame_step_s is '{said}'; it is the number of seconds between two frames, above 0")
    return step_s


class _Reader:
    """One open video, read forward; going back starts it anew, since seeking is not exact in every codec."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0
        self._capture: Any = None
        capture = self._open()
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        self.frames_per_second = rate if 0 < rate < 1000 else 25.0

    def frame(self, number: int) -> Frame:
        """Frame `number`, upright, BGR, `(H, W, 3)`.

        Raises:
            NotFoundError: the video ends before it.
        """
        frame = self._at(number)
        if frame is None:
            raise NotFoundError(f"{self._path} has no frame {number}")
        return frame

    def thumbnail(self, number: int) -> Frame | None:
        """Frame `number` in grey, `(32, 32)`; None after the end."""
        frame = self._at(number)
        if frame is None:
            return None
        small = cv2.resize(frame, (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), dtype=np.uint8)

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _open(self) -> Any:
        self.close()
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise NotFoundError(f"{self._path} cannot be read as a video; convert it to MP4 (H.264) with ffmpeg")
        self._capture, self._next = capture, 0
        return capture

    def _at(self, number: int) -> Frame | None:
        if self._capture is None or number < self._next:
            self._open()
        while self._next < number:
            if not self._capture.grab():
                return None
            self._next += 1
        read, frame = self._capture.read()
        self._next += 1
        return np.asarray(frame, dtype=np.uint8) if read else None

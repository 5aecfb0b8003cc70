"""`boxwright detect`: run a trained detector on pictures, folders, video or camera."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
from numpy.typing import NDArray

from collect.console import Console
from collect.errors import UsageError
from collect.files import safe_join, storage_errors, write_atomic
from train.detectors.detector import Detections
from train.judging.run_files import best_f1_score
from train.serving.draw import draw
from train.serving.pictures import VIDEOS, Frame, Unreadable, VideoWriter, frames
from train.serving.predictor import Predictor
from train.serving.tiles import Tiling

#: Of a run that was judged on nothing.
_USUAL = 0.3


class Detect:
    """Writes annotated pictures or video, and detections.json."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", help="a run: its name, NAME/RUN, NAME/champion or its folder")
        parser.add_argument("paths", nargs="+", metavar="PATH", help="pictures, folders, videos, or camera[:N]")
        parser.add_argument("--out", type=Path, default=Path("detections"), metavar="DIR", help="where to write (default: %(default)s)")
        parser.add_argument("--threshold", type=float, metavar="S", help="least score (default: where the run's F1 was best)")
        parser.add_argument("--tiles", type=int, default=0, metavar="PX", help="also look at tiles of this side, for small objects")
        parser.add_argument("--device", default="auto", help="cpu, cuda (default: what there is)")
        parser.add_argument("--seconds", type=float, default=0.0, help="how long to read a camera (default: until Ctrl-C)")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
            raise UsageError(f"--threshold {arguments.threshold} is no score; give a number from 0 to 1")
        for word in arguments.paths:
            if arguments.out.resolve() in {Path(word).resolve(), Path(word).resolve().parent} and Path(word).suffix.lower() not in VIDEOS:
                raise UsageError(
                    f"--out {arguments.out} is where {word} lies: the annotated pictures would replace yours; give another folder"
                )
        tiling = Tiling(arguments.tiles) if arguments.tiles else None
        run_path = console.workspace.run_path(arguments.run)
        predictor = Predictor.from_run(run_path, arguments.device, tiling)
        work = _Work(predictor, arguments.out, _least_score(run_path, arguments.threshold), console.dry_run)
        try:
            for item in console.track(frames(arguments.paths, arguments.seconds), "detecting"):
                work.take(item)
        except KeyboardInterrupt:
            console.say("stopped; what was seen until now is written")
        finally:
            work.close()
        for unreadable in work.unreadable:
            console.say(f"{unreadable['source']}: {unreadable['why']}")
        boxes = sum(len(entry["detections"]) for entry in work.entries)
        lost = f", {len(work.unreadable):,} could not be read" if work.unreadable else ""
        found = f"{boxes:,} detections from score {work.threshold:.2f} on in {len(work.entries):,} pictures{lost}"
        if console.dry_run:
            console.out(f"{found}; would write them to {arguments.out}")
        else:
            write_atomic(arguments.out / "detections.json", orjson.dumps(work.document(), option=orjson.OPT_INDENT_2))
            console.out(f"{found}; see {arguments.out}")
        return work.document()


def _least_score(run_path: Path, given: float | None) -> float:
    """What was given, else where the run's own F1 was best, else a usual one."""
    told = best_f1_score(run_path) if given is None else given
    return _USUAL if told is None else told


class _Work:
    def __init__(self, predictor: Predictor, out: Path, threshold: float, dry_run: bool) -> None:
        self.predictor, self.out, self.threshold, self.dry_run = predictor, out, threshold, dry_run
        self.entries: list[dict[str, Any]] = []
        self.unreadable: list[dict[str, str]] = []
        self._videos: dict[str, VideoWriter] = {}
        self._taken: set[Path] = set()

    def document(self) -> dict[str, Any]:
        return {
            "categories": [{"id": category.id, "name": category.name} for category in self.predictor.categories],
            "images": self.entries,
            "unreadable": self.unreadable,
        }

    def take(self, item: Frame | Unreadable) -> None:
        if isinstance(item, Unreadable):
            self.unreadable.append({"source": item.source, "why": item.why})
            return
        (found,) = self.predictor([item.pixels_HW3])
        found = found.take(found.scores_N >= self.threshold)
        self.entries.append(_entry(item, found, self.predictor))
        if not self.dry_run:
            self._write(item, draw(item.pixels_HW3, found, self.predictor.categories))

    def _write(self, frame: Frame, picture: NDArray[np.uint8]) -> None:
        with storage_errors():
            self.out.mkdir(parents=True, exist_ok=True)
            if frame.place >= 0:
                video = self._videos.setdefault(frame.source, VideoWriter(frame.source, self.out))
                video.write(picture)
                return
            path = self._free(safe_join(self.out, frame.name).with_suffix(".jpg"))
            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), picture[:, :, ::-1]):
                raise UsageError(f"cannot write {path}; choose another --out")

    def _free(self, path: Path) -> Path:
        """The path, or one beside it where another picture of this call has it: `a.png` beside `a.jpg`, two folders with equal names."""
        free, number = path, 1
        while free in self._taken:
            number += 1
            free = path.with_stem(f"{path.stem}-{number}")
        self._taken.add(free)
        return free

    def close(self) -> None:
        for video in self._videos.values():
            video.close()


def _entry(frame: Frame, found: Detections, predictor: Predictor) -> dict[str, Any]:
    height, width = frame.pixels_HW3.shape[:2]
    told = [
        {"category_id": predictor.categories[label].id, "category": predictor.categories[label].name, "bbox": box, "score": score}
        for box, score, label in zip(found.boxes_xywh_N4.tolist(), found.scores_N.tolist(), found.labels_N.tolist(), strict=True)
    ]
    entry: dict[str, Any] = {"source": frame.source, "name": frame.name, "width": width, "height": height, "detections": told}
    return entry | ({"frame": frame.place} if frame.place >= 0 else {})


DETECT = Detect()

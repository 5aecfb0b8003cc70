"""`boxwright detect`: run a trained detector on pictures, folders, video or camera."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import orjson
from numpy.typing import NDArray

from collect.console import Console
from collect.errors import UsageError
from collect.files import safe_join, storage_errors, write_atomic
from train.judging.run_files import best_f1_score
from train.serving.draw import draw
from train.serving.pictures import VIDEOS, Frame, Unreadable, VideoWriter, frames, video_name
from train.serving.suppression import across_classes, add_class_overlap, check_class_overlap

if TYPE_CHECKING:
    from train.detectors.detector import Detections
    from train.serving.predictor import Predictor

#: Of a run that was judged on nothing.
_USUAL = 0.3


class Detect:
    """Writes annotated pictures or video, and detections.json: a COCO document whose annotations have scores."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", help="a run: its name, NAME/RUN, NAME/champion or its folder")
        parser.add_argument("paths", nargs="+", metavar="PATH", help="pictures, folders, videos, or camera[:N]")
        parser.add_argument("--out", type=Path, default=Path("detections"), metavar="DIR", help="where to write (default: %(default)s)")
        parser.add_argument("--threshold", type=float, metavar="S", help="least score (default: where the run's F1 was best)")
        parser.add_argument("--tiles", type=int, default=0, metavar="PX", help="also look at tiles of this side, for small objects")
        add_class_overlap(parser)
        parser.add_argument("--device", default="auto", help="cpu, cuda (default: what there is)")
        parser.add_argument("--seconds", type=float, default=0.0, help="how long to read a camera (default: until Ctrl-C)")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
            raise UsageError(f"--threshold {arguments.threshold} is no score; give a number from 0 to 1")
        class_overlap = check_class_overlap(arguments.class_overlap)
        for word in arguments.paths:
            if arguments.out.resolve() in {Path(word).resolve(), Path(word).resolve().parent} and Path(word).suffix.lower() not in VIDEOS:
                raise UsageError(
                    f"--out {arguments.out} is where {word} lies: the annotated pictures would replace yours; give another folder"
                )
        run_path = console.workspace.run_path(arguments.run)
        threshold = _least_score(run_path, arguments.threshold)
        from train.serving.predictor import Predictor  # loads torch: after what can be refused without
        from train.serving.tiles import Tiling

        tiling = Tiling(arguments.tiles) if arguments.tiles else None
        predictor = Predictor.from_run(run_path, arguments.device, tiling)
        work = _Work(predictor, arguments.out, threshold, class_overlap, console.dry_run)
        try:
            for item in console.track(frames(arguments.paths, arguments.seconds, arguments.out), "detecting"):
                work.take(item)
        except KeyboardInterrupt:
            console.say("stopped; what was seen until now is written")
        finally:
            work.close()
        for unreadable in work.unreadable:
            console.say(f"{unreadable['source']}: {unreadable['why']}")
        lost = f", {len(work.unreadable):,} could not be read" if work.unreadable else ""
        found = f"{len(work.boxes):,} detections from score {work.threshold:.2f} on in {len(work.images):,} pictures{lost}"
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
    def __init__(self, predictor: Predictor, out: Path, threshold: float, class_overlap: float, dry_run: bool) -> None:
        self.predictor, self.out, self.dry_run = predictor, out, dry_run
        self.threshold, self.class_overlap = threshold, class_overlap
        self.images: list[dict[str, Any]] = []
        self.boxes: list[dict[str, Any]] = []
        self.unreadable: list[dict[str, str]] = []
        self._videos: dict[str, VideoWriter] = {}
        self._taken: set[Path] = set()

    def document(self) -> dict[str, Any]:
        """COCO, as pycocotools, FiftyOne and `boxwright import` read it; `score`, `source` and `frame` are additions that readers skip."""
        categories = [asdict(category) for category in self.predictor.categories]
        return {"images": self.images, "annotations": self.boxes, "categories": categories, "unreadable": self.unreadable}

    def take(self, item: Frame | Unreadable) -> None:
        if isinstance(item, Unreadable):
            self.unreadable.append({"source": item.source, "why": item.why})
            return
        (found,) = self.predictor([item.pixels_HW3])
        found = across_classes(found.take(found.scores_N >= self.threshold), self.class_overlap)
        self._note(item, found)
        if not self.dry_run:
            self._write(item, draw(item.pixels_HW3, found, self.predictor.categories))

    def _note(self, frame: Frame, found: Detections) -> None:
        height, width = frame.pixels_HW3.shape[:2]
        image = {"id": len(self.images) + 1, "file_name": frame.name, "width": width, "height": height, "source": frame.source}
        self.images.append(image | ({"frame": frame.place} if frame.place >= 0 else {}))
        for box, score, label in zip(found.boxes_xywh_N4.tolist(), found.scores_N.tolist(), found.labels_N.tolist(), strict=True):
            of = {"id": len(self.boxes) + 1, "image_id": image["id"], "category_id": self.predictor.categories[label].id}
            self.boxes.append(of | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0, "score": score})

    def _write(self, frame: Frame, picture: NDArray[np.uint8]) -> None:
        with storage_errors():
            self.out.mkdir(parents=True, exist_ok=True)
            if frame.place >= 0:
                if frame.source not in self._videos:
                    self._videos[frame.source] = VideoWriter(frame.source, self._free(self.out / video_name(frame.source)))
                self._videos[frame.source].write(picture)
                return
            path = self._free(safe_join(self.out, frame.name).with_suffix(".jpg"))
            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), picture[:, :, ::-1]):
                raise UsageError(f"cannot write {path}; choose another --out")

    def _free(self, path: Path) -> Path:
        """The path, or one beside it where another of this call has it: `a.png` beside `a.jpg`, two folders with equal names."""
        free, number = path, 1
        while free in self._taken:
            number += 1
            free = path.with_stem(f"{path.stem}-{number}")
        self._taken.add(free)
        return free

    def close(self) -> None:
        for video in self._videos.values():
            video.close()


DETECT = Detect()

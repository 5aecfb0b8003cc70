"""Who proposes: OpenCV's face detector, a run of ours, and any of them through tiles. (Zero-shot models: `zero_shot`.)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from annotate.review.simulated import Costs
from collect.definition import Definition
from collect.errors import NotFoundError, RefusedError, UsageError
from collect.files import sha256_file
from collect.records import ImageRecord
from train.detectors.face import FaceDetector, find_folder
from train.fitting import config
from train.loop.propose import Found, Proposer, Request, Xywh
from train.loop.threshold import Start, start_of

if TYPE_CHECKING:
    from train.serving.predictor import Predictor

FACE_THRESHOLD = 0.5
_TILE_MARGIN_PX = 2.0


@dataclass(frozen=True)
class FaceProposer:
    """Faces, as the class that the image was found for, else as the definition's class for faces."""

    detector: FaceDetector
    definition: Definition
    threshold: float
    category: str = ""
    name: str = "opencv-face"
    reason: str = ""

    @property
    def weights_sha256(self) -> str:
        return self.detector.weights_sha256

    def propose(self, image_HW3: NDArray[np.uint8], record: ImageRecord) -> list[Found]:
        category = self.category or self._category_of(record)
        boxes, scores = self.detector.detect(image_HW3, self.threshold)
        return [Found(category, cast("Xywh", tuple(box)), score) for box, score in zip(boxes.tolist(), scores.tolist(), strict=True)]

    def _category_of(self, record: ImageRecord) -> str:
        """A face detector knows no classes: the class whose query found the picture is the best first guess."""
        found_for = self.definition.current(record.class_name) if record.class_name else None
        return found_for.name if found_for else face_class(self.definition)


def face_class(definition: Definition) -> str:
    """The class that stands for faces: named `face`, or with that synonym, else the first."""
    for entry in definition.classes:
        if "face" in {entry.name.lower(), *(synonym.lower() for synonym in entry.synonyms)}:
            return entry.name
    return definition.classes[0].name


def open_face(request: Request) -> Proposer:
    """OpenCV's SSD face detector.

    Raises:
        MissingServiceError: its files are not there; says where they are had.
    """
    category = request.definition.class_named(request.category).name if request.category else ""
    detector = FaceDetector(find_folder(request.weights))
    return FaceProposer(detector, request.definition, FACE_THRESHOLD if request.threshold is None else request.threshold, category)


@dataclass(frozen=True)
class RunProposer:
    """A trained run of ours; its categories go by name, former names (`was`) included."""

    predictor: Predictor
    categories: tuple[str | None, ...]
    name: str
    weights_sha256: str
    threshold: float
    reason: str

    def propose(self, image_HW3: NDArray[np.uint8], record: ImageRecord) -> list[Found]:  # noqa: ARG002 - the record is for models without classes
        seen = next(iter(self.predictor([image_HW3])))
        rows = zip(seen.boxes_xywh_N4.tolist(), seen.scores_N.tolist(), seen.labels_N.tolist(), strict=True)
        return [
            Found(category, cast("Xywh", tuple(box)), score)
            for box, score, label in rows
            if score >= self.threshold and (category := self.categories[label])
        ]


def open_run(request: Request) -> Proposer:
    """A run's best checkpoint; `champion` names the dataset's champion.

    Raises:
        NotFoundError: no such run, or no champion yet.
        RefusedError: none of its categories is a class of this dataset, or the class asked for.
    """
    path = request.workspace.run_path(request.model, request.dataset.name)
    trained = config.read(path)
    names = _names(request, [category.name for category in trained.categories], path.name)
    weights_sha256 = _weights_sha256(path)
    costs = Costs(keep_iou=request.definition.annotate.keep_iou)
    start = start_of(path, costs, request.class_overlap) if request.threshold is None else Start(request.threshold, "")
    from train.serving.looks import looks_of  # loads torch: after what can be refused without
    from train.serving.predictor import Predictor
    from train.serving.tiles import Tiling

    predictor = Predictor.from_run(path, request.device or "auto", looks=looks_of(trained.mirror, trained.turn))
    if request.tiles:
        predictor.tiling = Tiling(predictor.detector.image_size)
    return RunProposer(predictor, names, f"{path.parent.name}/{path.name}", weights_sha256, start.score, start.reason)


def _names(request: Request, theirs: Sequence[str], run: str) -> tuple[str | None, ...]:
    """What the dataset calls each category of the run; None for what it does not have, or what was not asked for."""
    entries = [request.definition.current(name) for name in theirs]
    ours = request.definition.class_names
    if not any(entries):
        raise RefusedError(
            f"run {run} knows {', '.join(theirs)}, {request.dataset.name} has {', '.join(ours)}: no category in common; choose another run"
        )
    wanted = {request.definition.class_named(request.category).name} if request.category else set(ours)
    names = tuple(entry.name if entry and entry.name in wanted else None for entry in entries)
    if not any(names):
        raise RefusedError(f"run {run} knows {', '.join(theirs)}, not {request.category}; choose another run or class")
    return names


def _weights_sha256(run: Path) -> str:
    for name in ("best.pt", "last.pt"):
        path = run / "checkpoints" / name
        if path.is_file():
            return sha256_file(path)
    raise NotFoundError(f"{run} has no checkpoint yet; let its training end first")


@dataclass(frozen=True)
class Tiled:
    """Another proposer, shown the whole picture and overlapping tiles of half its size: for small objects."""

    inner: Proposer
    least_px: int = 200

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def weights_sha256(self) -> str:
        return self.inner.weights_sha256

    @property
    def threshold(self) -> float:
        return self.inner.threshold

    @property
    def reason(self) -> str:
        return self.inner.reason

    def propose(self, image_HW3: NDArray[np.uint8], record: ImageRecord) -> list[Found]:
        found = self.inner.propose(image_HW3, record)
        for x, y, tile in tiles(image_HW3, self.least_px):
            height, width = tile.shape[:2]
            for entry in self.inner.propose(np.ascontiguousarray(tile), record):
                if not _cut(entry.xywh, (x, y), (width, height), (image_HW3.shape[1], image_HW3.shape[0])):
                    left, top, w, h = entry.xywh
                    found.append(Found(entry.category, (left + x, top + y, w, h), entry.score, entry.prompt))
        return found


def tiles(image_HW3: NDArray[np.uint8], least_px: int) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Nine overlapping parts of half the width and height, with their places; none where they would be too small."""
    height, width = image_HW3.shape[:2]
    if max(height, width) < 2 * least_px:
        return
    for y in (0, height // 4, height - height // 2):
        for x in (0, width // 4, width - width // 2):
            yield x, y, image_HW3[y : y + height // 2, x : x + width // 2]


def _cut(box_xywh: Xywh, place: tuple[int, int], tile_wh: tuple[int, int], size_wh: tuple[int, int]) -> bool:
    """Whether a box touches an edge of its tile that is no edge of the picture: a part of something larger."""
    low = [box_xywh[axis] <= _TILE_MARGIN_PX and place[axis] > 0 for axis in (0, 1)]
    high = [
        box_xywh[axis] + box_xywh[axis + 2] >= tile_wh[axis] - _TILE_MARGIN_PX and place[axis] + tile_wh[axis] < size_wh[axis]
        for axis in (0, 1)
    ]
    return any(low + high)


def check_threshold(value: float | None) -> float | None:
    """A threshold from the command line.

    Raises:
        UsageError: it is no score.
    """
    if value is not None and not 0 <= value <= 1:
        raise UsageError(f"--threshold {value}: a score lies between 0 and 1")
    return value

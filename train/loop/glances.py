"""What models see in the images that wait: the input of :mod:`train.loop.rank`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from annotate.journal import Status
from annotate.state import ImageLabels, Labels
from collect.console import Console
from collect.definition import Definition
from collect.errors import CorruptError, NotFoundError, RefusedError
from collect.records import ImageRecord
from collect.workspace import Dataset
from train.data.cache import UnreadableError, decode
from train.detectors.detector import Detections
from train.fitting import checkpoint
from train.loop.chances import chances_of
from train.loop.embedding import Embedder
from train.loop.rank import Glance, Known, Ranked, disagreement, order
from train.serving.predictor import Predictor, load_detector

#: A detection whose chance to be a box is below this is noise for the order of images.
LEAST = 0.1
AGREE_ABOVE = 0.3


@dataclass(frozen=True)
class Scene:
    """A dataset as it is: all its images and labels."""

    dataset: Dataset
    definition: Definition
    records: Sequence[ImageRecord]
    labels: Labels


def look(scene: Scene, waiting: Sequence[ImageRecord], run: Path | None, device: str, console: Console) -> list[Ranked]:
    """The waiting images, ranked by what the run in a folder (or, without one, the proposals in the journal) sees in them.

    Raises:
        RefusedError: the run knows none of the dataset's classes.
    """
    names = tuple(scene.definition.class_names)
    embedder = Embedder(scene.dataset.folder / ".cache")
    vectors = embedder.look([(r.sha256, scene.dataset.image_path(r.sha256, r.extension)) for r in waiting]).vectors_ND
    seen = _by_run(scene, waiting, run, device, console) if run else _by_proposals(scene, waiting)
    glances = [
        Glance(record.sha256, scores, labels, vector if np.isfinite(vector).all() else None, apart)
        for record, vector, (scores, labels, apart) in zip(waiting, vectors, seen, strict=True)
    ]
    return order(glances, _known(scene, embedder, names))


Seen = tuple[np.ndarray, np.ndarray, float]


def _known(scene: Scene, embedder: Embedder, names: tuple[str, ...]) -> Known:
    counts: Counter[str] = Counter()
    labelled = []
    for record in scene.records:
        entry = scene.labels.get(record.sha256)
        if entry is None or not entry.present():
            continue
        labelled.append((record.sha256, scene.dataset.image_path(record.sha256, record.extension)))
        counts.update(found.name for box in entry.present() if (found := scene.definition.current(box.category)))
    vectors = embedder.look(labelled).vectors_ND
    return Known(
        np.array([counts[name] for name in names]), names, vectors[np.isfinite(vectors).all(axis=1)] if labelled else np.zeros((0, 0))
    )


def _by_proposals(scene: Scene, waiting: Iterable[ImageRecord]) -> Iterator[Seen]:
    place = {name: row for row, name in enumerate(scene.definition.class_names)}
    for record in waiting:
        boxes = [
            (box.score if box.score is not None else 0.5, place[found.name])
            for box in scene.labels.get(record.sha256, ImageLabels()).boxes.values()
            if box.status == Status.PROPOSED and (found := scene.definition.current(box.category))
        ]
        yield np.array([score for score, _ in boxes]), np.array([label for _, label in boxes], dtype=np.int64), 0.0


def _by_run(scene: Scene, waiting: Sequence[ImageRecord], path: Path, device: str, console: Console) -> Iterator[Seen]:
    predictor = Predictor.from_run(path, device)
    other = _other_checkpoint(path, device, predictor.num_threads)
    chances = chances_of(path)
    place = {name: row for row, name in enumerate(scene.definition.class_names)}
    entries = [scene.definition.current(category.name) for category in predictor.categories]
    own = np.array([place[entry.name] if entry else -1 for entry in entries])
    if (own < 0).all():
        raise RefusedError(f"the run {path.name} knows none of {scene.dataset.name}'s classes; choose another --run")
    for record in console.track(waiting, "looking"):
        try:
            image = decode(scene.dataset.image_path(record.sha256, record.extension))
        except UnreadableError as error:
            console.say(str(error))
            yield np.zeros(0), np.zeros(0, dtype=np.int64), 0.0
            continue
        found = next(predictor([image]))
        apart = _apart(found, next(other([image]))) if other else 0.0
        chances_N = chances(found.scores_N)
        kept = (chances_N >= LEAST) & (own[found.labels_N] >= 0)
        yield chances_N[kept], own[found.labels_N[kept]], apart


def _apart(one: Detections, two: Detections) -> float:
    one, two = one.take(one.scores_N >= AGREE_ABOVE), two.take(two.scores_N >= AGREE_ABOVE)
    return disagreement(one.boxes_xywh_N4, one.labels_N, two.boxes_xywh_N4, two.labels_N)


def _other_checkpoint(path: Path, device: str, num_threads: int) -> Predictor | None:
    """The run's last checkpoint, where its best one is another: two opinions of one training."""
    try:
        best = checkpoint.load(checkpoint.path_of(path, checkpoint.BEST))
        last = checkpoint.load(checkpoint.path_of(path, checkpoint.LAST))
    except (NotFoundError, CorruptError):
        return None
    if best.get("epoch") == last.get("state", {}).get("epoch"):
        return None
    detector = load_detector(path)
    detector.load_state_dict(last["ema"])
    return Predictor(detector, device, num_threads=num_threads)

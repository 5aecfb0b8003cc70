"""Detectors that the simulated reviewer of `bench_queue.py` trains after every batch: a weak one in a second, or the product's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from queue_pools import Scene
from surrogate import Head, Maps, detect, learn, look

from annotate import coco
from collect import definition
from train.data.cache import decode
from train.data.release import Release
from train.detectors.detector import Detector
from train.fitting import checkpoint
from train.fitting.config import TrainConfig
from train.fitting.fit import Fit, fit
from train.fitting.progress import Progress
from train.fitting.ranks import joined
from train.loop.embedding import Embedder
from train.loop.warm_start import warm_start
from train.serving.predictor import Predictor, load_detector

#: Images of an epoch at least: each ends with a checkpoint of 50 MB, and six images alone would make an epoch a step.
EPOCH = 80
#: (xywh pixels (N, 4), labels (N,), scores (N,)) of an image, best first.
Found = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]


class Learner(Protocol):
    """One kind of detector on one scene; `shares` of all boxes after which it is trained, `looks_IE` of the scene's images."""

    shares: tuple[float, ...]
    looks_IE: NDArray[np.float64]

    def learn(self, train: Sequence[int], seed: int, before: Any) -> Any:
        """A model of the boxes of some images; `before` is the model of the batch before, None for the first."""

    def detect(self, model: Any, rows: Sequence[int]) -> list[Found]: ...


class Weak:
    """`surrogate.py`: frozen MobileNetV2 and a small head, trained anew each time."""

    shares = (0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.38, 0.5, 0.65, 0.8, 1.0)
    side_px = 320

    def __init__(self, scene: Scene, keep: Path) -> None:
        self.scene = scene
        names = hashlib.sha256("\n".join(path.name for path in scene.files).encode()).hexdigest()[:8]
        kept = keep / f"maps-{self.side_px}-{names}.pt"
        if not kept.is_file():
            maps = look(scene.files, self.side_px)
            torch.save({"seen": maps.seen_ISD, "scale": torch.tensor(maps.scale_I), "looks": torch.tensor(maps.looks_IE)}, kept)
        told = torch.load(kept, weights_only=True)
        self.maps = Maps(told["seen"], told["scale"].numpy(), told["looks"].numpy())
        self.looks_IE = self.maps.looks_IE

    def learn(self, train: Sequence[int], seed: int, before: Head | None) -> Head:
        return learn(self.maps, self.scene.boxes, train, len(self.scene.names), seed)

    def detect(self, model: Head, rows: Sequence[int]) -> list[Found]:
        return detect(model, self.maps, rows)


class Shipped:
    """`fcos_mobilenet_v2` from ImageNet weights, warm-started from the batch before as `boxwright retrain` does.

    The first training has `first_steps` of eight cut-outs, each later one `next_steps`, whatever there is to learn from; with `cold_steps`
    each has so many, from ImageNet weights. Runs and what they found are kept, so both orders share their first training, and a call that
    was cut off goes on.
    """

    shares = (0.15, 0.25, 0.4, 0.6, 1.0)
    first_steps, next_steps = 200, 80

    def __init__(self, scene: Scene, keep: Path, image_size: int, crop_px: int, cold_steps: int = 0) -> None:
        self.scene, self.keep, self.image_size, self.crop_px, self.cold_steps = scene, keep, image_size, crop_px, cold_steps
        self.looks_IE = Embedder(keep / "cache").look([(entry["sha256"], Path(entry["file_name"])) for entry in self._entries()]).vectors_ND
        classes = list(enumerate(scene.names, 1))
        self.recipe = definition.parse(keep / "dataset.toml", definition.template("queue", classes))

    def _entries(self) -> list[dict[str, Any]]:
        return list(self.scene.truth(range(len(self.scene.files)))["images"])

    def learn(self, train: Sequence[int], seed: int, before: Path | None) -> Path:
        before = None if self.cold_steps else before
        steps = self.cold_steps or (self.next_steps if before else self.first_steps)
        shown = [*train] * -(-EPOCH // len(train))
        options = {
            "image_size": self.image_size, "epochs": max(1, round(steps / -(-len(shown) // 8))), "batch_size": 8, "seed": seed,
            "device": "cpu", "threads": 1, "freeze": 2, "crop_px": self.crop_px,
        }  # fmt: skip
        names = [self.scene.files[row].name for row in train]
        key = hashlib.sha256(json.dumps([options, names, before.name if before else ""]).encode()).hexdigest()[:16]
        path = self.keep / "runs" / key
        if checkpoint.path_of(path, checkpoint.BEST).is_file() and not checkpoint.path_of(path, checkpoint.LAST).is_file():
            return path
        documents = {split: self.scene.truth(rows) for split, rows in (("train", shown), ("val", ()), ("test", ()))}
        splits = {split: coco.arrays(document) for split, document in documents.items()}
        release = Release("queue", "now", documents, splits, Path("/"), self.keep / "cache")
        config = TrainConfig("queue", "now", splits["train"].categories).with_options(options)

        def prepare(detector: Detector) -> str:
            assert before is not None
            return warm_start(detector, load_detector(before), before.name, self.recipe).sentence()

        path.mkdir(parents=True, exist_ok=True)
        with joined("cpu") as ranks:
            fit(config, release, path, ranks, Fit(prepare=prepare if before else None, progress=Progress()))
        checkpoint.path_of(path, checkpoint.LAST).unlink()
        return path

    def detect(self, model: Path, rows: Sequence[int]) -> list[Found]:
        kept = model / "found.json"
        known = json.loads(kept.read_bytes()) if kept.is_file() else {}
        if missing := [row for row in rows if self.scene.files[row].name not in known]:
            predictor = Predictor(load_detector(model), "cpu")
            for row, found in zip(missing, predictor(decode(self.scene.files[row]) for row in missing), strict=True):
                answer = found.boxes_xywh_N4.round(2).tolist(), found.labels_N.tolist(), found.scores_N.round(5).tolist()
                known[self.scene.files[row].name] = answer
            kept.write_text(json.dumps(known))
        answers = (known[self.scene.files[row].name] for row in rows)
        return [
            (np.array(xywh, dtype=np.float64).reshape(-1, 4), np.array(labels, dtype=np.int64), np.array(scores, dtype=np.float64))
            for xywh, labels, scores in answers
        ]

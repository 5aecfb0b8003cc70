"""The two-phase detector's final layers from crops: a folder per class, features of the frozen part computed once.

What the detector does with a face in a photo is done with the face in a crop: the face detector finds it for the tight look,
the crop itself is the wide one, each as it is and mirrored; then the final layers are fitted on those features in seconds.
Splits are made on groups of near-duplicates, so that no two versions of one picture stand on both sides.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy

from annotate.coco import Category
from collect.errors import NotFoundError, TrainingError, unknown_name
from collect.files import write_atomic
from collect.images.duplicates import clusters
from collect.images.hashing import phash
from train.data.cache import Pixels, UnreadableError, decode
from train.detectors.face import FaceDetector
from train.detectors.two_phase import FACE_SURE, MARGINS, TwoPhase, cut_out

logger = logging.getLogger(__name__)

FILE = "crops.json"
NEAR_BITS = 12
HELD_OUT = 0.2
#: A face in a crop is large: tiles would find one more of 1,195 and cost three times as much.
_NO_TILES_PX = 1 << 30
_CROPS_AT_ONCE = 32


@dataclass(frozen=True)
class Crops:
    """Crops by class.

    Attributes:
        folder: what `files` are relative to.
        files: one per crop.
        labels_N: contiguous labels in the order of the detector's categories, int64 (N,).
        groups_N: equal for near-duplicates, (N,).
    """

    folder: Path
    files: tuple[str, ...]
    labels_N: Tensor
    groups_N: NDArray[np.int64]


@dataclass(frozen=True)
class Taught:
    """What came of teaching a detector with crops: `crops.json` of a run.

    Attributes:
        folder: where they lay.
        crops: how many they were; the detector learned from all of them.
        held_out: how many of them were held out from other final layers, which were fitted to be judged.
        accuracy: the share of the held-out crops that those named rightly.
        misjudged: the others; a crop in the wrong folder is among them.
    """

    folder: str
    crops: int
    held_out: int
    accuracy: float
    misjudged: tuple[str, ...] = ()

    def sentence(self) -> str:
        """In words, for the run's config and report."""
        return (
            f"final layers fitted on {self.crops} crops of {self.folder}; with {self.held_out} of them held out "
            f"(no near-duplicates across) {self.accuracy:.3f} of those were right"
        )


def class_folders(folder: Path, categories: Sequence[Category], also: Mapping[str, Sequence[str]] | None = None) -> dict[str, int]:
    """The label of each class folder: 0..C-1, in the order of the categories.

    Args:
        folder: holds a folder of crops per class.
        categories: the classes; a folder is named like one, in any case.
        also: further names of a class (synonyms, former names); several folders may be of one class.

    Raises:
        NotFoundError: there is no such folder, or a class has none in it.
        UsageError: a folder is named like no class.
    """
    if not folder.is_dir():
        raise NotFoundError(f"there is no folder of crops at {folder}; it holds a folder for each of: {_names(categories)}")
    label_of: dict[str, int] = {}
    for label, category in enumerate(categories):
        for name in (category.name, *(also or {}).get(category.name, ())):
            label_of.setdefault(name.casefold(), label)
    found: dict[str, int] = {}
    for name in sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if name.casefold() not in label_of:
            raise unknown_name(f"class folder in {folder}:", name, [category.name for category in categories])
        found[name] = label_of[name.casefold()]
    if missing := [category for label, category in enumerate(categories) if label not in found.values()]:
        raise NotFoundError(f"{folder} has no folder of crops for {_names(missing)}; make one named like each class, or a synonym of it")
    return found


def _names(categories: Sequence[Category]) -> str:
    return ", ".join(category.name for category in categories)


def read_crops(folder: Path, labels: Mapping[str, int]) -> Crops:
    """The crops in the class folders (see :func:`class_folders`); unreadable files are logged and left out, equal bytes read once.

    Raises:
        NotFoundError: a class folder holds no picture.
    """
    marks: list[int] = []
    hashes: list[str] = []
    files: list[str] = []
    seen: set[bytes] = set()
    for name, label in labels.items():
        before = len(files)
        for path in sorted(path for path in (folder / name).iterdir() if path.is_file()):
            digest = hashlib.sha256(path.read_bytes()).digest()
            if digest in seen:
                continue
            try:
                image = decode(path)
            except UnreadableError as error:
                logger.warning("left out: %s", error)
                continue
            seen.add(digest)
            hashes.append(phash(Image.fromarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))))
            marks.append(label)
            files.append(f"{name}/{path.name}")
        if len(files) == before:
            raise NotFoundError(f"{folder / name} holds no picture that no other class has; put crops of that class there, one face each")
    return Crops(folder, tuple(files), torch.tensor(marks), np.array(clusters(hashes, None, NEAR_BITS)))


def split_groups(crops: Crops, share: float, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks of training and held-out crops, (N,) each; a group of near-duplicates is on one side, and one at least is held out."""
    groups = np.unique(crops.groups_N)
    order = np.random.default_rng(seed).permutation(groups)
    sizes = np.array([(crops.groups_N == group).sum() for group in order])
    held = order[: max(1, int(np.searchsorted(np.cumsum(sizes), share * len(crops.groups_N))))]
    is_held = np.isin(crops.groups_N, held)
    return ~is_held, is_held


def embed_twice(detector: TwoPhase, crops: Crops) -> tuple[Tensor, Tensor]:
    """Features of all crops as they are and mirrored, (N, FEATURES) each: the frozen part's only pass."""
    detector.eval()
    close_up = replace(detector.faces, min_tile_px=_NO_TILES_PX)
    plain, mirrored = [], []
    for start in range(0, len(crops.files), _CROPS_AT_ONCE):
        images = [decode(crops.folder / file) for file in crops.files[start : start + _CROPS_AT_ONCE]]
        looks = torch.cat([_looks(close_up, image) for image in images])
        plain.append(detector.embed(looks))
        mirrored.append(detector.embed(looks.flip(-1)))
    return torch.cat(plain), torch.cat(mirrored)


def _looks(faces: FaceDetector, image_HW3: Pixels) -> Tensor:
    """Both looks of `TwoPhase.looks`: the surest face is seen tight, the whole crop wide; both are it where no face is found."""
    pixels = np.array(image_HW3)
    boxes_xywh, _ = faces.detect(pixels, FACE_SURE)
    height, width = pixels.shape[:2]
    x, y, w, h = boxes_xywh[0].tolist() if len(boxes_xywh) else (0, 0, width, height)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    tight = cut_out(image, [torch.tensor([[x, y, x + w, y + h]])], MARGINS[0])
    return torch.stack([tight, cut_out(image, [torch.tensor([[0, 0, width, height]])])], 1)


def teach(detector: TwoPhase, crops: Crops, seed: int = 0) -> Taught:
    """Fit the detector's final layers on all crops, from where they stand; what that is worth is measured on new layers.

    New ones, since layers that come from an earlier run may have learned from what is held out here.
    """
    features = embed_twice(detector, crops)
    train, held = split_groups(crops, HELD_OUT, seed)
    judged = deepcopy(detector)
    reset_final_layers(judged, seed)
    fit_final_layers(judged, features, crops.labels_N, train, seed=seed)
    right = is_right(judged, features, crops.labels_N) | ~held
    fit_final_layers(detector, features, crops.labels_N, np.ones(len(held), dtype=bool), seed=seed)
    wrong = tuple(crops.files[row] for row in np.flatnonzero(~right))
    return Taught(str(crops.folder), len(held), int(held.sum()), 1 - len(wrong) / int(held.sum()), wrong)


def reset_final_layers(detector: TwoPhase, seed: int) -> None:
    """Hidden and output layer as new."""
    torch.manual_seed(seed)
    for layer in (*detector.hidden, detector.output):
        if isinstance(layer, torch.nn.Linear):
            layer.reset_parameters()


def fit_final_layers(
    detector: TwoPhase, features: Sequence[Tensor], labels_N: Tensor, rows: NDArray[np.bool_], epochs: int = 40, seed: int = 0
) -> None:
    """Fit hidden and output layer on given features of the crops in `rows`.

    Raises:
        TrainingError: a class has no crop in `rows`.
    """
    chosen = torch.from_numpy(np.flatnonzero(rows))
    if len(set(labels_N[chosen].tolist())) < len(detector.categories):
        raise TrainingError("a class has no crop in the training part; add crops, or make the held-out part smaller")
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    layers = [*detector.hidden.parameters(), *detector.output.parameters()]
    optimiser = torch.optim.AdamW(layers, lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    detector.train()
    for _ in range(epochs):
        order = chosen[torch.randperm(len(chosen), generator=generator)]
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            mirrored = torch.rand(len(batch), generator=generator) < 0.5
            given = torch.where(mirrored[:, None], features[1][batch], features[0][batch])
            loss = cross_entropy(detector.logits(given), labels_N[batch], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        schedule.step()
    detector.eval()


@torch.no_grad()
def is_right(detector: TwoPhase, features: Sequence[Tensor], labels_N: Tensor) -> NDArray[np.bool_]:
    """Whether each crop is named rightly, looked at both ways, (N,)."""
    chances = torch.stack([detector.logits(part).softmax(1) for part in features]).mean(0)
    right: NDArray[np.bool_] = (chances.argmax(1) == labels_N).numpy()
    return right


def write(run_path: Path, taught: Taught) -> None:
    """Write a run's `crops.json` atomically."""
    write_atomic(run_path / FILE, json.dumps(asdict(taught), indent=2, ensure_ascii=False) + "\n")


def read(run_path: Path) -> dict[str, Any]:
    """A run's `crops.json`, {} where it was not taught with crops."""
    path = run_path / FILE
    return dict(json.loads(path.read_bytes())) if path.is_file() else {}

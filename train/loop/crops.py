"""Training the second phase from crops: a folder per class, features of the frozen part computed once.

Every crop is looked at as it is and mirrored; then the final layers are fitted on those features in seconds. Splits are made
on groups of near-duplicates, so that no two versions of one picture stand on both sides.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy

from collect.errors import NotFoundError, TrainingError
from collect.images.duplicates import clusters
from collect.images.hashing import phash
from train.data.cache import Pixels, UnreadableError, decode
from train.detectors.two_phase import CROP_PX, TwoPhase

logger = logging.getLogger(__name__)

NEAR_BITS = 12


@dataclass(frozen=True)
class Crops:
    """Crops by class: uint8 (N, 3, CROP_PX, CROP_PX) RGB, labels (N,), groups of near-duplicates (N,), file names."""

    names: tuple[str, ...]
    pixels_N3HW: Tensor
    labels_N: Tensor
    groups_N: NDArray[np.int64]
    files: tuple[str, ...]


def read_crops(folder: Path) -> Crops:
    """The crops of a folder with one folder per class; unreadable files are logged and left out, equal bytes read once.

    Raises:
        NotFoundError: there is no folder of pictures for a class.
    """
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()
    if len(names) < 2:
        raise NotFoundError(f"{folder} needs one folder of crops per class, two at least")
    pixels, labels, hashes, files, seen = [], [], [], [], set()
    for label, name in enumerate(names):
        for path in sorted(path for path in (folder / name).iterdir() if path.is_file()):
            digest = hashlib.sha256(path.read_bytes()).digest()
            if digest in seen:
                continue
            seen.add(digest)
            try:
                image = decode(path)
            except UnreadableError as error:
                logger.warning("left out: %s", error)
                continue
            hashes.append(phash(Image.fromarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))))
            pixels.append(_fitted(image))
            labels.append(label)
            files.append(f"{name}/{path.name}")
    stack = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    return Crops(names, stack, torch.tensor(labels), np.array(clusters(hashes, None, NEAR_BITS)), tuple(files))


def _fitted(image_HW3: Pixels) -> Pixels:
    """Stretched to the crop's square, as the detector's own crops are."""
    shrinks = max(image_HW3.shape[:2]) > CROP_PX
    return np.asarray(cv2.resize(image_HW3, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC))


def split_groups(crops: Crops, share: float, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks of training and held-out crops, (N,) each; a group of near-duplicates is on one side."""
    groups = np.unique(crops.groups_N)
    order = np.random.default_rng(seed).permutation(groups)
    sizes = np.array([(crops.groups_N == group).sum() for group in order])
    held = order[: int(np.searchsorted(np.cumsum(sizes), share * len(crops.groups_N)))]
    is_held = np.isin(crops.groups_N, held)
    return ~is_held, is_held


def embed_twice(detector: TwoPhase, crops: Crops) -> tuple[Tensor, Tensor]:
    """Features of all crops as they are and mirrored, (N, 1280) each: the frozen part's only pass."""
    detector.eval()
    pixels = crops.pixels_N3HW.float()
    return detector.embed(pixels), detector.embed(pixels.flip(3))


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
def accuracy(detector: TwoPhase, features: Sequence[Tensor], labels_N: Tensor, rows: NDArray[np.bool_]) -> float:
    """Share of the crops in `rows` whose class is right, looked at both ways."""
    chosen = torch.from_numpy(np.flatnonzero(rows))
    chances = torch.stack([detector.logits(part[chosen]).softmax(1) for part in features]).mean(0)
    return float((chances.argmax(1) == labels_N[chosen]).float().mean())

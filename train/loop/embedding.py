"""What a picture looks like as a vector: MobileNetV2's pooled ImageNet features, computed once an image and kept.

Where the weights cannot be had, a coarse colour and edge histogram takes their place; both say which they are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotate.boxes import Floats
from train.data.cache import ImageCache, UnreadableError

SIDE_PX = 160
#: ImageNet's, as torchvision's weights were trained with.
MEAN_RGB, STD_RGB = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Look:
    """Vectors of length 1, (N, D), mean brightness in [0, 1], (N,); rows of unreadable images are NaN."""

    vectors_ND: Floats
    brightness_N: Floats


@dataclass(frozen=True)
class Embedder:
    """Embeds stored images; `cache` is a folder such as `datasets/NAME/.cache`, None = nothing is kept."""

    cache: Path | None

    @cached_property
    def _network(self) -> Any:
        return imagenet_features()

    @property
    def name(self) -> str:
        return "mobilenet_v2" if self._network is not None else "histogram"

    def look(self, images: Sequence[tuple[str, Path]]) -> Look:
        """The looks of images given as (sha256, path)."""
        if not images:
            return Look(np.zeros((0, 1)), np.zeros(0))
        rows = [self._row(sha256, path) for sha256, path in images]
        width = max(len(row) for row in rows)
        table = np.array([row if len(row) == width else np.full(width, np.nan) for row in rows], dtype=np.float64)
        return Look(table[:, 1:], table[:, 0])

    def _row(self, sha256: str, path: Path) -> Floats:
        """Brightness, then the vector; of length 1 for an unreadable image."""
        kept = self.cache / f"look-{self.name}" / sha256[:2] / f"{sha256}.npy" if self.cache else None
        if kept is not None and kept.is_file():
            try:
                return np.load(kept, allow_pickle=False).astype(np.float64)  # type: ignore[no-any-return]
            except (OSError, ValueError, EOFError):
                kept.unlink(missing_ok=True)
        try:
            pixels = ImageCache(None, SIDE_PX).read(path, "")
        except UnreadableError:
            return np.full(1, np.nan)
        vector = self._embed(pixels)
        row = np.concatenate([[pixels.mean() / 255], vector / max(float(np.linalg.norm(vector)), 1e-12)])
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            temporary = kept.with_suffix(f".{os.getpid()}.tmp")
            with temporary.open("wb") as file:
                np.save(file, row.astype(np.float32), allow_pickle=False)
            temporary.replace(kept)
        return row

    def _embed(self, pixels_HW3: NDArray[np.uint8]) -> Floats:
        if self._network is None:
            return _histogram(pixels_HW3)
        import torch

        mean, std = torch.tensor(MEAN_RGB), torch.tensor(STD_RGB)
        image = (torch.from_numpy(np.array(pixels_HW3)).float() - mean) / std
        with torch.inference_mode():
            features = self._network(image.permute(2, 0, 1)[None])
        return features.mean(dim=(2, 3))[0].double().numpy()  # type: ignore[no-any-return]


def imagenet_features() -> Any:
    """MobileNetV2 up to its pooling with ImageNet's weights, a torch module; None where the weights cannot be had."""
    from torchvision.models import mobilenet_v2

    from train.fitting import weights

    found = weights.imagenet_mobilenet_v2()
    if found is None:
        return None
    features = mobilenet_v2().features
    weights.load_by_order(features, found)
    return features.eval()


def _histogram(pixels_HW3: NDArray[np.uint8]) -> Floats:
    """Colours in 4×4×4 bins and edge directions in 8, square-rooted so that distances are Hellinger's."""
    import cv2

    colours = np.histogramdd(pixels_HW3.reshape(-1, 3), bins=(4, 4, 4), range=[(0, 256)] * 3)[0].ravel()
    grey = cv2.cvtColor(pixels_HW3, cv2.COLOR_RGB2GRAY).astype(np.float32)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    edges = np.histogram(np.arctan2(dy, dx), bins=8, range=(-np.pi, np.pi), weights=np.hypot(dx, dy))[0]
    vector: Floats = np.sqrt(np.concatenate([colours / max(colours.sum(), 1), edges / max(edges.sum(), 1e-9)]))
    return vector

"""Small releases of drawn shapes, written as `boxwright release` writes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import settings

from collect.workspace import Dataset, Workspace

#: Ids that are neither contiguous nor from 1 on: whoever mixes up ids and labels fails.
CATEGORIES = [{"id": 3, "name": "disc", "supercategory": ""}, {"id": 9, "name": "square", "supercategory": ""}]
MakeRelease = Callable[..., Dataset]
settings.register_profile("no deadline", deadline=None)  # a loaded machine is no failure
settings.load_profile("no deadline")


def scene(seed: int, size_wh: tuple[int, int] = (96, 64), shapes: int = 2) -> tuple[np.ndarray, list[tuple[int, list[float]]]]:
    """A noisy picture with coloured shapes: RGB pixels, and (category id, xywh) per shape."""
    rng = np.random.default_rng(seed)
    width, height = size_wh
    pixels = rng.integers(60, 120, (height, width, 3), dtype=np.uint8)
    found = []
    for place in range(shapes):
        side = int(rng.integers(18, 28))
        x = int(rng.integers(0, width // shapes - side)) + place * (width // shapes)
        y = int(rng.integers(0, height - side))
        if rng.random() < 0.5:
            cv2.circle(pixels, (x + side // 2, y + side // 2), side // 2, (240, 40, 40), -1)
            found.append((3, [float(x), float(y), float(side), float(side)]))
        else:
            cv2.rectangle(pixels, (x, y), (x + side - 1, y + side - 1), (40, 60, 240), -1)
            found.append((9, [float(x), float(y), float(side), float(side)]))
    return pixels, found


def write_release(
    dataset: Dataset, splits: dict[str, list[tuple[np.ndarray, list[tuple[int, list[float]]]]]], version: str = "v001"
) -> Dataset:
    """Write images, a dataset.toml and a release."""
    release = dataset.releases / version
    release.mkdir(parents=True, exist_ok=True)
    classes = "".join(f'[[class]]\nid = {entry["id"]}\nname = "{entry["name"]}"\n' for entry in CATEGORIES)
    dataset.definition.write_text(f'name = "{dataset.name}"\n{classes}')
    number = 0
    for split in ("train", "val", "test"):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for pixels, shapes in splits.get(split, []):
            number += 1
            data = bytes(cv2.imencode(".png", pixels[..., ::-1])[1])
            name = hashlib.sha256(data).hexdigest()
            path = dataset.image_path(name, "png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            height, width = pixels.shape[:2]
            file_name = str(path.relative_to(dataset.images))
            images.append({"id": number, "file_name": file_name, "width": width, "height": height, "sha256": name, "split": split})
            for category, box in shapes:
                identity = number * 100 + len(annotations)
                area = box[2] * box[3]
                annotations.append({"id": identity, "image_id": number, "category_id": category, "bbox": box, "area": area, "iscrowd": 0})
        document = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        (release / f"{split}.json").write_text(json.dumps(document))
    (release / "manifest.json").write_text("{}")
    return dataset


@pytest.fixture
def make_release(workspace: Workspace) -> MakeRelease:
    """Make a dataset with a release: `make(name, train=8, val=4, test=2)`; every fourth train image is without shapes."""

    def make(name: str = "shapes", train: int = 8, val: int = 4, test: int = 2, empty_every: int = 4) -> Dataset:
        def scenes(start: int, count: int, empty: int) -> list[Any]:
            return [scene(start + n, shapes=0 if empty and n % empty == empty - 1 else 2) for n in range(count)]

        splits = {"train": scenes(0, train, empty_every), "val": scenes(1000, val, 0), "test": scenes(2000, test, 0)}
        return write_release(workspace.new_dataset(name), splits)

    return make


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Bit-equality holds for one number of threads; subprocesses get OMP_NUM_THREADS=1."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same_tensors(one: Any, other: Any) -> bool:
    """Whether two nested documents hold bit-equal tensors and equal plain values."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_tensors(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same_tensors(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


@pytest.fixture
def equal_states() -> Callable[[Any, Any], bool]:
    return same_tensors


def images_of(dataset: Dataset, split: str) -> list[Path]:
    document = json.loads((dataset.releases / "v001" / f"{split}.json").read_text())
    return [dataset.images / image["file_name"] for image in document["images"]]


@pytest.fixture
def split_images() -> Callable[[Dataset, str], list[Path]]:
    """The files of a split's images."""
    return images_of

"""A release as training sees it: COCO documents and arrays of its splits, and where its images lie."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from annotate import coco
from annotate.coco import Category, CocoArrays, Document
from collect.errors import NotFoundError, TrainingError
from collect.workspace import Dataset

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Release:
    """A release that is open. `documents` and `splits` hold train, val and test, each of which may be empty."""

    dataset: str
    version: str
    documents: Mapping[str, Document]
    splits: Mapping[str, CocoArrays]
    images: Path
    cache: Path

    @property
    def categories(self) -> tuple[Category, ...]:
        return self.splits["train"].categories

    @property
    def split_of(self) -> dict[str, str]:
        """The split of each image by its sha256."""
        return {sha256: split for split, arrays in self.splits.items() for sha256 in arrays.sha256_I}

    def size_of(self, split: str) -> int:
        """The number of images in a split."""
        return len(self.splits[split].image_ids_I)

    def has_boxes(self, split: str) -> bool:
        """Whether a split has a box that a detector can find or miss: without one its AP is -1, which ranks nothing."""
        return bool((~self.splits[split].iscrowd_A.astype(bool)).any())


def open_release(dataset: Dataset, version: str = "") -> Release:
    """A release of `dataset`; "" = the newest.

    Raises:
        NotFoundError: no such release, or none at all.
        CorruptError: a file of it is no COCO.
    """
    if not version:
        names = dataset.release_names()
        if not names:
            raise NotFoundError(f"{dataset.name} has no release yet; `boxwright release {dataset.name}` makes one")
        version = names[-1]
    folder = dataset.release_path(version)
    documents = {split: coco.read_document(folder / f"{split}.json") for split in SPLITS}
    return Release(
        dataset=dataset.name,
        version=version,
        documents=documents,
        splits={split: coco.arrays(document) for split, document in documents.items()},
        images=dataset.images,
        cache=dataset.folder / ".cache",
    )


def check_trainable(release: Release) -> list[str]:
    """Warnings about a release that is to be trained on, as sentences.

    Raises:
        TrainingError: its train split has no images or no boxes.
    """
    train = release.splits["train"]
    again = f"review some images, then `boxwright release {release.dataset}`"
    if not len(train.image_ids_I):
        raise TrainingError(f"{release.dataset} {release.version} has no images in its train split; {again}")
    if not len(train.annotation_ids_A) or train.iscrowd_A.all():
        raise TrainingError(f"{release.dataset} {release.version} has no boxes in its train split, so nothing can be learned; {again}")
    images_C = [len(np.unique(train.annotation_image_A[train.category_ids_A == category.id])) for category in train.categories]
    warnings = [
        f"the class '{category.name}' has no train image: the detector cannot learn it"
        for category, count in zip(train.categories, images_C, strict=True)
        if not count
    ]
    if not release.has_boxes("val"):
        what = "has no boxes" if release.size_of("val") else "is empty"
        warnings.append(f"the val split {what}: the last weights are kept, not the best")
    return warnings

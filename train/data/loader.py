"""From a release's split to batches: decode, place, augment, collate, in as many processes as wanted.

What a sample looks like depends on (seed, epoch, image, slot) and on nothing else, so the number of workers, a resume and
the order of work change nothing. An image that cannot be read becomes a sentence in `Batch.failures`, never an exception.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch.utils.data import DataLoader, Dataset

from annotate.boxes import xyxy_from_xywh
from annotate.coco import CocoArrays
from collect.errors import CorruptError, TrainingError
from train.data import augment
from train.data.augment import Geometry, Guarded, Sample
from train.data.cache import ImageCache, UnreadableError
from train.data.sampler import Key
from train.detectors.detector import Batch

#: A worker that says nothing for this long is given up; the error says what to do.
WORKER_TIMEOUT_S = 180


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed. Chances are per sample.

    Attributes:
        geometry: scale, place, mirror; None = the whole image, letterboxed.
        pixels: strength of colour, light, blur and noise; 0 = none.
        mosaic, mixup, copy_paste: chances of each.
        own: an albumentations file of the user's own, run after all that; "" = none.
    """

    geometry: Geometry | None = field(default_factory=Geometry)
    pixels: float = 1.0
    mosaic: float = 0.0
    mixup: float = 0.0
    copy_paste: float = 0.0
    own: str = ""


NO_AUGMENTATION = Augmentation(geometry=None, pixels=0.0)


class SplitImages(Dataset[Any]):
    """The images of one split with their boxes, as training samples.

    Args:
        coco: the split.
        folder: where `file_name` counts from.
        cache: decodes and remembers.
        augmentation: what is done to each sample.
        seed: with the key it decides every random number.
    """

    def __init__(self, coco: CocoArrays, folder: Path, cache: ImageCache, augmentation: Augmentation, seed: int) -> None:
        self.coco, self.folder, self.cache, self.augmentation, self.seed = coco, folder, cache, augmentation, seed
        self._rows = [rows[~coco.iscrowd_A[rows]] for rows in coco.annotations_of()]
        self._boxes = xyxy_from_xywh(coco.boxes_xywh_A4)
        self._labels = coco.labels_A()
        self._pixels: Guarded | None = None
        self._own: Guarded | None = None

    def __len__(self) -> int:
        return len(self.coco.image_ids_I)

    def read(self, image: int) -> Sample:
        """One image as the cache has it, with the boxes that pixels can carry (wider and higher than a hair).

        Raises:
            UnreadableError: it cannot be decoded, or has not the shape that the release says.
        """
        name = self.coco.file_names_I[image]
        pixels = self.cache.read(self.folder / name, self.coco.sha256_I[image])
        height, width = pixels.shape[:2]
        whole_w, whole_h = self.coco.sizes_wh_I2[image].tolist()
        if (whole_w > whole_h) != (width > height) and abs(whole_w / whole_h - width / height) > 0.1:
            raise UnreadableError(f"{name}: is {width}×{height} when decoded but {whole_w}×{whole_h} in the release")
        rows = self._rows[image]
        boxes = self._boxes[rows] * np.tile([width / whole_w, height / whole_h], 2)
        boxes = np.clip(boxes, 0, [width, height, width, height])
        sample = Sample(pixels, boxes, self._labels[rows])
        return sample.take((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) > 0.1)

    def rng(self, key: Key) -> Generator:
        """The random numbers of one sample."""
        return np.random.default_rng((self.seed, key.epoch, key.image, key.slot))

    def __getitem__(self, key: Key) -> tuple[Sample, str] | str:
        """The sample and its file's name, or a sentence when the image cannot be read."""
        name = self.coco.file_names_I[key.image]
        try:
            return self._augmented(key, self.rng(key)), name
        except UnreadableError as error:
            return str(error)

    def _augmented(self, key: Key, rng: Generator) -> Sample:
        how, size = self.augmentation, (key.side_px, key.side_px)
        sample = self.read(key.image)
        if how.geometry is None:
            sample = augment.letterbox(sample, size)
        elif rng.random() < how.mosaic:
            others = [self._other(rng) for _ in range(3)]
            sample = augment.mosaic([sample, *others], size, how.geometry, rng)
        else:
            sample = augment.throw(sample, size, how.geometry, rng)
        if how.copy_paste and rng.random() < how.copy_paste:
            sample = augment.copy_paste(sample, self._other(rng), rng)
        if how.mixup and rng.random() < how.mixup:
            sample = augment.mixup(sample, augment.throw(self._other(rng), size, how.geometry or Geometry(), rng), rng)
        return self._finish(sample, rng)

    def _other(self, rng: Generator) -> Sample:
        return self.read(int(rng.integers(len(self))))

    def _finish(self, sample: Sample, rng: Generator) -> Sample:
        """Albumentations: made on first use, since each process needs its own."""
        if self._pixels is None:
            self._pixels = Guarded(augment.pixel_transforms(self.augmentation.pixels))
            self._own = Guarded(augment.own_transforms(Path(self.augmentation.own))) if self.augmentation.own else None
        sample = self._pixels(sample, int(rng.integers(2**31)))
        if self._own is None:
            return sample
        shape = sample.pixels.shape
        sample = self._own(sample, int(rng.integers(2**31)))
        return sample if sample.pixels.shape == shape else augment.letterbox(sample, (shape[1], shape[0]))


def collate(items: list[tuple[Sample, str] | str]) -> Batch:
    """A batch from what :class:`SplitImages` gave; unreadable images become its failures.

    Raises:
        CorruptError: never a box outside of what a loss can take: finite, and at least a hair wide (an invariant).
    """
    samples = [item for item in items if not isinstance(item, str)]
    failures = tuple(item for item in items if isinstance(item, str))
    if not samples:
        return Batch(torch.zeros((0, 3, 0, 0), dtype=torch.uint8), [], [], (), failures)
    pixels = np.stack([sample.pixels for sample, _ in samples])
    boxes = [torch.from_numpy(sample.boxes_N4.astype(np.float32)) for sample, _ in samples]
    for box, (_, name) in zip(boxes, samples, strict=True):
        if not (torch.isfinite(box).all() and (box[:, 2:] > box[:, :2]).all()):
            raise CorruptError(f"{name}: an augmentation made a box without area or with a coordinate that is no number")
    return Batch(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        boxes,
        [torch.from_numpy(sample.labels_N) for sample, _ in samples],
        tuple(name for _, name in samples),
        failures,
    )


def _start_worker(_number: int) -> None:
    """A worker is one of several: OpenCV and torch must not each start a thread per core in it."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def batches(dataset: SplitImages, keys: Iterator[list[Key]], workers: int, pin: bool = False) -> Iterator[Batch]:
    """Batches in the order of `keys`.

    Args:
        dataset: where samples come from.
        keys: one list per batch.
        workers: processes; 0 = in this one. They are started afresh (forkserver), since a fork of a process with
            threads (OpenCV, OpenMP) may hang.
        pin: page-locked memory, for CUDA.

    Raises:
        TrainingError: a worker died or hung.
    """
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload(["train.data.loader"])  # imported once, not by each worker
    settings: dict[str, Any] = {"multiprocessing_context": fresh, "timeout": WORKER_TIMEOUT_S, "prefetch_factor": 4} if workers else {}
    loader = DataLoader(
        dataset,
        batch_sampler=_Keys(keys),
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_start_worker,
        pin_memory=pin,
        generator=torch.Generator(),  # its own, so that iterating leaves the global one alone: a resume depends on it
        **settings,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        raise TrainingError(
            f"a loader process died or hung ({str(error).splitlines()[0]}); free some memory, or use --workers 0"
        ) from error


class _Keys:
    """The keys as torch wants a batch sampler: iterable, once."""

    def __init__(self, keys: Iterator[list[Key]]) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[list[Key]]:
        return self.keys

"""Which image comes when: a pure function of seed and epoch, the same on every machine and after every resume."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from annotate.coco import CocoArrays
from collect.errors import unknown_name


class Key(NamedTuple):
    """One sample: everything its random numbers depend on. `slot` counts an image's repeats within an epoch."""

    epoch: int
    image: int
    slot: int
    side_px: int


def uniform(coco: CocoArrays) -> NDArray[np.float64]:
    """Every image once, those without boxes included."""
    return np.ones(len(coco.image_ids_I))


def repeat_factor(coco: CocoArrays, threshold: float = 0.3) -> NDArray[np.float64]:
    """How often each image is shown: max over its classes of max(1, √(t / f)), f = share of images with the class.

    Gupta et al., "LVIS" (CVPR 2019), equation 1; shape (I,). Images without boxes are shown once.
    """
    has_IC = _presence(coco)
    share = has_IC.mean(axis=0)
    factor_C = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1e-9)))
    factor: NDArray[np.float64] = np.where(has_IC, factor_C[None], 1.0).max(axis=1, initial=1.0)
    return factor


def class_balanced(coco: CocoArrays) -> NDArray[np.float64]:
    """Shown so often that every class is seen in about as many images as the most frequent one; at most 10 times."""
    has_IC = _presence(coco)
    count = has_IC.sum(axis=0)
    factor_C = np.clip(count.max(initial=1) / np.maximum(count, 1), 1.0, 10.0)
    factor: NDArray[np.float64] = np.where(has_IC, factor_C[None], 1.0).max(axis=1, initial=1.0)
    return factor


SAMPLINGS = {"uniform": uniform, "repeat-factor": repeat_factor, "class-balanced": class_balanced}


def _presence(coco: CocoArrays) -> NDArray[np.bool_]:
    has = np.zeros((len(coco.image_ids_I), len(coco.categories)), dtype=bool)
    has[coco.annotation_image_A, coco.labels_A()] = True
    return has


def repeats(coco: CocoArrays, sampling: str) -> NDArray[np.float64]:
    """Repeats per image and epoch, shape (I,), each at least 1.

    Raises:
        UsageError: no such sampling.
    """
    if sampling not in SAMPLINGS:
        raise unknown_name("sampling", sampling, SAMPLINGS)
    return SAMPLINGS[sampling](coco)


@dataclass(frozen=True)
class Plan:
    """All batches of a training, for one of `world` processes.

    Attributes:
        repeats_I: repeats per image and epoch; the fraction is decided by chance, anew each epoch.
        batch_size: of one process.
        sides_px: the sizes among which each batch chooses one (multi-scale); one entry = always that.
    """

    repeats_I: NDArray[np.float64]
    batch_size: int
    seed: int
    sides_px: tuple[int, ...]
    rank: int = 0
    world: int = 1

    def order(self, epoch: int) -> list[tuple[int, int]]:
        """(image, slot) in the order of an epoch, before it is cut into batches."""
        rng = np.random.default_rng((self.seed, epoch, 0x5A))
        times = np.floor(self.repeats_I + rng.random(len(self.repeats_I))).astype(int)
        pairs = [(image, slot) for image, count in enumerate(times.tolist()) for slot in range(count)]
        return [pairs[place] for place in rng.permutation(len(pairs))]

    def per_epoch(self) -> int:
        """How many batches each process has in every epoch: the same, though repeats are decided by chance."""
        return math.ceil(float(self.repeats_I.sum()) / (self.batch_size * self.world))

    def batches(self, epoch: int) -> list[list[Key]]:
        """This process's batches of an epoch; what is missing at its end is filled from its start, what is too much left out."""
        order = self.order(epoch)
        size, count = self.batch_size * self.world, self.per_epoch()
        order = [order[place % len(order)] for place in range(count * size)]
        rng = np.random.default_rng((self.seed, epoch, 0xA5))
        sides = rng.choice(self.sides_px, size=count).tolist()
        starts = range(self.rank * self.batch_size, count * size, size)
        return [
            [Key(epoch, image, slot, side) for image, slot in order[start : start + self.batch_size]]
            for start, side in zip(starts, sides, strict=True)
        ]

    def from_position(self, epoch: int, position: int, epochs: int) -> Iterator[list[Key]]:
        """All batches from batch `position` of `epoch` to the end of the last epoch."""
        for number in range(epoch, epochs):
            yield from self.batches(number)[position if number == epoch else 0 :]

"""The contract of every detector family; :mod:`train.detectors.table` has those there are.

A detector is an `nn.Module` built for given categories. Training calls it with a :class:`Batch` and gets named losses;
:meth:`Detector.predict` gives boxes in pixels of its input, which :mod:`train.serving.predictor` takes back to pixels of
the original image. Labels are contiguous, 0..C-1, in the order of `categories`; only `annotate.coco` knows about ids.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from annotate.coco import Category
from collect.errors import UsageError
from train.detectors.depthwise import with_fast_gradients
from train.detectors.table import place_of

#: Detections below this score are not worth keeping, and no image has more than so many.
SCORE_LEAST = 0.02
PER_IMAGE = 100


@dataclass(frozen=True)
class Detections:
    """What was found in one image: xywh pixels of the upright original, best score first.

    Attributes:
        boxes_xywh_N4: float64, shape (N, 4).
        scores_N: float64 in [0, 1], shape (N,).
        labels_N: contiguous labels 0..C-1, int64, shape (N,).
    """

    boxes_xywh_N4: NDArray[np.float64]
    scores_N: NDArray[np.float64]
    labels_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores_N)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Detections:
        """Those detections that `rows` (places or a mask) selects."""
        return Detections(self.boxes_xywh_N4[rows], self.scores_N[rows], self.labels_N[rows])

    @classmethod
    def none(cls) -> Detections:
        """No detection at all."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class RawDetections:
    """A detector's own answer for one image: xyxy pixels of its *input*, float32 (N, 4); scores (N,); labels (N,)."""

    boxes_xyxy_N4: Tensor
    scores_N: Tensor
    labels_N: Tensor


@dataclass(frozen=True)
class Batch:
    """Training input. Images are uint8 and are normalised on the device, by the detector.

    Attributes:
        images_B3HW: uint8 RGB, all of one size.
        boxes_xyxy: per image float32 (N, 4), pixels of the input; N may be 0.
        labels: per image int64 (N,).
        names: per image the file it came from, for messages.
        failures: images of this batch that could not be read, as sentences; they are not among the others.
    """

    images_B3HW: Tensor
    boxes_xyxy: list[Tensor]
    labels: list[Tensor]
    names: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.boxes_xyxy)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device; from pinned memory the copies run beside the device's work."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory: torch's loader asks for this by name, and leaves alone what has it not."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        boxes, labels = [change(each) for each in self.boxes_xyxy], [change(each) for each in self.labels]
        return Batch(change(self.images_B3HW), boxes, labels, self.names, self.failures)


@dataclass(frozen=True)
class HeadRows:
    """Which rows of a head's parameter belong to which category, for warm starts by category name.

    Attributes:
        rows_CR: int64 (C, R): row `c` lists the places along `axis` that belong to category `c`.
        shared: places that belong to no category (background); copied whenever the shapes allow it.
        axis: the axis of the parameter that the places count along.
    """

    rows_CR: NDArray[np.int64]
    shared: tuple[int, ...] = ()
    axis: int = 0


@dataclass(frozen=True)
class Recipe:
    """What a family trains best with; a run's config overrides each entry."""

    image_size: int = 640
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    batch_size: int = 8
    backbone_rate: float = 1.0
    ema_decay: float = 0.998
    clip_norm: float = 10.0
    freeze: int = 0


class Detector(nn.Module, ABC):
    """A detector for `categories`.

    Attributes:
        categories: in the order of the contiguous labels.
        image_size: the longest side of its input in pixels.
        stride: input sides must be multiples of this.
        square: the input must be `image_size` × `image_size` (else only padded to `stride`).
        weights_origin: which pretrained weights it really has, in words.
        recipe: the family's own defaults for training.
        exporter: the ONNX exporter that can write it: "legacy" (`dynamo=False`) or "dynamo".
        architecture: what its name leaves open, as JSON has it: of a transformer the library's config. Checkpoints hold it, so that
            they can be opened without the weights that the training began with.
        nms_iou: of a dense detector, which answers at fixed places: the overlap of its suppression; None = it is not one.
    """

    stride: int = 32
    square: bool = False
    recipe: Recipe = Recipe()
    exporter: str = "legacy"
    nms_iou: float | None = None

    def __init__(self, categories: Sequence[Category], image_size: int) -> None:
        super().__init__()
        if not categories:
            raise UsageError("a detector needs at least one category")
        self.categories = tuple(categories)
        self.image_size = image_size or self.recipe.image_size
        self.weights_origin = "none: from scratch"
        self.architecture: Mapping[str, Any] = {}
        if self.image_size % self.stride:
            nearest = max(self.stride, round(self.image_size / self.stride) * self.stride)
            raise UsageError(f"an image size of {self.image_size} is not a multiple of {self.stride}; try --image-size {nearest}")

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The same as :meth:`loss`; `DistributedDataParallel` and `torch.compile` call this."""
        return self.loss(batch)

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses, to be summed. A batch without any box gives finite losses with a graph."""

    @abstractmethod
    def predict(self, images_B3HW: Tensor) -> list[RawDetections]:
        """What is seen in uint8 RGB images of one size, in pixels of these images, best score first."""

    @abstractmethod
    def head_rows(self) -> Mapping[str, HeadRows]:
        """Parameter name (as in `state_dict()`) → its rows per category."""

    @abstractmethod
    def stages(self) -> list[list[nn.Module]]:
        """The parts that `--freeze N` freezes, from the input inwards: those of the backbone, then the neck."""

    def places(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - what dense detectors need
        """Of a dense detector, before suppression: boxes xyxy (B, P, 4) and scores (B, P, C) of all places.

        Raises:
            UsageError: it is none; its boxes come from proposals or queries.
        """
        raise UsageError("this detector has no answer for each place of the image, so it has no form without suppression")

    def export_wrapper(self) -> nn.Module:
        """A module for ONNX: float32 (1, 3, H, W) RGB in 0..255 → boxes_xyxy (N, 4), scores (N,), labels (N,).

        Call `.eval()` on what you get: the legacy exporter leaves a fresh wrapper's children in train mode.
        """
        return _Exported(self)

    def backbone_parameters(self) -> set[int]:
        """The `id()` of every pretrained parameter: they learn at `recipe.backbone_rate` times the rate."""
        return {id(parameter) for stage in self.stages() for module in stage for parameter in module.parameters()}


class _Exported(nn.Module):
    """The same rules as :meth:`Detector.predict`, for one image."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image_13HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (found,) = self.detector.predict(image_13HW)
        return found.boxes_xyxy_N4, found.scores_N, found.labels_N


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean over all processes, so that a rank without boxes weighs its background as the others do."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        values = values.clone()
        torch.distributed.all_reduce(values)
        values = values / torch.distributed.get_world_size()
    return values


@dataclass(frozen=True)
class Frozen:
    """Modules held still: no gradients, batch norm on its stored statistics."""

    modules: tuple[nn.Module, ...] = field(default=())

    def hold(self) -> None:
        """Do so again after `model.train()`, which would wake batch norm up."""
        for module in self.modules:
            module.eval()


def freeze(detector: Detector, count: int) -> Frozen:
    """Freeze the first `count` stages.

    Raises:
        UsageError: the detector has fewer stages.
    """
    stages = detector.stages()
    if not 0 <= count <= len(stages):
        raise UsageError(f"--freeze {count}: this detector has {len(stages)} stages; give 0 to {len(stages)}")
    modules = tuple(module for stage in stages[:count] for module in stage)
    for module in modules:
        module.requires_grad_(False)
    return Frozen(modules)


class Build(Protocol):
    """What the table names: builds a detector. `weights`: "auto", "none", or a path.

    Builders of detectors that have an `architecture` also take one.
    """

    def __call__(self, categories: tuple[Category, ...], image_size: int, weights: str, **architecture: Any) -> Detector: ...


def find_detector(name: str) -> Build:
    """The builder of a detector.

    Raises:
        UsageError: no such detector; lists those there are.
    """
    module, _, attribute = place_of(name).partition(":")
    return cast("Build", getattr(importlib.import_module(module), attribute))


def open_detector(
    name: str,
    categories: Sequence[Category],
    image_size: int = 0,
    weights: str = "auto",
    architecture: Mapping[str, Any] | None = None,
) -> Detector:
    """A detector for `categories`; `image_size` 0 = the family's own.

    Args:
        name: one of :data:`train.detectors.table.DETECTORS`.
        categories: in the order of the labels.
        image_size: longest side of the input, pixels.
        weights: "auto" (the best pretrained ones that can be had), "none", or the path of a state dict.
        architecture: that of a checkpoint whose weights it is to take.

    Raises:
        UsageError: no such detector, or an image size that it cannot take.
    """
    given = {"architecture": architecture} if architecture else {}
    detector = find_detector(name)(tuple(categories), image_size, weights, **given)
    with_fast_gradients(detector)
    return detector

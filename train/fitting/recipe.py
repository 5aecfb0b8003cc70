"""What a config leaves open, decided from the detector's recipe and the machine; optimiser, schedule, sizes, augmentation."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import torch

from collect.errors import UsageError
from train.data.augment import Geometry
from train.data.loader import Augmentation
from train.detectors.detector import Detector
from train.fitting import memory
from train.fitting.config import TrainConfig
from train.fitting.device import free_threads, has_bf16
from train.fitting.ranks import Ranks

_LEAST_RATE = 0.01


def complete(config: TrainConfig, detector: Detector, ranks: Ranks) -> TrainConfig:
    """The config with every 0 and "auto" decided, as it is written into the run."""
    family = detector.recipe
    settled = replace(
        config,
        image_size=detector.image_size,
        crop_px=_crop(config, detector),
        freeze=config.freeze if config.freeze >= 0 else family.freeze,
        weights_origin=config.weights_origin or detector.weights_origin,
        learning_rate=config.learning_rate or family.learning_rate,
        weight_decay=config.weight_decay if config.weight_decay >= 0 else family.weight_decay,
        backbone_rate=config.backbone_rate if config.backbone_rate >= 0 else family.backbone_rate,
        clip_norm=config.clip_norm or family.clip_norm,
        ema_decay=config.ema_decay if config.ema_decay >= 0 else family.ema_decay,
        precision=config.precision if config.precision != "auto" else ("bf16" if has_bf16(ranks.device) else "fp32"),
        workers=config.workers if config.workers >= 0 else _workers(ranks),
        threads=config.threads or free_threads(ranks.device, ranks.world),
        batch_size=config.batch_size or (family.batch_size if ranks.device.type == "cpu" else 0),
    )
    if not settled.batch_size:
        fitting = memory.largest_batch(detector, settled, ranks.device, max(sides(settled, detector.stride)))
        settled = replace(settled, batch_size=int(ranks.agree(float(fitting))[0]))
    return settled


def _crop(config: TrainConfig, detector: Detector) -> int:
    """The side of training cut-outs.

    Raises:
        UsageError: not a multiple of the stride, or smaller than the one size that the detector takes.
    """
    side = config.crop_px or detector.image_size
    if side % detector.stride or (detector.square and side != detector.image_size):
        raise UsageError(
            f"--crop {side}: this detector takes {'only its image size' if detector.square else f'multiples of {detector.stride}'}"
        )
    return side


def _workers(ranks: Ranks) -> int:
    """On a CPU none: training uses all cores anyway. For a GPU the cores that this process may use, less one, at most 8."""
    if ranks.device.type == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(0, min(8, cores // ranks.world - 1))


def optimiser(detector: Detector, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW: no decay on biases and norms, the pretrained part at its own rate; `top_rate` per group."""
    pretrained = detector.backbone_parameters()
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for parameter in detector.parameters():
        if parameter.requires_grad:
            share = config.backbone_rate if id(parameter) in pretrained else 1.0
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((share, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "top_rate": share * config.learning_rate, "lr": 0.0}
            for (share, decay), parameters in groups.items()
        ]
    )


def rate(done: float, step: int, config: TrainConfig) -> float:
    """The learning rate as a share of the top one: linear warm-up by steps, then half a cosine over what is `done`.

    >>> rate(1.0, 10_000, TrainConfig("d", "v001", (), warmup_steps=100))
    0.01
    """
    warmup = min(1.0, (step + 1) / (config.warmup_steps or 50))
    return warmup * (_LEAST_RATE + (1 - _LEAST_RATE) * (1 + math.cos(math.pi * done)) / 2)


def sides(config: TrainConfig, stride: int) -> tuple[int, ...]:
    """The input sides that batches choose among, multiples of `stride`.

    >>> sides(TrainConfig("d", "v001", (), image_size=320, multi_scale=0.2), 32)
    (256, 288, 320, 352, 384)
    """
    size = config.crop_px or config.image_size
    low, high = size * (1 - config.multi_scale), size * (1 + config.multi_scale)
    return tuple(side for side in range(stride, int(high) + stride, stride) if low <= side <= high) or (size,)


def cached_px(config: TrainConfig) -> int:
    """The longest side that the store keeps: what the greatest zoom shows is then not enlarged by more than a fifth."""
    largest = config.image_size * (1 + config.multi_scale)
    return math.ceil(largest * max(1.0, config.zoom_in / 1.2) / 64) * 64


def augmentation(config: TrainConfig) -> Augmentation:
    """How the config wants training images changed."""
    return Augmentation(
        geometry=Geometry(
            zoom=(config.zoom_out, config.zoom_in),
            mirror=config.mirror,
            turn=config.turn,
            focus=config.focus,
            view=config.image_size / config.crop_px,
        ),
        pixels=config.pixels,
        mosaic=config.mosaic,
        mixup=config.mixup,
        copy_paste=config.copy_paste,
        own=config.augment,
    )

"""Which batch fits into the memory: probed before the first epoch on a GPU, and named in the error when one does not."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable

import torch

from collect.errors import TrainingError
from train.detectors.detector import Batch, Detector
from train.fitting import checkpoint
from train.fitting.config import TrainConfig

logger = logging.getLogger(__name__)

_BOXES = 100
_LARGEST = 64
_SHARE = 0.85
_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "could not create a primitive", "could not create a memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says so: CUDA's, the CPU allocator's, or oneDNN's (bare RuntimeErrors)."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def runs_out(work: Callable[[], None]) -> bool:
    """Do some work; True when the memory was too small for it, and then what the failed step held is free again."""
    try:
        work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        logger.info("out of memory: %s", error)
        traceback.clear_frames(error.__traceback__)
        return True
    return False


def worst_case(batch_size: int, side_px: int, categories: int) -> Batch:
    """The batch that takes the most memory: the greatest side, and many boxes in every image."""
    corner = torch.rand(batch_size, _BOXES, 2) * side_px * 0.8
    boxes = torch.cat([corner, corner + 4 + torch.rand(batch_size, _BOXES, 2) * side_px * 0.19], 2)
    labels = torch.arange(_BOXES) % categories
    images = torch.randint(0, 255, (batch_size, 3, side_px, side_px), dtype=torch.uint8)
    return Batch(images, list(boxes), [labels] * batch_size)


def fits(detector: Detector, config: TrainConfig, device: torch.device, batch_size: int, side_px: int) -> bool:
    """Whether one step on the worst case fits, with room for the optimiser's two moments. Leaves no gradients behind."""
    random = checkpoint.random_state()
    buffers = {name: value.clone() for name, value in detector.named_buffers()}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        detector.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            losses = detector.loss(worst_case(batch_size, side_px, len(detector.categories)).to(device))
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            moments = 3 * sum(parameter.numel() * 4 for parameter in detector.parameters())
            total = torch.cuda.get_device_properties(device).total_memory
            return torch.cuda.max_memory_allocated(device) + moments < _SHARE * total
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        detector.zero_grad(set_to_none=True)
        checkpoint.restore_random_state(random)
        for name, value in detector.named_buffers():
            value.copy_(buffers[name])
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return True


def largest_batch(detector: Detector, config: TrainConfig, device: torch.device, side_px: int, most: int = _LARGEST) -> int:
    """The largest power of two, up to `most`, whose worst case fits.

    Raises:
        TrainingError: not even one image fits.
    """
    size = most
    while size >= 1:
        if fits(detector, config, device, size, side_px):
            return size
        size //= 2
    raise TrainingError(
        f"not even one image of {side_px} px fits into the memory of {device}; use a smaller --image-size or a smaller --detector"
    )


def too_small(detector: Detector, config: TrainConfig, device: torch.device) -> TrainingError:
    """The error for a batch that did not fit: says which one would."""
    side = round(config.crop_px * (1 + config.multi_scale))
    detector.zero_grad(set_to_none=True)
    try:
        fitting = largest_batch(detector, config, device, side - side % detector.stride, most=max(config.batch_size // 2, 1))
    except TrainingError as error:
        return error
    accumulate = -(-config.batch_size * config.accumulate // fitting)
    return TrainingError(
        f"a batch of {config.batch_size} images of {side} px does not fit into the memory of {device}; {fitting} would: "
        f"use --batch-size {fitting} --accumulate {accumulate} for the same updates (the last checkpoint is kept)"
    )

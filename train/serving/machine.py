"""What the card of this machine offers to training: `boxwright doctor --gpu`."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from annotate.coco import Category
from collect.console import Console
from collect.errors import MissingServiceError, TrainingError
from train.detectors.detector import open_detector
from train.fitting.config import TrainConfig
from train.fitting.device import has_bf16
from train.fitting.memory import largest_batch, worst_case

#: One of each family, from light to heavy.
TRIED = ("fcos_mobilenet_v2", "yolox_s", "ssdlite320_mobilenet_v3_large", "rtdetr_v2_r18", "dfine_s", "fasterrcnn_resnet50_fpn_v2")
#: Tensor cores came with Volta.
_TENSOR_CORES = 7


def describe_gpu(console: Console, seconds: float = 3.0) -> dict[str, Any]:
    """Compute capability, memory, bf16, and per detector the largest batch, the precision and a measured throughput.

    Raises:
        MissingServiceError: there is no card that torch can use.
    """
    if not torch.cuda.is_available():
        raise MissingServiceError("torch sees no CUDA card; a driver and a CUDA build of torch are needed (`nvidia-smi` shows the driver)")
    device = torch.device("cuda", torch.cuda.current_device())
    card = torch.cuda.get_device_properties(device)
    told: dict[str, Any] = {
        "name": card.name,
        "compute_capability": f"{card.major}.{card.minor}",
        "memory_gb": round(card.total_memory / 1e9, 1),
        "tensor_cores": card.major >= _TENSOR_CORES,
        "bf16": has_bf16(device),
        "matmul_tflops": {name: round(matmul_tflops(device, kind), 1) for name, kind in _KINDS.items()},
    }
    console.table(("", "value"), [(key, str(value)) for key, value in told.items()], title=f"card {device.index}")
    return told | {"detectors": measured(console, TRIED, device, seconds)}


_KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def matmul_tflops(device: torch.device, kind: torch.dtype, side: int = 4096, rounds: int = 20) -> float:
    """TFLOP/s of a square matrix product."""
    a = torch.randn(side, side, device=device, dtype=kind)
    for _ in range(3):
        a @ a
    _finish(device)
    started = time.perf_counter()
    for _ in range(rounds):
        a @ a
    _finish(device)
    return 2 * side**3 * rounds / (time.perf_counter() - started) / 1e12


def measured(console: Console, names: tuple[str, ...], device: torch.device, seconds: float, image_size: int = 0) -> dict[str, Any]:
    """Per detector the largest batch that fits in each precision, and training images per second; the faster one is advised."""
    told = {}
    for name in names:
        console.say(f"trying {name}")
        tried = {kind: throughput(name, device, kind, seconds, image_size) for kind in ("fp32", "bf16")}
        best = max(tried, key=lambda kind: tried[kind]["images_per_s"])
        told[name] = {"image_size": tried[best]["image_size"], "precision": best, **tried}
    cells = [
        [name, entry["image_size"], entry["precision"], *(entry[kind][key] for kind in _KINDS for key in ("batch", "images_per_s"))]
        for name, entry in told.items()
    ]
    console.table(("detector", "pixels", "take", "fp32 batch", "fp32 images/s", "bf16 batch", "bf16 images/s"), cells)
    return told


def throughput(name: str, device: torch.device, precision: str, seconds: float, image_size: int = 0) -> dict[str, Any]:
    """Whole training steps on the worst case (full size, many boxes) at the largest batch; batch 0 = not even one image fits."""
    detector = open_detector(name, (Category(1, "thing"),), image_size, "none").to(device).to(memory_format=torch.channels_last).train()
    config = TrainConfig("", "", detector.categories, detector=name, image_size=detector.image_size, precision=precision)
    try:
        size = largest_batch(
            detector, config, device, detector.image_size, most=64 if device.type == "cuda" else detector.recipe.batch_size
        )
    except TrainingError:
        return {"image_size": detector.image_size, "batch": 0, "images_per_s": 0.0}
    optimiser = torch.optim.AdamW(detector.parameters(), lr=1e-5)
    batch = worst_case(size, detector.image_size, 1).to(device)
    count, started = 0, 0.0
    while not started or time.perf_counter() - started < seconds:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            losses = detector(batch)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        _finish(device)
        count += size if started else 0
        started = started or time.perf_counter()  # the first step warms up
    return {"image_size": detector.image_size, "batch": size, "images_per_s": round(count / (time.perf_counter() - started), 1)}


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mb(device: torch.device) -> float:
    """Most memory so far: of this process's tensors on a card, else of the whole process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device) / 2**20)
    status = Path("/proc/self/status")
    if status.is_file():
        # ru_maxrss would be at least the parent's size at the moment of the fork.
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)

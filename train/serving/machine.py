"""What the card of this machine offers to training: `boxwright doctor --gpu`."""

from __future__ import annotations

import time
from typing import Any

import torch

from annotate.coco import Category
from collect.console import Console
from collect.errors import MissingServiceError
from train.detectors.detector import DETECTORS, open_detector
from train.fitting.config import TrainConfig
from train.fitting.memory import largest_batch, worst_case

#: One of each family, from light to heavy.
_TRIED = ("fcos_mobilenet_v2", "ssdlite320_mobilenet_v3_large", "fasterrcnn_resnet50_fpn_v2", "rtdetr_v2_r18", "dfine_s")


def describe_gpu(console: Console, seconds: float = 3.0) -> dict[str, Any]:
    """Compute capability, memory, bf16, and per detector the largest batch and a measured throughput.

    Raises:
        MissingServiceError: there is no card that torch can use.
    """
    if not torch.cuda.is_available():
        raise MissingServiceError("torch sees no CUDA card; a driver and a CUDA build of torch are needed (`nvidia-smi` shows the driver)")
    card = torch.cuda.get_device_properties(0)
    told: dict[str, Any] = {
        "name": card.name,
        "compute_capability": f"{card.major}.{card.minor}",
        "memory_gb": round(card.total_memory / 1e9, 1),
        "tensor_cores": card.major >= 7,
        "bf16": torch.cuda.is_bf16_supported(),
        "matmul_tflops": {name: round(_matmul(kind), 1) for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16))},
        "detectors": {},
    }
    console.table(("", "value"), [(key, str(value)) for key, value in told.items() if key != "detectors"], title="card 0")
    for name in _TRIED:
        if name in DETECTORS:
            told["detectors"][name] = _measured(name, seconds)
    rows = [(name, entry["image_size"], entry["batch"], entry["images_per_s"]) for name, entry in told["detectors"].items()]
    console.table(("detector", "pixels", "largest batch", "train images/s"), rows)
    return told


def _matmul(kind: torch.dtype, side: int = 4096, rounds: int = 20) -> float:
    """TFLOP/s of a square matrix product."""
    a = torch.randn(side, side, device="cuda", dtype=kind)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(rounds):
        a @ a
    torch.cuda.synchronize()
    return 2 * side**3 * rounds / (time.perf_counter() - started) / 1e12


def _measured(name: str, seconds: float) -> dict[str, Any]:
    device = torch.device("cuda")
    detector = open_detector(name, (Category(1, "thing"),), 0, "none").to(device).train()
    categories = detector.categories
    config = TrainConfig(dataset="", release="", categories=categories, detector=name, image_size=detector.image_size, precision="bf16")
    size = largest_batch(detector, config, device, detector.image_size)
    optimiser = torch.optim.AdamW(detector.parameters(), lr=1e-5)
    batch = worst_case(size, detector.image_size, 1).to(device)
    count, started = 0, 0.0
    while not started or time.perf_counter() - started < seconds:
        with torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_bf16_supported()):
            total = torch.stack(list(detector.loss(batch).values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        started = started or time.perf_counter()  # the first step warms up
        count += size
    return {"image_size": detector.image_size, "batch": size, "images_per_s": round((count - size) / (time.perf_counter() - started), 1)}

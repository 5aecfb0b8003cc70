"""Training throughput in images per CPU-second (or per second on a GPU): our loop against torchvision's reference loop.

    python tests/benchmarks/bench_train.py [--quick]

The same detector (SSDLite320 on MobileNetV3), the same images and batch in the same run; the peer is written after
torchvision's `references/detection/engine.py`: float32, NCHW, SGD, v2 transforms. Then our FCOS in fp32, with frozen stages and, where
the hardware has it, in bf16, which ours uses there throughout. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from bench_loader import coco_of, photographs

from annotate.coco import CocoArrays
from train.data import loader
from train.data.cache import ImageCache
from train.data.loader import Augmentation, SplitImages
from train.data.sampler import Plan
from train.detectors.detector import freeze, open_detector
from train.fitting.checkpoint import Average
from train.fitting.device import find_device, has_bf16

BATCH, SIDE = 8, 320
Clock = Callable[[], float]


def clock_of(device: torch.device) -> Clock:
    """CPU-seconds of this process on a CPU; seconds on a GPU, after it has finished."""
    if device.type == "cpu":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def ours(name: str, coco: CocoArrays, folder: Path, device: torch.device, steps: int, *, bf16: bool, stages: int = 0) -> float:
    """Images per second of our loop's own parts, loading included."""
    detector = open_detector(name, coco.categories, SIDE, "none").to(device).to(memory_format=torch.channels_last)
    frozen = freeze(detector, stages)
    average = Average(detector, 0.998)
    optimiser = torch.optim.AdamW([parameter for parameter in detector.parameters() if parameter.requires_grad], lr=1e-4)
    dataset = SplitImages(coco, folder, ImageCache(folder / "store", 512), Augmentation(), 0)
    clock, begun = clock_of(device), 0.0
    for step, batch in enumerate(
        loader.batches(dataset, Plan(np.ones(len(coco.image_ids_I)), BATCH, 0, (SIDE,)).from_position(0, 0, 99), 0)
    ):
        if step == 2:
            begun = clock()
        if step == steps + 2:
            break
        detector.train()
        frozen.hold()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            losses = detector(batch.to(device))
        optimiser.zero_grad()
        sum(losses.values(), start=torch.zeros((), device=device)).backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 10.0)
        optimiser.step()
        average.update(detector)
    return steps * BATCH / (clock() - begun)


def reference(coco: CocoArrays, folder: Path, device: torch.device, steps: int) -> float:
    """Images per second of torchvision's own way to train the same detector."""
    from PIL import Image
    from torchvision import tv_tensors
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large
    from torchvision.transforms import v2

    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2).to(device).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=4e-5)
    transforms = v2.Compose(
        [v2.ToImage(), v2.RandomIoUCrop(), v2.RandomHorizontalFlip(0.5), v2.ToDtype(torch.float32, scale=True), v2.SanitizeBoundingBoxes()]
    )
    of_image = coco.annotations_of()
    rng = np.random.default_rng(0)
    clock, begun = clock_of(device), 0.0
    for step in range(steps + 2):
        if step == 2:
            begun = clock()
        images, targets = [], []
        for row in rng.integers(0, len(coco.image_ids_I), BATCH):
            with Image.open(folder / coco.file_names_I[row]) as opened:
                image = opened.convert("RGB")
            boxes = tv_tensors.BoundingBoxes(
                torch.from_numpy(coco.boxes_xywh_A4[of_image[row]]), format="XYWH", canvas_size=(image.height, image.width)
            )
            boxes = v2.functional.convert_bounding_box_format(boxes, new_format="XYXY")
            pixels, target = transforms(image, {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64)})
            images.append(pixels.to(device))
            targets.append({"boxes": target["boxes"].as_subclass(torch.Tensor).float().to(device), "labels": target["labels"].to(device)})
        losses = model(images, targets)
        optimiser.zero_grad()
        sum(losses.values(), start=torch.zeros((), device=device)).backward()
        optimiser.step()
    return steps * BATCH / (clock() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    steps = 3 if parser.parse_args().quick else 12
    torch.set_num_threads(1)
    device = find_device("auto")
    bf16 = has_bf16(device)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        coco = coco_of(photographs(folder, (640, 480), 24), (640, 480))
        rates = {
            "ssdlite_torchvision_reference_fp32": reference(coco, folder, device, steps),
            "ssdlite_ours": ours("ssdlite320_mobilenet_v3_large", coco, folder, device, steps, bf16=bf16),
            "fcos_fp32": ours("fcos_mobilenet_v2", coco, folder, device, steps, bf16=False),
            "fcos_two_stages_frozen": ours("fcos_mobilenet_v2", coco, folder, device, steps, bf16=bf16, stages=2),
        }
        if bf16:
            rates["fcos_bf16"] = ours("fcos_mobilenet_v2", coco, folder, device, steps, bf16=True)
    result = {
        "unit": "images per CPU-second" if device.type == "cpu" else "images per second",
        "device": str(device),
        "bf16_in_hardware": bf16,
        **{name: round(value, 2) for name, value in rates.items()},
        "ratio_ssdlite": round(rates["ssdlite_ours"] / rates["ssdlite_torchvision_reference_fp32"], 2),
        **({"ratio_bf16": round(rates["fcos_bf16"] / rates["fcos_fp32"], 2)} if bf16 else {}),
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

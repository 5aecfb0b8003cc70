"""Every family that is one graph leaves as ONNX and finds the same boxes there, after it has learned a little."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from annotate.coco import Category
from train.detectors import transformers_family
from train.detectors.detector import Batch, Detector, open_detector
from train.serving.onnx_export import SAME_IOU, export

CATEGORIES = (Category(1, "red"), Category(5, "blue"))
#: family -> the exporter that writes it, as docs/train.md has it.
EXPORTERS = {
    "fcos_mobilenet_v2": "legacy",
    "yolox_mobilenet_v2": "legacy",
    "ssd300_vgg16": "legacy",
    "fasterrcnn_mobilenet_v2": "legacy",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "legacy",
    "retinanet_resnet18_fpn": "legacy",
    "fcos_resnet50_fpn": "legacy",
    "dfine_n": "legacy",
    "rtdetr_v2_r18": "legacy",
    "deimv2_n": "legacy",
    "lwdetr_t": "dynamo",
    "rfdetr_n": "dynamo",
}
#: Families of the library, made smaller: the graph's operators are the same.
SMALL = {
    "DFine": {"decoder_layers": 2, "num_queries": 20},
    "RTDetrV2": {"decoder_layers": 2, "num_queries": 20},
    "Deimv2": {"decoder_layers": 2, "num_queries": 20},
    "LwDetr": {"num_queries": 20, "group_detr": 2},
    "RfDetr": {"num_queries": 20, "group_detr": 2},
}
#: Steps until their scores differ enough that suppression keeps the same boxes on both sides (SSDLite's did not after 60).
STEPS = {"yolox_mobilenet_v2": 60, "rtdetr_v2_r18": 60}
SIDES = {"ssd300_vgg16": 300, "rfdetr_n": 224, "lwdetr_t": 256}


def opened(name: str) -> Detector:
    side = SIDES.get(name, 128)
    if name not in transformers_family.FAMILIES:
        return open_detector(name, CATEGORIES, side, "none")
    family = transformers_family.FAMILIES[name]
    small = replace(family, offline={**family.offline, **SMALL[family.prefix]})
    return transformers_family.TransformersDetector(small, CATEGORIES, side, "none")


def blocks(side: int) -> Batch:
    """Three pictures with a coloured block each."""
    rng = np.random.default_rng(0)
    images = cv2.GaussianBlur(rng.integers(80, 130, (side, 3 * side, 3), dtype=np.uint8), (5, 5), 0).reshape(side, 3, side, 3)
    images = np.ascontiguousarray(images.transpose(1, 0, 2, 3))
    boxes: list[Tensor] = []
    for place, image in enumerate(images):
        x, y, w, h = (int(share * side) for share in (0.1 + 0.15 * place, 0.2, 0.4, 0.5))
        image[y : y + h, x : x + w] = (220, 20, 20) if place % 2 else (20, 20, 220)
        boxes.append(torch.tensor([[x, y, x + w, y + h]], dtype=torch.float32))
    return Batch(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), boxes, [torch.tensor([(place + 1) % 2]) for place in range(3)])


def taught(detector: Detector, batch: Batch, steps: int) -> None:
    """A few steps, out of the chaos of first weights; then surer than that, so that there are boxes to compare."""
    optimiser = torch.optim.AdamW(detector.parameters(), lr=3e-4)
    detector.train()
    for _ in range(steps):
        optimiser.zero_grad()
        torch.stack(list(detector.loss(batch).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
        optimiser.step()
    state = detector.eval().state_dict()
    with torch.no_grad():
        for name in [*detector.head_rows(), *(name for name in state if "obj_pred" in name)]:
            if name.endswith("bias") and "bbox" not in name:
                state[name] += 4.0


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTERS)
def test_export__finds_the_same_boxes(name: str, tmp_path: Path, one_thread: None) -> None:
    torch.manual_seed(0)
    detector = opened(name)
    batch = blocks(detector.image_size)
    taught(detector, batch, STEPS.get(name, 4))
    done = export(detector, tmp_path / "model.onnx", [image.permute(1, 2, 0).numpy() for image in batch.images_B3HW])
    assert done.exporter == EXPORTERS[name]
    assert done.boxes > 0 and done.worst_iou >= SAME_IOU
    if detector.nms_iou is not None:
        places = export(detector, tmp_path / "places.onnx", [batch.images_B3HW[0].permute(1, 2, 0).numpy()], suppressed=False)
        assert places.opencv == "reads it and finds the same boxes"

"""R-FCN, Fast R-CNN and the detection transformers behind the same contract as all others."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from annotate.boxes import iou_matrix, xywh_from_xyxy
from annotate.coco import Category
from train.detectors import transformers_family
from train.detectors.detector import Batch, Detector, freeze, open_detector
from train.detectors.selective_search import proposals

CATEGORIES = (Category(1, "red"), Category(5, "blue"))
SMALL = {
    "DFine": {"decoder_layers": 2, "num_queries": 20},
    "RTDetrV2": {"decoder_layers": 2, "num_queries": 20},
    "Deimv2": {"decoder_layers": 2, "num_queries": 20},
    "LwDetr": {"num_queries": 20, "group_detr": 2},
    "RfDetr": {"num_queries": 20, "group_detr": 2},
}


def blocks(count: int, side: int, seed: int = 0) -> Batch:
    """Pictures with one coloured block each; the last picture is empty."""
    rng = np.random.default_rng(seed)
    images = rng.integers(90, 120, (count, side, side, 3), dtype=np.uint8)
    boxes, labels = [], []
    for place in range(count - 1):
        x, y = rng.integers(4, side // 2, 2)
        w, h = rng.integers(side // 4, side // 2 - 4, 2)
        label = int(rng.integers(2))
        images[place, y : y + h, x : x + w] = (220, 20, 20) if label == 0 else (20, 20, 220)
        boxes.append(torch.tensor([[x, y, x + w, y + h]], dtype=torch.float32))
        labels.append(torch.tensor([label]))
    boxes.append(torch.zeros(0, 4))
    labels.append(torch.zeros(0, dtype=torch.int64))
    return Batch(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), boxes, labels)


def check_contract(detector: Detector, batch: Batch) -> None:
    detector.train()
    losses = detector.loss(batch)
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    empty = Batch(batch.images_B3HW, [torch.zeros(0, 4)] * len(batch), [torch.zeros(0, dtype=torch.int64)] * len(batch))
    assert torch.isfinite(torch.stack(list(detector.loss(empty).values())).sum())
    freeze(detector, len(detector.stages()))
    assert detector.backbone_parameters()
    detector.eval()
    with torch.no_grad():
        found = detector.predict(batch.images_B3HW)
    assert len(found) == len(batch)
    for one in found:
        assert one.boxes_xyxy_N4.shape == (len(one.scores_N), 4)
        assert set(one.labels_N.tolist()) <= {0, 1}
    state = detector.state_dict()
    assert detector.head_rows()
    for name, rows in detector.head_rows().items():
        owned = [*rows.rows_CR.ravel().tolist(), *rows.shared]
        assert sorted(owned) == list(range(state[name].shape[rows.axis]))


REGION = ["rfcn_mobilenet_v2", "fast_rcnn_mobilenet_v2"]


@pytest.mark.parametrize("name", REGION)
def test_region_detectors__keep_the_contract(name: str) -> None:
    torch.manual_seed(0)
    check_contract(open_detector(name, CATEGORIES, 96, "none"), blocks(2, 96))


@pytest.mark.slow
@pytest.mark.parametrize("name", REGION)
def test_region_detectors__learn_a_batch(name: str) -> None:
    torch.manual_seed(0)
    detector = open_detector(name, CATEGORIES, 160, "auto").train()
    batch = blocks(5, 160)
    optimiser = torch.optim.AdamW(detector.parameters(), lr=1e-3)
    for _ in range(300):
        optimiser.zero_grad()
        torch.stack(list(detector.loss(batch).values())).sum().backward()
        optimiser.step()
    detector.eval()
    hits = 0
    for found, boxes, labels in zip(detector.predict(batch.images_B3HW)[:-1], batch.boxes_xyxy, batch.labels, strict=False):
        best = xywh_from_xyxy(found.boxes_xyxy_N4[:1].double().numpy())
        overlap = iou_matrix(best, xywh_from_xyxy(boxes.double().numpy()))
        hits += bool(len(best) and overlap.max() > 0.5 and found.labels_N[0] == labels[0])
    assert hits >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dfine_n", "rtdetr_v2_r18", "deimv2_n", "lwdetr_t", "rfdetr_n"])
def test_transformers__keep_the_contract_from_scratch(name: str) -> None:
    family = transformers_family.FAMILIES[name]
    small = replace(family, offline={**family.offline, **SMALL[family.prefix]})
    side = {"RfDetr": 224, "LwDetr": 256}.get(family.prefix, 128)
    detector = transformers_family.TransformersDetector(small, CATEGORIES, side, "none")
    assert detector.weights_origin == "none: from scratch"
    check_contract(detector, blocks(2, side))


def test_transformers__weights_of_a_path_that_holds_none(tmp_path) -> None:
    from collect.errors import UsageError

    with pytest.raises(UsageError, match=r"config\.json"):
        open_detector("dfine_n", CATEGORIES, 128, str(tmp_path))


def test_selective_search__covers_what_stands_out() -> None:
    batch = blocks(6, 160, seed=3)
    for image, boxes in zip(batch.images_B3HW[:-1], batch.boxes_xyxy, strict=False):
        noisy = cv2.GaussianBlur(image.permute(1, 2, 0).numpy(), (3, 3), 0)
        found = proposals(noisy)
        overlap = iou_matrix(xywh_from_xyxy(boxes.double().numpy()), xywh_from_xyxy(found.astype(np.float64)))
        assert overlap.max() > 0.7

"""Every detector keeps the contract: losses with and without boxes, boxes inside the input, rows of heads, stages."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from annotate.coco import Category
from collect.errors import UsageError
from train.detectors import dense
from train.detectors.detector import Batch, find_detector, freeze, open_detector
from train.detectors.fcos import Fcos
from train.detectors.table import DETECTORS

CATEGORIES = (Category(3, "disc"), Category(9, "square"))
#: Small enough for every run of the suite; the others only on demand (`-m slow`).
QUICK = (
    "fcos_mobilenet_v2",
    "fcos_mobilenet_v2_small_objects",
    "yolox_nano",
    "yolox_mobilenet_v2",
    "ssdlite320_mobilenet_v3_large",
    "fasterrcnn_mobilenet_v2",
)
OURS = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name, place in DETECTORS.items()
    if any(family in place for family in ("fcos", "yolox", "torchvision_family"))
]


def batch_of(boxes: list[list[list[float]]], side: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (len(boxes), 3, side, side), dtype=torch.uint8, generator=generator)
    labels = [torch.arange(len(each)) % 2 for each in boxes]
    return Batch(images, [torch.tensor(each, dtype=torch.float32).reshape(-1, 4) for each in boxes], labels)


@pytest.mark.parametrize("name", OURS)
def test_contract(name: str) -> None:
    side = 300 if name == "ssd300_vgg16" else 128
    detector = open_detector(name, CATEGORIES, side, "none").train()
    with_boxes = batch_of([[[10, 10, 60, 70], [50, 60, 90, 90]], []], side)
    without = batch_of([[], []], side)
    for batch in (with_boxes, without):
        losses = detector(batch)
        total = sum(losses.values())
        assert torch.isfinite(total)
        detector.zero_grad()
        total.backward()
        missing = [key for key, parameter in detector.named_parameters() if parameter.requires_grad and parameter.grad is None]
        assert not missing or batch is without
    detector.eval()
    found = detector.predict(with_boxes.images_B3HW)
    assert len(found) == 2
    for one in found:
        assert one.boxes_xyxy_N4.shape == (len(one.scores_N), 4)
        assert len(one.scores_N) <= 100
        assert (one.scores_N.diff() <= 0).all()
        assert ((one.labels_N >= 0) & (one.labels_N < 2)).all()
        assert (one.boxes_xyxy_N4 >= 0).all() and (one.boxes_xyxy_N4 <= side).all()
    state = detector.state_dict()
    for key, rows in detector.head_rows().items():
        places = sorted([*rows.rows_CR.ravel().tolist(), *rows.shared])
        assert rows.rows_CR.shape[0] == 2
        assert places == list(range(state[key].shape[rows.axis])), key
    assert len(detector.stages()) >= 3


@pytest.mark.parametrize("name", QUICK)
def test_head_rows__silence_one_category(name: str) -> None:
    """Taking a category's bias far down removes exactly that category from what is found."""
    torch.manual_seed(0)
    detector = open_detector(name, CATEGORIES, 128, "none").eval()
    images = batch_of([[], []], 128).images_B3HW
    state = detector.state_dict()
    with torch.no_grad():
        for key, rows in detector.head_rows().items():
            if key.endswith("bias") and "bbox" not in key:
                state[key][torch.from_numpy(rows.rows_CR[0])] = -50.0
                state[key][torch.from_numpy(rows.rows_CR[1])] = 2.0
        for key, value in state.items():
            if "obj_" in key:  # YOLOX begins with objectness so low that no class is told
                value.zero_()
    detector.load_state_dict(state)
    labels = torch.cat([one.labels_N for one in detector.predict(images)])
    assert set(labels.tolist()) == {1}


def test_faster_rcnn__second_look_is_light_on_mobilenet_v2_only() -> None:
    """torchvision's numbers are for a GPU, and published weights of the other families fit its head."""
    looks = {}
    for name in ("fasterrcnn_mobilenet_v2", "fasterrcnn_mobilenet_v3_large_320_fpn"):
        model = open_detector(name, CATEGORIES, 128, "none").model
        looks[name] = (model.roi_heads.fg_bg_sampler.batch_size_per_image, model.roi_heads.box_head.fc6.out_features)
        assert model.roi_heads.box_predictor.cls_score.out_features == 3
    assert looks == {"fasterrcnn_mobilenet_v2": (64, 256), "fasterrcnn_mobilenet_v3_large_320_fpn": (512, 1024)}


@pytest.mark.parametrize(("name", "rest"), [("fasterrcnn_mobilenet_v2", "fcos_mobilenet_v2"), ("rfcn_mobilenet_v2", "yolox_mobilenet_v2")])
def test_freeze__recipes_on_mobilenet_v2_hold_the_same_layers(name: str, rest: str) -> None:
    """The two-stage families cut the backbone into other stages than ours do."""

    def held(detector: str) -> int:
        opened = open_detector(detector, CATEGORIES, 128, "none")
        freeze(opened, opened.recipe.freeze)
        return sum(parameter.numel() for parameter in opened.parameters() if not parameter.requires_grad)

    assert held(name) == held(rest) > 0


def test_unknown_detector() -> None:
    with pytest.raises(UsageError, match="unknown detector 'fcos_mobilenet_v3'; did you mean 'fcos_mobilenet_v2'"):
        find_detector("fcos_mobilenet_v3")


def test_image_size_that_does_not_fit() -> None:
    with pytest.raises(UsageError, match="not a multiple of 32; try --image-size 416"):
        open_detector("fcos_mobilenet_v2", CATEGORIES, 411, "none")


def test_freeze__holds_weights_and_statistics_still() -> None:
    detector = open_detector("fcos_mobilenet_v2", CATEGORIES, 64, "none")
    frozen = freeze(detector, 2)
    detector.train()
    frozen.hold()
    before = {key: value.clone() for key, value in detector.features[:4].state_dict().items()}
    sum(detector(batch_of([[[10, 10, 40, 40]]], 64)).values()).backward()
    assert all(torch.equal(value, before[key]) for key, value in detector.features[:4].state_dict().items())
    assert detector.features[0][0].weight.grad is None
    assert detector.features[6].conv[0][0].weight.grad is not None
    with pytest.raises(UsageError, match="has 5 stages"):
        freeze(detector, 6)


def test_fcos__each_box_gets_places_on_the_level_of_its_size() -> None:
    detector = Fcos(CATEGORIES, 256)
    points, strides = dense.places(256, 256, detector.strides, torch.device("cpu"))
    boxes = torch.tensor([[20.0, 20, 60, 60], [100.0, 100, 250, 250], [0.0, 0, 256, 256], [5.0, 5, 9, 9]])
    rows = detector._assign(points, strides, boxes)
    for row, stride in ((0, 8.0), (1, 16.0), (2, 32.0)):
        assert set(strides[rows == row].tolist()) == {stride}
    inside = points[rows == 0]
    assert ((inside > 20) & (inside < 60)).all()


def test_fcos__learns_one_picture(one_thread: None) -> None:
    """Thirty steps on one picture and it finds what it was shown, box and class."""
    torch.manual_seed(0)
    detector = open_detector("fcos_mobilenet_v2", CATEGORIES, 128, "none").train()
    images = torch.full((4, 3, 128, 128), 90, dtype=torch.uint8)
    images[:, 0, 20:60, 20:60] = 250
    images[:, 2, 70:120, 60:110] = 250
    target = torch.tensor([[20.0, 20, 60, 60], [60.0, 70, 110, 120]])
    batch = Batch(images, [target] * 4, [torch.tensor([0, 1])] * 4)
    optimiser = torch.optim.AdamW(detector.parameters(), lr=2e-3)
    for _ in range(40):
        optimiser.zero_grad()
        sum(detector(batch).values()).backward()
        optimiser.step()
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        detector(batch)
    found = detector.eval().predict(images[:1])[0]
    best = [int(np.flatnonzero(found.labels_N.numpy() == label)[0]) for label in (0, 1)]
    assert (found.boxes_xyxy_N4[best] - target).abs().max() < 8
    assert found.scores_N[best].min() > 0.3

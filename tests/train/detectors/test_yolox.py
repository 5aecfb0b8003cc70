"""YOLOX: the release's names and sizes, what SimOTA promises, boxes there and back, and that it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from annotate.coco import Category
from train.detectors import dense, yolox
from train.detectors.detector import Batch, open_detector
from train.detectors.yolox import Yolox, assign

CATEGORIES = (Category(3, "disc"), Category(9, "square"))
COCO = tuple(Category(number, str(number)) for number in range(1, 81))
#: Millions of parameters for COCO's 80 classes, from the table in the README of Megvii-BaseDetection/YOLOX.
PUBLISHED = {"yolox_nano": 0.91, "yolox_tiny": 5.06, "yolox_s": 9.0}
#: Some tensors of the released yolox_s.pth: name and shape.
RELEASED = {
    "backbone.backbone.stem.conv.conv.weight": (32, 12, 3, 3),
    "backbone.backbone.dark2.1.m.0.conv2.bn.running_mean": (32,),
    "backbone.backbone.dark5.1.conv2.conv.weight": (512, 1024, 1, 1),
    "backbone.lateral_conv0.conv.weight": (256, 512, 1, 1),
    "backbone.C3_p4.conv3.conv.weight": (256, 256, 1, 1),
    "backbone.bu_conv2.conv.weight": (128, 128, 3, 3),
    "backbone.C3_n4.m.0.conv1.conv.weight": (256, 256, 1, 1),
    "head.stems.2.conv.weight": (128, 512, 1, 1),
    "head.cls_convs.0.1.bn.weight": (128,),
    "head.cls_preds.1.weight": (80, 128, 1, 1),
    "head.reg_preds.0.bias": (4,),
    "head.obj_preds.2.weight": (1, 128, 1, 1),
}


def opened(name: str, categories: tuple[Category, ...] = CATEGORIES, size: int = 96, weights: str = "none") -> Yolox:
    detector = open_detector(name, categories, size, weights)
    assert isinstance(detector, Yolox)
    return detector


@pytest.mark.parametrize("name", PUBLISHED)
def test_size__is_the_published_one(name: str) -> None:
    count = sum(parameter.numel() for parameter in opened(name, COCO).parameters())
    assert count / 1e6 == pytest.approx(PUBLISHED[name], rel=0.01)


def test_checkpoint_of_the_release__loads_by_name_and_leaves_other_heads(tmp_path: Path) -> None:
    """A file laid out as the release's: 80 classes under `model`, beside what its trainer keeps there."""
    torch.manual_seed(0)
    released = opened("yolox_s", COCO)
    state = released.state_dict()
    assert {name: tuple(state[name].shape) for name in RELEASED} == RELEASED
    path = tmp_path / "yolox_s.pth"
    torch.save({"start_epoch": 300, "model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.01}]}}, path)
    torch.manual_seed(1)
    detector = opened("yolox_s", weights=str(path))
    assert "yolox_s.pth" in detector.weights_origin
    mine = detector.state_dict()
    different = {name for name, value in state.items() if mine[name].shape != value.shape or not torch.equal(mine[name], value)}
    assert different == {f"head.cls_preds.{level}.{kind}" for level in range(3) for kind in ("weight", "bias")}


def places_of(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    return dense.places(side, side, (8, 16, 32), torch.device("cpu"))


def test_on_mobilenet_v2__levels_share_all_but_norms_and_the_objectness_bias() -> None:
    """What a short training learns from every box; nothing of the head but this is a level's own."""
    parameters = dict(opened("yolox_mobilenet_v2").head.named_parameters())
    own = {name: value for name, value in parameters.items() if ".norms." in name or name == "obj_bias"}
    assert len(parameters["obj_bias"]) == 3
    assert sum(value.numel() for value in own.values()) < 0.1 * sum(value.numel() for value in parameters.values())
    assert not [name for name in parameters if name not in own and ("convolutions" not in name and "_pred." not in name)]


sides = st.tuples(st.floats(4, 90), st.floats(4, 90))
corners = st.tuples(st.floats(0, 60), st.floats(0, 60))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(corners, sides), min_size=1, max_size=6), st.integers(0, 10_000))
def test_assign__each_place_answers_for_one_box_near_it(boxes: list, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    side = 160
    points, strides = places_of(side)
    wanted = torch.tensor([[x, y, x + w, y + h] for (x, y), (w, h) in boxes])
    labels = torch.arange(len(boxes)) % 2
    found = yolox._decoded(torch.randn(len(points), 4, generator=generator), points, strides)
    objectness, classes = torch.randn(len(points), generator=generator), torch.randn(len(points), 2, generator=generator)
    hit, row, overlap = assign(wanted, labels, found, objectness, classes, points, strides)
    assert len(hit.unique()) == len(hit) == len(row) == len(overlap)
    assert 1 <= len(hit) <= 10 * len(boxes) and ((overlap >= 0) & (overlap <= 1)).all()
    middle = (wanted[row, :2] + wanted[row, 2:]) / 2
    assert ((points[hit] - middle).abs() < 1.5 * strides[hit, None]).all()


def test_assign__a_place_that_says_the_box_takes_it() -> None:
    points, strides = places_of(96)
    boxes = torch.tensor([[20.0, 20.0, 60.0, 52.0], [64.0, 60.0, 90.0, 90.0]])
    found = yolox._decoded(torch.full((len(points), 4), -2.0), points, strides)
    classes = torch.full((len(points), 2), -3.0)
    right = [int((points - (box[:2] + box[2:]) / 2).abs().sum(1).argmin()) for box in boxes]
    found[right], classes[right, [0, 1]] = boxes, 3.0
    hit, row, overlap = assign(boxes, torch.tensor([0, 1]), found, torch.zeros(len(points)), classes, points, strides)
    told = dict(zip(hit.tolist(), row.tolist(), strict=True))
    assert [told[place] for place in right] == [0, 1]
    assert overlap[[hit.tolist().index(place) for place in right]].min() > 0.99


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(corners, sides), min_size=1, max_size=8))
def test_encoded__is_the_inverse_of_decoded(boxes: list) -> None:
    points, strides = (part[: len(boxes)] for part in places_of(96))
    wanted = torch.tensor([[x, y, x + w, y + h] for (x, y), (w, h) in boxes])
    back = yolox._decoded(yolox._encoded(wanted, points, strides), points, strides)
    assert torch.allclose(back, wanted, atol=1e-3)


@pytest.mark.parametrize("name", ["yolox_nano", "yolox_mobilenet_v2"])
def test_begins__with_few_answers_boxes_of_the_levels_sizes_and_no_opinion_on_the_class(name: str) -> None:
    """From Megvii's first biases a short training only unlearns the background, with boxes of a cell that overlap nothing."""
    torch.manual_seed(0)
    detector = opened(name, size=320).train()
    images = torch.randint(0, 256, (2, 3, 320, 320), dtype=torch.uint8)
    with torch.no_grad():
        answer = detector.head(detector.backbone(images))
    _, strides = places_of(320)
    sides = yolox._decoded(answer.boxes, *places_of(320))
    sides = (sides[..., 2:] - sides[..., :2]) / strides[:, None]
    assert (answer.objectness.sigmoid().sum(1) < 15).all()
    assert 3 < float(sides.median()) < 5
    assert float(answer.classes.sigmoid().median()) == pytest.approx(0.5, abs=0.1)


def test_learns_one_picture(one_thread: None) -> None:
    """Fifty steps on one picture and it finds what it was shown, box and class."""
    torch.manual_seed(0)
    detector = opened("yolox_tiny").train()
    images = torch.full((2, 3, 96, 96), 90, dtype=torch.uint8)
    images[:, 0, 10:44, 8:40] = 250
    images[:, 2, 48:90, 50:90] = 250
    target = torch.tensor([[8.0, 10, 40, 44], [50.0, 48, 90, 90]])
    batch = Batch(images, [target] * 2, [torch.tensor([0, 1])] * 2)
    optimiser = torch.optim.AdamW(detector.parameters(), lr=2e-3)
    for _ in range(50):
        optimiser.zero_grad()
        sum(detector(batch).values()).backward()
        optimiser.step()
    found = detector.predict(images)[0]  # by the batch's own statistics: two pictures give batch norm no better ones
    best = [int((found.labels_N == label).nonzero()[0]) for label in (0, 1)]
    assert box_iou(found.boxes_xyxy_N4[best], target).diag().min() > 0.6
    assert found.scores_N[best].min() > 0.3

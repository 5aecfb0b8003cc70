"""Boxes come back in pixels of the original; tiles cover the image and their answers are one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from annotate.coco import Category
from collect.errors import UsageError
from train.detectors.detector import Batch, Detections, Detector, HeadRows, RawDetections, open_detector
from train.serving.looks import Look, agreed, looks_of
from train.serving.predictor import Predictor
from train.serving.tiles import Tiling, in_whole, merge


class BrightThings(Detector):
    """A detector without learning: one box around what is bright, its score the brightness."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raise AssertionError("not trained")

    def predict(self, images_B3HW: Tensor) -> list[RawDetections]:
        found = []
        for image in images_B3HW:
            ys, xs = torch.nonzero(image[0] > 200, as_tuple=True)
            if len(xs):
                box = torch.tensor([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]).float()
                found.append(RawDetections(box, torch.tensor([0.9]), torch.tensor([0])))
            else:
                found.append(RawDetections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)))
        return found

    def head_rows(self) -> Mapping[str, HeadRows]:
        return {}

    def stages(self) -> list[list[nn.Module]]:
        return []

    def export_wrapper(self) -> nn.Module:
        return self


def picture(size_wh: tuple[int, int], xywh: tuple[int, int, int, int]) -> np.ndarray:
    pixels = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    x, y, w, h = xywh
    pixels[y : y + h, x : x + w] = 255
    return pixels


@pytest.mark.parametrize("size_wh", [(64, 64), (1000, 700), (37, 211), (640, 10)])
@pytest.mark.parametrize("square", [True, False])
def test_predictor__boxes_in_original_pixels(size_wh: tuple[int, int], square: bool) -> None:
    detector = BrightThings([Category(5, "bright")], 320)
    detector.square = square
    x, y = size_wh[0] // 4, size_wh[1] // 4
    wanted = (x, y, max(size_wh[0] // 3, 3), max(size_wh[1] // 3, 3))
    (found,) = Predictor(detector, "cpu")([picture(size_wh, wanted)])
    tolerance = 2 * max(1.0, max(size_wh) / 320)
    assert found.boxes_xywh_N4.dtype == np.float64
    assert np.abs(found.boxes_xywh_N4[0] - wanted).max() <= tolerance


def test_predictor__batches_change_nothing() -> None:
    torch.manual_seed(0)
    detector = open_detector("fcos_mobilenet_v2", [Category(1, "a")], 96, "none")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (h, w, 3), np.uint8) for h, w in ((60, 90), (90, 60), (60, 90), (10, 200), (60, 90))]
    alone = list(Predictor(detector, "cpu", batch_size=1)(images))
    together = list(Predictor(detector, "cpu", batch_size=5)(images))
    for a, b in zip(alone, together, strict=True):
        assert np.allclose(a.boxes_xywh_N4, b.boxes_xywh_N4, atol=1e-2)
        assert np.allclose(a.scores_N, b.scores_N, atol=1e-4)


def test_predictor__tiles_see_an_object_once() -> None:
    detector = BrightThings([Category(5, "bright")], 320)
    image = picture((1000, 800), (480, 380, 60, 50))
    (found,) = Predictor(detector, "cpu", tiling=Tiling(320, 0.3))([image])
    assert len(found) == 1
    assert np.abs(found.boxes_xywh_N4[0] - (480, 380, 60, 50)).max() <= 4


@given(width=st.integers(1, 900), height=st.integers(1, 900), side=st.integers(32, 400), overlap=st.floats(0, 0.8))
def test_tiling__covers_every_pixel(width: int, height: int, side: int, overlap: float) -> None:
    windows = Tiling(side, overlap).windows((width, height))
    if max(width, height) <= side:
        assert windows == []
        return
    seen = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in windows:
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        seen[y1:y2, x1:x2] = True
    assert seen.all()


def test_tiling__refuses_what_cannot_be() -> None:
    with pytest.raises(UsageError, match="at least 32 px"):
        Tiling(8)


def test_in_whole__boxes_cut_by_an_inner_edge_are_dropped() -> None:
    found = Detections(np.array([[0.0, 10, 20, 20], [50.0, 50, 10, 10]]), np.array([0.9, 0.8]), np.array([0, 0]))
    inner = in_whole(found, (100, 100, 200, 200), (300, 300))
    assert inner.boxes_xywh_N4.tolist() == [[150, 150, 10, 10]]
    outer = in_whole(found, (0, 0, 100, 100), (300, 300))
    assert len(outer) == 2


def test_merge__is_class_aware() -> None:
    box = np.array([[0.0, 0, 10, 10]])
    parts = [Detections(box, np.array([0.5]), np.array([0])), Detections(box + 0.1, np.array([0.9]), np.array([0]))]
    parts.append(Detections(box, np.array([0.4]), np.array([1])))
    merged = merge(parts, 0.5)
    assert merged.scores_N.tolist() == [0.9, 0.4]
    assert merged.labels_N.tolist() == [0, 1]


def test_looks__are_those_that_training_showed() -> None:
    plain, mirrored, half_turn = Look(), Look(mirrored=True), Look(mirrored=True, upside_down=True)
    assert looks_of(mirror=0, turn=0) == (plain,)
    assert looks_of(mirror=0.5, turn=0) == (plain, mirrored)
    assert looks_of(mirror=0, turn=0.75) == looks_of(mirror=0.5, turn=0.75) == (plain, half_turn)


@pytest.mark.parametrize("looks", [looks_of(0.5, 0), looks_of(0, 0.75), (Look(upside_down=True), Look(), Look(mirrored=True))])
def test_predictor__further_looks_find_the_same_places(looks: tuple[Look, ...]) -> None:
    detector = BrightThings([Category(5, "bright")], 320)
    images = [picture((640, 480), (30, 40, 200, 100)), picture((200, 300), (0, 0, 20, 20)), picture((64, 64), (0, 0, 0, 0))]
    for one, two in zip(Predictor(detector, "cpu")(images), Predictor(detector, "cpu", looks=looks)(images), strict=True):
        assert np.allclose(one.boxes_xywh_N4, two.boxes_xywh_N4, atol=2)
        assert np.allclose(one.scores_N, two.scores_N)


def test_agreed__averages_what_both_looks_see_and_halves_the_rest() -> None:
    plain = Detections(np.array([[10.0, 10, 20, 20], [60.0, 60, 10, 10]]), np.array([0.9, 0.6]), np.array([0, 1]))
    other = Detections(np.array([[74.0, 10, 20, 20], [30.0, 60, 10, 10]]), np.array([0.3, 0.8]), np.array([0, 0]))
    found = agreed([plain, Look(mirrored=True).back(other, (100, 100))])
    assert found.labels_N.tolist() == [0, 0, 1]
    assert np.allclose(found.scores_N, [0.6, 0.4, 0.3])
    assert np.allclose(found.boxes_xywh_N4, [[0.75 * 10 + 0.25 * 6, 10, 20, 20], [60, 60, 10, 10], [60, 60, 10, 10]])
    for nothing in (agreed([Detections.none(), other]), agreed([other, Detections.none()])):
        assert np.allclose(nothing.scores_N, [0.4, 0.15])


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 999))
def test_agreed__keeps_each_object_once_and_loses_no_score(counts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)

    def some(count: int) -> Detections:
        boxes = np.c_[rng.uniform(0, 50, (count, 2)), rng.uniform(5, 40, (count, 2))]
        return Detections(boxes, np.sort(rng.random(count))[::-1], rng.integers(0, 2, count))

    looks = [some(count) for count in counts]
    found = agreed(looks)
    assert max(counts) <= len(found) <= sum(counts)
    assert np.isclose(found.scores_N.sum(), sum(look.scores_N.sum() for look in looks) / len(looks))
    assert (np.diff(found.scores_N) <= 0).all()


class HowManyThreads(BrightThings):
    def predict(self, images_B3HW: Tensor) -> list[RawDetections]:
        self.threads = torch.get_num_threads()
        return super().predict(images_B3HW)


def test_predictor__its_threads_hold_while_it_looks() -> None:
    before = torch.get_num_threads()
    detector = HowManyThreads([Category(5, "bright")], 320)
    for wanted in (before + 1, 0):
        list(Predictor(detector, "cpu", num_threads=wanted)([picture((64, 64), (10, 10, 20, 20))]))
        assert detector.threads == (wanted or before)
        assert torch.get_num_threads() == before

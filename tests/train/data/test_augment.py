"""Boxes must follow the pixels, whatever is done; each trap of albumentations 2.0.8 is shown, then shown to be handled."""

from __future__ import annotations

from pathlib import Path

import albumentations
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collect.errors import NotFoundError, UsageError
from train.data import augment
from train.data.augment import BoxRules, Geometry, Guarded, Sample


def painted(boxes: list[list[float]], size_wh: tuple[int, int] = (120, 90)) -> Sample:
    """Black, with each box filled in a grey of its own: where the pixels are, the box must be."""
    pixels = np.zeros((size_wh[1], size_wh[0], 3), dtype=np.uint8)
    for place, (x1, y1, x2, y2) in enumerate(boxes):
        pixels[int(y1) : int(y2), int(x1) : int(x2)] = 255 - 40 * place
    return Sample(pixels, np.array(boxes, dtype=np.float64).reshape(-1, 4), np.arange(len(boxes)))


def lit(pixels: np.ndarray) -> np.ndarray:
    """The xyxy extent of what is white."""
    ys, xs = np.nonzero(pixels[..., 0] > 200)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], dtype=float)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**20), side=st.sampled_from([64, 96, 160]), view=st.sampled_from([1.0, 1.7]))
def test_throw__the_box_stays_on_its_pixels(seed: int, side: int, view: float) -> None:
    sample = painted([[30, 20, 80, 60]])
    thrown = augment.throw(sample, (side, side), Geometry(view=view, rules=BoxRules(0.05, 4)), np.random.default_rng(seed))
    assert thrown.pixels.shape == (side, side, 3)
    for box in thrown.boxes_N4:
        assert np.abs(box - lit(thrown.pixels)).max() < 2.5
        assert (box >= 0).all() and (box <= side).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_throw__what_is_left_of_a_box_is_judged_against_the_whole_box(seed: int) -> None:
    sample = painted([[30, 20, 80, 60]])
    rules = BoxRules(min_visible=0.5, min_side_px=3)
    geometry = Geometry(zoom=(1.5, 4.0), aspect=1.0, mirror=0.0, rules=rules)
    thrown = augment.throw(sample, (64, 64), geometry, np.random.default_rng(seed))
    if len(thrown.boxes_N4):
        sides = thrown.boxes_N4[0, 2:] - thrown.boxes_N4[0, :2]
        least_zoom = 1.5 * min(64 / 120, 64 / 90)
        assert sides.prod() >= 0.5 * 50 * 40 * least_zoom**2 * 0.9
        assert sides.min() >= 3


def test_letterbox__is_what_the_predictor_does() -> None:
    boxed = augment.letterbox(painted([[30, 20, 80, 60]]), (240, 240))
    assert boxed.boxes_N4.tolist() == [[60, 40, 160, 120]]
    assert (boxed.pixels[180:] == augment.GREY).all()


def test_mirror__twice_is_nothing() -> None:
    sample = painted([[30, 20, 80, 60], [1, 2, 3, 4]])
    again = augment.mirror(augment.mirror(sample))
    assert np.array_equal(again.pixels, sample.pixels)
    assert np.array_equal(again.boxes_N4, sample.boxes_N4)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turn__boxes_stay_on_their_pixels(quarters: int) -> None:
    turned = augment.turn(painted([[30, 20, 80, 60]]), quarters)
    ys, xs = np.nonzero((turned.pixels == 255).all(axis=2))
    assert turned.boxes_N4.tolist() == [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]


def test_turn__four_quarters_are_nothing() -> None:
    sample = painted([[30, 20, 80, 60], [1, 2, 3, 4]])
    again = augment.turn(augment.turn(augment.turn(sample, 1), 1), 2)
    assert np.array_equal(again.pixels, sample.pixels)
    assert np.array_equal(again.boxes_N4, sample.boxes_N4)


def test_throw__turns_by_chance() -> None:
    wide, upright = painted([[30, 20, 80, 60]]), 0
    for seed in range(200):
        geometry = Geometry(zoom=(1.0, 1.0), aspect=1.0, mirror=0.0, focus=0.0, turn=0.75)
        ((x1, y1, x2, y2),) = augment.throw(wide, (120, 120), geometry, np.random.default_rng(seed)).boxes_N4
        upright += y2 - y1 > x2 - x1
    assert 50 < upright < 100  # half of all, the odd quarter turns


def test_mosaic__every_box_lies_on_its_pixels() -> None:
    parts = [painted([[30, 20, 80, 60]]) for _ in range(4)]
    whole = augment.mosaic(parts, (128, 128), Geometry(zoom=(1.0, 1.2)), np.random.default_rng(1))
    assert len(whole.boxes_N4) >= 3
    for x1, y1, x2, y2 in whole.boxes_N4:
        assert (whole.pixels[int(y1) + 2 : int(y2) - 2, int(x1) + 2 : int(x2) - 2] > 200).mean() > 0.95


def test_mixup__has_the_boxes_of_both() -> None:
    mixed = augment.mixup(painted([[30, 20, 80, 60]]), painted([[0, 0, 10, 10]]), np.random.default_rng(0))
    assert mixed.boxes_N4.tolist() == [[30, 20, 80, 60], [0, 0, 10, 10]]
    assert 0 < mixed.pixels[50, 50, 0] < 255


def test_copy_paste__pastes_pixels_with_boxes_and_hides_nothing() -> None:
    base = painted([[0, 0, 30, 30]])
    pasted = augment.copy_paste(base, painted([[40, 40, 60, 55]]), np.random.default_rng(3))
    assert len(pasted.boxes_N4) == 2
    x1, y1, x2, y2 = pasted.boxes_N4[1].astype(int)
    assert (x2 - x1, y2 - y1) == (20, 15)
    assert (pasted.pixels[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3] > 200).all()


def raw(transforms: list, boxes: list[list[float]], labels: list[int], **parameters: object) -> dict:
    pipeline = albumentations.Compose(
        transforms, bbox_params=albumentations.BboxParams("pascal_voc", label_fields=["labels"], **parameters)
    )
    return pipeline(image=np.zeros((100, 100, 3), np.uint8), bboxes=np.array(boxes, dtype=float), labels=labels)


def sample_of(boxes: list[list[float]], side: int = 100) -> Sample:
    return Sample(np.zeros((side, side, 3), np.uint8), np.array(boxes, dtype=np.float64), np.arange(len(boxes)) + 5)


def test_guarded__a_box_without_width() -> None:
    with pytest.raises(ValueError, match="x_max is less than or equal to x_min"):
        raw([albumentations.HorizontalFlip(p=1)], [[10, 10, 10, 20]], [1])
    found = Guarded([albumentations.HorizontalFlip(p=1)])(sample_of([[10, 10, 10, 20], [10, 10, 30, 20]]), 0)
    assert np.allclose(found.boxes_N4, [[70, 10, 90, 20]], atol=1e-4)
    assert found.labels_N.tolist() == [6]


def test_guarded__a_sliver_after_a_crop() -> None:
    crop = [albumentations.Crop(0, 0, 50, 50)]
    assert len(raw(crop, [[49, 10, 99, 40]], [1])["bboxes"]) == 1
    assert len(Guarded(crop)(sample_of([[49, 10, 99, 40]]), 0).boxes_N4) == 0


def test_guarded__visibility_over_two_crops() -> None:
    """Each crop leaves more than a fifth, both together a tenth: alone, albumentations keeps it."""
    crops = [albumentations.Crop(0, 0, 64, 100), albumentations.Crop(0, 0, 64, 40)]
    box = [[20, 20, 100, 100]]
    kept = raw(crops, box, [1], min_visibility=0.2)["bboxes"]
    assert len(kept) == 1
    assert (kept[0][2] - kept[0][0]) * (kept[0][3] - kept[0][1]) / 6400 < 0.2
    guarded = Guarded(crops, BoxRules(min_visible=0.2))
    assert len(guarded(sample_of(box), 0).boxes_N4) == 0


def test_guarded__labels_stay_whole_numbers() -> None:
    sample = sample_of([[10, 10, 30, 20], [40, 40, 60, 70]])
    found = Guarded([albumentations.HorizontalFlip(p=1)])(sample, 0)
    assert found.labels_N.dtype == np.int64
    assert sorted(found.labels_N.tolist()) == [5, 6]


def test_guarded__boxes_that_do_not_move_keep_every_bit() -> None:
    """Through albumentations alone coordinates become float32."""
    box = [[0.1, 0.2, 33.333333333333336, 66.66666666666667]]
    assert raw([albumentations.HorizontalFlip(p=0)], box, [1])["bboxes"].astype(float).tolist() != box
    assert Guarded([albumentations.HorizontalFlip(p=0)])(sample_of(box), 0).boxes_N4.tolist() == box


def test_guarded__rotation_does_not_inflate() -> None:
    """At 45° the largest box has twice the area; the box of the ellipse inside keeps it."""
    turn = [albumentations.Rotate(limit=(45, 45), p=1)]
    box = [[35, 35, 65, 65]]
    inflated = raw(turn, box, [1])["bboxes"][0]
    assert (inflated[2] - inflated[0]) * (inflated[3] - inflated[1]) > 1.8 * 900
    (tight,) = Guarded(turn)(sample_of(box), 0).boxes_N4
    assert (tight[2] - tight[0]) * (tight[3] - tight[1]) < 1.15 * 900


def test_guarded__depends_on_its_seed_only() -> None:
    guarded = Guarded(augment.pixel_transforms(1.0))
    noise = Sample(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8), np.zeros((0, 4)), np.zeros(0, np.int64))
    first = guarded(noise, 7).pixels
    for other in range(5):
        guarded(noise, other)
    assert np.array_equal(first, guarded(noise, 7).pixels)
    assert any(not np.array_equal(first, guarded(noise, seed).pixels) for seed in range(8, 14))


def test_own_transforms__read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    albumentations.save(albumentations.Compose([albumentations.HorizontalFlip(p=1)]), path)
    found = Guarded(augment.own_transforms(path))(sample_of([[10, 10, 30, 20]]), 0)
    assert np.allclose(found.boxes_N4, [[70, 10, 90, 20]], atol=1e-4)
    with pytest.raises(NotFoundError, match=r"albumentations\.save"):
        augment.own_transforms(tmp_path / "none.json")
    path.write_text('{"x": 1}')
    with pytest.raises(UsageError, match="no albumentations pipeline"):
        augment.own_transforms(path)


def test_shrinking_does_not_alias() -> None:
    """A fine checkerboard becomes even grey, not a coarse pattern."""
    board = np.indices((400, 400)).sum(0) % 2 * 255
    sample = Sample(cv2.cvtColor(board.astype(np.uint8), cv2.COLOR_GRAY2RGB), np.zeros((0, 4)), np.zeros(0, np.int64))
    small = augment.letterbox(sample, (50, 50)).pixels
    assert small.std() < 3

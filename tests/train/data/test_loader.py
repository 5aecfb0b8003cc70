"""Decoding, the store, the plan of batches, and the loader in one process and in several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from collect.errors import UsageError
from train.data import cache, loader, sampler
from train.data.cache import ImageCache, UnreadableError
from train.data.loader import Augmentation, SplitImages
from train.data.release import open_release
from train.data.sampler import Key, Plan

MakeRelease = Callable[..., object]


def split_of(make_release: MakeRelease, augmentation: Augmentation | None = None, **counts: int) -> SplitImages:
    release = open_release(make_release(**counts))
    store = ImageCache(release.cache, 96)
    return SplitImages(release.splits["train"], release.images, store, augmentation or Augmentation(), seed=5)


def test_decode__exif_orientation_is_applied_once(tmp_path: Path) -> None:
    left_white = np.zeros((20, 40, 3), np.uint8)
    left_white[:, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise for viewing
    Image.fromarray(left_white).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(left_white).save(tmp_path / "turned.png", exif=exif)
    for name in ("turned.jpg", "turned.png"):
        pixels = cache.decode(tmp_path / name)
        assert pixels.shape == (40, 20, 3)
        assert pixels[:9].mean() > 240
        assert pixels[15:].mean() < 15


def test_decode__large_jpeg_divided_while_decoding(tmp_path: Path) -> None:
    """The same picture, turned the same way, and as good as decoded whole and then shrunk."""
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 255, (12, 16, 3), np.uint8), (1600, 1200), interpolation=cv2.INTER_CUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth).save(tmp_path / "large.jpg", exif=exif, quality=95)
    whole = cache.shrink(cache.decode(tmp_path / "large.jpg"), 400)
    reduced = cache.decode(tmp_path / "large.jpg", 400)
    assert reduced.shape == whole.shape == (400, 300, 3)
    assert np.abs(whole.astype(int) - reduced.astype(int)).mean() < 2
    assert cache.decode(tmp_path / "large.jpg", 500).shape == (800, 600, 3)
    assert cache.decode(tmp_path / "large.jpg", 900).shape == (1600, 1200, 3)


def test_decode__red_is_first_and_transparency_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 255)).save(tmp_path / "red.png")
    assert cache.decode(tmp_path / "red.png")[0, 0].tolist() == [255, 0, 0]
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.webp", lossless=True)
    assert cache.decode(tmp_path / "clear.webp").min() == 255
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "deep.png")
    assert abs(int(cache.decode(tmp_path / "deep.png")[0, 0, 0]) - 40000 // 256) <= 1


def test_decode__odd_files_are_read_or_refused_in_words(real_data: Path) -> None:
    files = [path for path in sorted((real_data / "odd-images").rglob("*")) if path.is_file() and path.stat().st_size < 3_000_000]
    assert len(files) > 100
    outcomes = Counter()
    for path in files:
        try:
            pixels = cache.decode(path)
        except UnreadableError as error:
            assert path.name in str(error)
            outcomes["refused"] += 1
        else:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3 and pixels.shape[2] == 3
            outcomes["read"] += 1
    assert outcomes["read"] > 50
    assert outcomes["refused"] > 10


def test_cache__decodes_once_and_shrinks(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (300, 600, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    store = ImageCache(tmp_path / "store", 200)
    first = store.read(tmp_path / "a.png", "ab" * 32)
    assert first.shape == (100, 200, 3)
    (tmp_path / "a.png").unlink()
    assert np.array_equal(store.read(tmp_path / "a.png", "ab" * 32), first)
    with pytest.raises(UnreadableError):
        store.read(tmp_path / "a.png", "cd" * 32)


def test_cache__a_spoiled_entry_is_made_again(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 30, 3), np.uint8))
    store = ImageCache(tmp_path / "store", 200)
    store.read(tmp_path / "a.png", "ab" * 32)
    (entry,) = (tmp_path / "store").rglob("*.npy")
    entry.write_bytes(entry.read_bytes()[:50])
    assert store.read(tmp_path / "a.png", "ab" * 32).shape == (30, 30, 3)


def test_cache__a_full_disk_only_costs_time(small_disk: Path, tmp_path: Path) -> None:
    """4 MB are less than what must stay free: nothing is kept, everything is read."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 30, 3), np.uint8))
    store = ImageCache(small_disk / "store", 200)
    assert store.read(tmp_path / "a.png", "ab" * 32).shape == (30, 30, 3)
    assert not list(small_disk.rglob("*.npy"))


def test_sample__depends_on_its_key_only(make_release: MakeRelease) -> None:
    one, other = split_of(make_release, Augmentation(mosaic=0.5, mixup=0.3, copy_paste=0.5)), None
    other = SplitImages(one.coco, one.folder, ImageCache(None, 96), one.augmentation, 5)
    keys = [Key(epoch, image, 0, 64) for epoch in range(2) for image in range(8)]
    forward = [one[key] for key in keys]
    backward = [other[key] for key in reversed(keys)][::-1]
    for (a, _), (b, _) in zip(forward, backward, strict=True):
        assert np.array_equal(a.pixels, b.pixels)
        assert np.array_equal(a.boxes_N4, b.boxes_N4)
    assert not np.array_equal(forward[0][0].pixels, forward[8][0].pixels)


def test_batches__the_same_with_workers_and_without(make_release: MakeRelease) -> None:
    dataset = split_of(make_release)
    plan = Plan(np.ones(8), 4, 0, (64, 96))
    alone = list(loader.batches(dataset, plan.from_position(0, 0, 2), 0))
    among_two = list(loader.batches(dataset, plan.from_position(0, 0, 2), 2))
    assert len(alone) == len(among_two) == 4
    for a, b in zip(alone, among_two, strict=True):
        assert a.images_B3HW.dtype == torch.uint8
        assert torch.equal(a.images_B3HW, b.images_B3HW)
        assert all(torch.equal(x, y) for x, y in zip(a.boxes_xyxy, b.boxes_xyxy, strict=True))
        assert a.names == b.names


def test_batches__leave_the_global_random_state_alone(make_release: MakeRelease) -> None:
    dataset = split_of(make_release)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(loader.batches(dataset, Plan(np.ones(8), 4, 0, (64,)).from_position(0, 0, 1), 0))
    assert torch.equal(before, torch.get_rng_state())


def test_batches__labels_are_contiguous_and_boxes_float32(make_release: MakeRelease) -> None:
    dataset = split_of(make_release)
    (batch,) = loader.batches(dataset, Plan(np.ones(8), 8, 0, (96,)).from_position(0, 0, 1), 0)
    assert {int(label) for labels in batch.labels for label in labels} == {0, 1}
    assert all(boxes.dtype == torch.float32 for boxes in batch.boxes_xyxy)
    assert all(labels.dtype == torch.int64 for labels in batch.labels)
    assert any(len(boxes) == 0 for boxes in batch.boxes_xyxy), "images without boxes train too"


def test_batches__corrupt_images_are_named_and_skipped(make_release: MakeRelease, split_images: Callable) -> None:
    dataset = make_release()
    broken, gone = split_images(dataset, "train")[:2]
    broken.write_bytes(broken.read_bytes()[:200])
    gone.unlink()
    release = open_release(dataset)
    images = SplitImages(release.splits["train"], release.images, ImageCache(None, 96), Augmentation(), 0)
    batches = list(loader.batches(images, Plan(np.ones(8), 4, 0, (64,)).from_position(0, 0, 1), 0))
    failures = [failure for batch in batches for failure in batch.failures]
    assert sum(len(batch) for batch in batches) == 6
    assert len(failures) == 2
    assert all(any(path.name in failure for failure in failures) for path in (broken, gone))


def test_plan__resumes_in_the_middle_of_an_epoch() -> None:
    plan = Plan(np.ones(10), 3, 7, (64, 96))
    whole = list(plan.from_position(0, 0, 3))
    assert list(plan.from_position(1, 2, 3)) == whole[4 + 2 :]
    assert whole[:4] != whole[4:8]


def test_plan__ranks_share_an_epoch_evenly() -> None:
    plans = [Plan(np.ones(11), 2, 7, (64, 96), rank, 2) for rank in range(2)]
    parts = [plan.batches(0) for plan in plans]
    assert len(parts[0]) == len(parts[1]) == 3
    assert [batch[0].side_px for batch in parts[0]] == [batch[0].side_px for batch in parts[1]]
    assert {key.image for part in parts for batch in part for key in batch} == set(range(11))


@pytest.mark.parametrize("world", [1, 2])
def test_plan__every_epoch_is_as_long_though_repeats_are_decided_by_chance(world: int) -> None:
    """A training counts its epochs in batches: one that came out shorter ended it with no batch left."""
    repeats = np.random.default_rng(1).uniform(1, 3, 21)
    for rank in range(world):
        plan = Plan(repeats, 2, 7, (64, 96), rank, world)
        epochs = [plan.batches(epoch) for epoch in range(30)]
        assert {len(batches) for batches in epochs} == {plan.per_epoch()}
        assert {len(batch) for batches in epochs for batch in batches} == {2}
        assert len(list(plan.from_position(0, 0, 30))) == 30 * plan.per_epoch()
    shown = Counter(image for epoch in range(400) for image, _ in plan.order(epoch))
    assert np.allclose([shown[image] / 400 for image in range(21)], repeats, atol=0.1)


def test_repeats__rare_classes_come_more_often(make_release: MakeRelease) -> None:
    release = open_release(make_release(train=40, empty_every=0))
    train = release.splits["train"]
    rare = train.labels_A() == 0
    keep = ~rare
    keep[np.flatnonzero(rare)[:2]] = True
    thinned = type(train)(**{**vars(train), **{name: getattr(train, name)[keep] for name in vars(train) if name.endswith(("_A", "_A4"))}})
    with_rare = np.unique(thinned.annotation_image_A[thinned.labels_A() == 0])
    for sampling in ("repeat-factor", "class-balanced"):
        repeats = sampler.repeats(thinned, sampling)
        assert repeats.shape == (40,)
        assert repeats[with_rare].min() > 1.5
        assert np.delete(repeats, with_rare).max() < 1.2
    shown = Counter(image for image, _ in Plan(sampler.repeats(thinned, "repeat-factor"), 4, 0, (64,)).order(0))
    assert shown[int(with_rare[0])] >= 1
    with pytest.raises(UsageError, match="unknown sampling 'fair'"):
        sampler.repeats(thinned, "fair")

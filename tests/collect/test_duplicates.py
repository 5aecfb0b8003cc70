"""Near-duplicates: complete to the radius, crops and mirror images found, other pictures left alone."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from collect.images.duplicates import HashTable, NearIndex, clusters, near_pairs
from collect.images.hashing import Look, look, looks
from collect.images.inspect import inspect
from collect.images.similarity import confirmed
from collect.records import Picture
from tests.collect.collecting import encoded, picture


def hashes_near_each_other(seed: int, number: int) -> np.ndarray:
    """Random hashes, each second one a few bits from the one before."""
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, number, dtype=np.uint64)
    for place in range(1, number, 2):
        bits = random.choice(64, size=int(random.integers(0, 16)), replace=False)
        hashes[place] = hashes[place - 1] ^ np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64)) if len(bits) else hashes[place - 1]
    return hashes


def brute_force(left: np.ndarray, right: np.ndarray, radius: int) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in np.argwhere(np.bitwise_count(left[:, None] ^ right[None, :]) <= radius)}


def pairs(left: np.ndarray, right: np.ndarray | None, radius: int) -> list[tuple[int, int]]:
    return [pair for blocks in near_pairs(left, right, radius) for pair in zip(*(block.tolist() for block in blocks), strict=True)]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 13))
def test_the_join_is_complete_to_its_radius(seed: int, radius: int) -> None:
    hashes = hashes_near_each_other(seed, 300)
    joined = {(min(pair), max(pair)) for pair in pairs(hashes, None, radius)}
    assert joined == {(a, b) for a, b in brute_force(hashes, hashes, radius) if a < b}
    left, right = hashes[:100], hashes[100:]
    across = set(pairs(left, right, radius))
    assert across == brute_force(left, right, radius)


def test_the_table_finds_the_same_in_bands_as_one_by_one() -> None:
    hashes = hashes_near_each_other(7, 120_000)
    table = HashTable(10, 4096)
    for start in range(0, len(hashes), 30_000):
        part = hashes[start : start + 30_000]
        table.extend(part, np.arange(start, start + len(part), dtype=np.int32))
    asked = hashes[[0, 1, 60_001, 119_998]]
    distances = np.bitwise_count(asked[:, None] ^ hashes)
    expected = {(int(which), int(place), int(distances[which, place])) for which, place in np.argwhere(distances <= 10)}
    assert set(table.within(asked)) == expected
    assert len(expected) > 4


def seen(image: Image.Image) -> Picture:
    verdict = inspect(encoded(image, "JPEG", quality=90))
    assert isinstance(verdict, Picture)
    return verdict


def suspects_and_match(held: Image.Image, new: Image.Image) -> bool:
    """Whether `new` would be taken for a duplicate of `held` among a few hundred others."""
    index = NearIndex(10)
    old, fresh = seen(held), seen(new)
    held_all = {"ab" * 32: old, **{f"{number:064x}": seen(picture(1000 + number)) for number in range(50)}}
    windows = [look(p.phash, p.signature).windows for p in held_all.values()]
    index.extend(list(held_all), [p.phash for p in held_all.values()], windows)
    found = [sha256 for sha256, _bits in index.suspects([look(fresh.phash, fresh.signature)])[0]]
    return "ab" * 32 in found and confirmed(fresh.signature, old.signature)


def test_what_an_image_goes_through_on_the_web_is_recognised() -> None:
    image = picture(5, (400, 300))
    assert suspects_and_match(image, image.resize((200, 150)))
    assert suspects_and_match(image, image.resize((300, 300)))
    assert suspects_and_match(image, ImageEnhance.Brightness(image).enhance(1.3))
    assert suspects_and_match(image, ImageOps.grayscale(image))
    assert suspects_and_match(image, ImageOps.mirror(image))
    cropped = image.crop((20, 15, 380, 285))
    assert suspects_and_match(image, cropped)
    assert suspects_and_match(cropped, image)


def test_a_crop_to_seven_eighths_is_recognised_wherever_it_was_cut(real_data: Path) -> None:
    source, recognised, tried = random.Random(3), 0, 0
    for path in sorted((real_data / "raccoon").rglob("*.jpg"))[:30]:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        width, height = image.width * 7 // 8, image.height * 7 // 8
        left, top = source.randint(0, image.width - width), source.randint(0, image.height - height)
        cropped = image.crop((left, top, left + width, top + height))
        recognised += confirmed(seen(cropped).signature, seen(image).signature)
        tried += 1
    assert recognised >= 0.9 * tried == 27  # three in four before the parts were met more finely


def test_other_pictures_are_not_taken_for_duplicates() -> None:
    pictures = [seen(picture(number)) for number in range(60)]
    assert len(set(clusters([p.phash for p in pictures], [p.signature for p in pictures]))) == 60
    assert not any(confirmed(one.signature, other.signature) for one in pictures[:20] for other in pictures[:20] if one is not other)


def test_clusters_join_through_others_and_keep_their_order() -> None:
    image = picture(3, (400, 300))
    pictures = [seen(picture(1)), seen(image), seen(picture(2)), seen(image.resize((100, 75))), seen(ImageOps.mirror(image))]
    phashes, signatures = [p.phash for p in pictures], [p.signature for p in pictures]
    assert clusters(phashes, signatures) == [0, 1, 2, 1, 1]
    assert clusters(phashes) == [0, 1, 2, 1, 3]  # without thumbnails a mirror image is another picture
    assert clusters([], []) == []


def test_an_index_read_from_the_ledger_answers_as_the_one_that_grew() -> None:
    pictures = [seen(picture(number)) for number in range(8)]
    looked = [look(p.phash, p.signature) for p in pictures]
    grown, read = NearIndex(10), NearIndex(10)
    for shown, one in zip(pictures, looked, strict=True):
        grown.extend([shown.sha256], [shown.phash], [one.windows])
    read.extend([p.sha256 for p in pictures], [p.phash for p in pictures], [one.windows for one in looked])
    assert grown.suspects(looked) == read.suspects(looked) == [grown.suspects([one])[0] for one in looked]
    assert [near[0] for near in read.suspects(looked)] == [(p.sha256, 0) for p in pictures]
    bare = Look(bytes.fromhex(pictures[0].phash))
    assert read.suspects([looked[1], bare])[1][0] == (pictures[0].sha256, 0)
    assert read.suspects([]) == [] and NearIndex(10).suspects([bare]) == [[]]


def test_looks__of_many_are_those_of_each() -> None:
    pictures = [seen(picture(number)) for number in range(7)]
    kept = [(p.phash, p.signature) for p in pictures]
    kept.insert(3, (pictures[0].phash, ""))
    together = looks(kept)
    for (phash, signature), one in zip(kept, together, strict=True):
        assert one == look(phash, signature)
    assert len({one.mirror for one in together}) == 8
    assert looks([]) == []

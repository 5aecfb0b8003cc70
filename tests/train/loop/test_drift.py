"""Drift: chance differences are not called drift, real ones are; weak slices; the verdict's page."""

from __future__ import annotations

import numpy as np

from annotate import coco
from collect.workspace import Dataset
from train.data.release import Release
from train.loop.drift import compare, permutation_test, weak_slices
from train.loop.verdict_page import class_rows, markdown, write


def test_permutation_test__rarely_cries_wolf_and_sees_a_shift():
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        alarms += permutation_test(rng.normal(size=(60, 5)), np.arange(60) >= 40, rng)[1] < 0.05
    assert alarms <= 9, "binomial(60, .05) exceeds 9 with a chance under .2 %"
    rng = np.random.default_rng(0)
    shifted = rng.normal(size=(60, 5)) + (np.arange(60) >= 40)[:, None]
    distance, chance = permutation_test(shifted, np.arange(60) >= 40, rng)
    assert chance < 0.01 and distance > 0.5
    assert permutation_test(np.ones((5, 2)), np.arange(5) > 2, rng) == (0.0, 1.0)
    assert permutation_test(shifted, np.zeros(60, dtype=bool), rng) == (0.0, 1.0)


def test_compare__larger_images_from_another_source(make_dataset, noise, monkeypatch):
    monkeypatch.setattr("train.fitting.weights.imagenet_mobilenet_v2", lambda: None)  # the histogram: nothing is downloaded
    dataset, records = make_dataset(
        "pets", ["cat"], [noise(k, (64, 48)) for k in range(12)] + [noise(k, (160, 120)) for k in range(50, 60)]
    )
    assert isinstance(dataset, Dataset)
    shift = compare(dataset, records[:12], records[12:])
    assert shift["size"]["drifted"]
    assert shift["size"]["words"] == "median megapixels 0.019, was 0.0031"
    assert not shift["source"]["drifted"]
    assert set(shift) == {"source", "size", "brightness", "look"}
    same = compare(dataset, records[:6], records[6:12])
    assert not any(row["drifted"] for row in same.values())


def test_weak_slices__a_class_that_is_missed(tmp_path):
    images = [{"id": k, "file_name": f"{k}.png", "width": 200, "height": 200, "sha256": f"{k:064x}", "split": "test"} for k in range(1, 41)]
    annotations, results = [], []
    for image in images:
        for category, box in ((1, [10.0, 10.0, 50.0, 50.0]), (2, [100.0, 100.0, 50.0, 50.0])):
            annotations.append({"id": len(annotations) + 1, "image_id": image["id"], "category_id": category, "bbox": box, "area": 2500.0})
            if category == 1 or image["id"] <= 4:
                results.append({"image_id": image["id"], "category_id": category, "bbox": box, "score": 0.9})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}
    empty = {**document, "images": [], "annotations": []}
    parts = {"train": empty, "val": empty, "test": document}
    release = Release("pets", "v001", parts, {split: coco.arrays(part) for split, part in parts.items()}, tmp_path, tmp_path)
    (weak,) = weak_slices(release, {}, results)
    assert (weak["cut"], weak["slice"], weak["boxes"]) == ("class", "dog", 40)
    assert weak["recall"] == 0.1 and weak["overall"] == 0.55
    assert weak_slices(release, {}, []) == []
    every = [{"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9} for a in annotations]
    assert weak_slices(release, {}, every) == [], "nothing is weak where all is found"


RESULT = {
    "run": "v002-x-1", "verdict": "kept_out", "reason": "kept out: ΔAP -1.00 <worse>", "frozen": "the same",
    "classes": {"cat": {"champion_ap": 0.5, "challenger_ap": 0.4, "delta_ap": -0.1, "interval": [-0.2, 0.0], "boxes": 40}},
    "only_challenger": {"hen": 0.3}, "only_boxes": {"hen": 12},
    "drift": {"new_images": 3, "old_images": 9, "gone_images": 0, "shift": {}, "weak_slices": []},
}  # fmt: skip


def test_page__text_is_escaped_and_a_second_writing_replaces_the_first(tmp_path):
    (tmp_path / "report.html").write_text("<main><h1>x</h1>\n<h2>Learning</h2></main>")
    write(tmp_path, RESULT)
    write(tmp_path, RESULT)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<h2>Gate: kept out</h2>") == 1
    assert page.index("Gate") < page.index("Learning")
    assert "&lt;worse&gt;" in page
    text = markdown(RESULT)
    assert "| cat | 0.500 | 0.400 | -0.100 | -0.200 to +0.000 | 40 |" in text
    assert "new class hen: AP 0.300 on 12 boxes" in text
    assert (tmp_path / "retrain.md").read_text() == text


def test_page__of_several_classes_the_mean_that_the_verdict_rests_on_comes_first():
    (only,) = class_rows(RESULT)
    assert only[0] == "cat", "of one class the mean says the same"
    both = {"cat": RESULT["classes"]["cat"], "dog": RESULT["classes"]["cat"]}
    whole = {"champion_ap": 0.5, "challenger_ap": 0.4, "delta_ap": -0.1, "interval": [-0.15, -0.05], "boxes": 80}
    assert class_rows({**RESULT, **whole, "classes": both})[0] == ("mean of the 2", "0.500", "0.400", "-0.100", "-0.150 to -0.050", "80")

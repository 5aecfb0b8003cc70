"""Bad COCO: all of it is found in one pass, by id; what can be mended is, the rest is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from pycocotools import mask

from annotate.coco import CocoFile, write_document
from annotate.formats.coco import read
from annotate.formats.format import Done, LabelSet
from annotate.formats.label_files import read_bytes
from annotate.validate import Strict, normalise
from collect.errors import CorruptError

GOOD: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "area": 1200, "iscrowd": 0}],
}


def changed(**edits: Any) -> dict[str, Any]:
    """GOOD with `images__0__id=…` style edits."""
    document = copy.deepcopy(GOOD)
    for key, value in edits.items():
        target: Any = document
        *way, last = [int(part) if part.isdigit() else part for part in key.split("__")]
        for part in way:
            target = target[part]
        target[last] = value
    return document


def dones(document: Any) -> list[tuple[str, str]]:
    return [(str(problem.done), problem.id) for problem in normalise(document, "x.json")[1]]


def test_a_good_document_has_no_problems():
    document, problems = normalise(copy.deepcopy(GOOD), "x.json")
    assert problems == []
    assert document is not None
    assert document["annotations"][0]["bbox"] == [10.0, 20.0, 30.0, 40.0]


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ({"annotations__0__id": 0}, [("mended", "annotation 0")]),
        ({"annotations__0__id": 1.0}, [("mended", "annotation 1.0")]),
        ({"annotations__0__id": "1"}, [("mended", "annotation 1")]),
        ({"images__0__id": 1.0}, [("mended", "image 1")]),
        ({"images__0__width": "100"}, [("mended", "image 1")]),
        ({"images__0__width": -3}, [("mended", "image 1")]),
        ({"images__0__width": None}, [("mended", "image 1")]),
        ({"annotations__0__bbox": ["10", "20", "30", "40"]}, [("mended", "annotation 1")]),
        ({"annotations__0__area": float("nan")}, [("mended", "annotation 1")]),
        ({"annotations__0__iscrowd": 7}, [("mended", "annotation 1")]),
        ({"annotations__0__bbox": [10, 20, 0, 40]}, [("skipped", "annotation 1")]),
        ({"annotations__0__bbox": [10, 20, 5, -1]}, [("skipped", "annotation 1")]),
        ({"annotations__0__bbox": [float("nan"), 20, 5, 1]}, [("refused", "annotation 1")]),
        ({"annotations__0__bbox": [10, float("inf"), 5, 1]}, [("refused", "annotation 1")]),
        ({"annotations__0__bbox": None}, [("refused", "annotation 1")]),
        ({"annotations__0__bbox": [1, 2, 3]}, [("refused", "annotation 1")]),
        ({"annotations__0__image_id": 9}, [("refused", "annotation 1")]),
        ({"annotations__0__category_id": 9}, [("refused", "annotation 1")]),
        ({"annotations__0__category_id": None}, [("refused", "annotation 1")]),
        ({"images__0__file_name": "../../etc/passwd"}, [("refused", "image 1"), ("refused", "annotation 1")]),
        ({"images__0__file_name": "..\\secret.jpg"}, [("refused", "image 1"), ("refused", "annotation 1")]),
        ({"images__0__file_name": ""}, [("refused", "image 1"), ("refused", "annotation 1")]),
        ({"images__0__id": "one"}, [("refused", "image 'one'"), ("refused", "annotation 1")]),
        ({"categories__0__name": ""}, [("refused", "category 1"), ("refused", "annotation 1")]),
        ({"annotations": "none"}, [("refused", "")]),
        ({"annotations": [1, 2]}, [("refused", "")]),
    ],
)
def test_each_wrong_thing_is_named(edits, expected):
    assert dones(changed(**edits)) == expected


@pytest.mark.parametrize("document", [[], [{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}], None, 7, {}, {"images": 3}])
def test_what_is_no_coco_at_all_is_refused_once(document):
    clean, problems = normalise(document, "x.json")
    assert clean is None
    assert [problem.done for problem in problems] == [Done.REFUSED]


def test_everything_wrong_is_reported_together():
    document = changed(annotations__0__id=0, images__0__width="100")
    document["annotations"] += [
        {"id": 5, "image_id": 77, "category_id": 88, "bbox": None},
        {"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]},
    ]
    document["annotations"].append({"id": 5, "image_id": 1, "category_id": 1, "bbox": [3, 3, 2, 2]})
    _, problems = normalise(document, "x.json")
    assert len([p for p in problems if p.done is Done.REFUSED]) == 3  # image, category and box of one annotation
    assert len([p for p in problems if p.done is Done.MENDED]) == 3  # the width, id 0, id 5 twice


def test_ids_used_twice_are_renumbered_and_stay_unique():
    document = changed()
    document["annotations"] = [{"id": 4, "image_id": 1, "category_id": 1, "bbox": [n, n, 2, 2]} for n in range(5)]
    clean, problems = normalise(document, "x.json")
    assert clean is not None
    assert len({a["id"] for a in clean["annotations"]}) == 5
    assert len(problems) == 4


def test_two_images_with_one_id_are_refused_but_the_same_image_twice_is_not():
    two = changed()
    two["images"].append({"id": 1, "file_name": "b.jpg", "width": 1, "height": 1})
    assert ("refused", "image 1") in dones(two)
    same = changed()
    same["images"].append(dict(same["images"][0]))
    assert dones(same) == [("mended", "image 1")]


def test_two_categories_of_one_name_become_one():
    document = changed()
    document["categories"].append({"id": 2, "name": "cat "})
    document["annotations"].append({"id": 2, "image_id": 1, "category_id": 2, "bbox": [1, 1, 2, 2]})
    clean, problems = normalise(document, "x.json")
    assert clean is not None
    assert [c["name"] for c in clean["categories"]] == ["cat"]
    assert {a["category_id"] for a in clean["annotations"]} == {1}
    assert [p.done for p in problems] == [Done.MENDED]


@pytest.mark.parametrize("compressed", [True, False])
def test_a_crowd_without_a_box_gets_the_box_of_its_mask(compressed):
    pixels = np.zeros((80, 100), dtype=np.uint8, order="F")
    pixels[20:60, 10:40] = 1
    encoded = mask.encode(pixels)
    runs, value, length = [], 0, 0
    for pixel in pixels.ravel(order="F"):
        if pixel != value:
            runs.append(length)
            value, length = pixel, 0
        length += 1
    runs.append(length)
    segmentation = {"size": [80, 100], "counts": encoded["counts"].decode() if compressed else runs}
    document = changed(annotations__0__segmentation=segmentation, annotations__0__iscrowd=1)
    del document["annotations"][0]["bbox"], document["annotations"][0]["area"]
    clean, problems = normalise(document, "x.json")
    assert clean is not None
    assert problems == []
    assert clean["annotations"][0]["bbox"] == [10.0, 20.0, 30.0, 40.0]
    assert clean["annotations"][0]["area"] == 1200


@pytest.mark.parametrize("counts", ["###", [5, 5], None, [-8000, 16000]])
def test_a_broken_mask_is_left_out_and_said(counts):
    document = changed(annotations__0__segmentation={"size": [80, 100], "counts": counts})
    clean, problems = normalise(document, "x.json")
    assert clean is not None
    if counts != "###":
        assert [p.done for p in problems] == [Done.MENDED]
        assert clean["annotations"][0]["segmentation"] is None
    assert clean["annotations"][0]["bbox"] == [10.0, 20.0, 30.0, 40.0]


def passes(document: dict[str, Any], path: Path) -> None:
    write_document(path, document)
    strict = Strict(CocoFile.open(path), "annotations.json")
    assert (list(strict.images()), list(strict.annotations())) == (document["images"], document["annotations"])
    strict.finish()


def test_the_way_out_also_holds_boxes_against_sizes(tmp_path):
    passes(changed(annotations__0__segmentation=[]), tmp_path / "x.json")
    for wrong, says in (
        ({"annotations__0__bbox": [90.0, 20.0, 30.0, 40.0]}, r"annotation 1.*sticks out"),
        ({"annotations__0__id": 0}, "id is no whole number"),
        ({"annotations__0__image_id": 7}, "is on image 7, which is not in the file"),
        ({"annotations__0__category_id": 7}, "has the category 7"),
        ({"images__0__width": 0}, "no size"),
    ):
        with pytest.raises(CorruptError, match=says):
            passes(changed(**wrong), tmp_path / "x.json")


def test_a_byte_order_mark_and_nan_are_read(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"\xef\xbb\xbf" + orjson.dumps(GOOD))
    assert read(path).problems == []
    path.write_bytes(json.dumps(GOOD).encode("utf-16"))
    assert read(path).problems == []
    path.write_text(json.dumps(changed(annotations__0__bbox=[float("nan"), 1, 2, 3])))
    assert [str(p.done) for p in read(path).problems] == ["refused"]


def test_cut_off_json_is_one_refusal(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(orjson.dumps(GOOD)[:-20])
    found = read(path)
    assert found.images == []
    assert [(p.done, "not valid JSON" in p.problem) for p in found.problems] == [(Done.REFUSED, True)]


def test_a_file_too_large_for_memory_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(2 << 30)  # sparse: takes no space
    found = LabelSet()
    assert read_bytes(path, found, memory=4 << 30) is None
    assert "2.00 GiB" in found.problems[0].problem


def test_real_coco_ground_truth_passes(real_data: Path):
    """The COCO API's own ground truth, and a set with crowds and odd areas, hold what the validator asks."""
    for name in ("coco-fake100/ground_truth.json", "crowd-and-area/gt_dataset.json"):
        document = orjson.loads((real_data / "evaluation" / name).read_bytes())
        count = len(document["annotations"])
        clean, problems = normalise(document, name)
        assert clean is not None
        refused = [str(problem) for problem in problems if problem.done is Done.REFUSED]
        assert refused == []
        assert len(clean["annotations"]) == count - sum(p.done is Done.SKIPPED for p in problems)

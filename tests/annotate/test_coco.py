"""COCO files: what is written entry by entry is plain JSON, and is read the same block by block or whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from annotate import coco
from collect.errors import CorruptError, NotFoundError

texts = st.text(max_size=12)  # newlines, brackets and quotes among them: none of it may pass for the end of a list


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    images = [
        {"id": n, "file_name": draw(texts), "width": 40, "height": 30, "split": draw(st.sampled_from(["", "train", "test"]))}
        for n in range(1, 1 + draw(st.integers(0, 5)))
    ]
    boxes = draw(st.lists(st.tuples(st.sampled_from(images), st.floats(0, 9), texts), max_size=9)) if images else []
    annotations = [
        {"id": n, "image_id": image["id"], "category_id": 3, "bbox": [x, 1.0, 2.0, 3.5], "area": 7.0, "iscrowd": n % 2, "note": note}
        for n, (image, x, note) in enumerate(boxes, 1)
    ]
    categories = [{"id": 3, "name": draw(texts), "supercategory": ""}]
    return {"info": {"note": draw(texts)}, "licenses": [], "categories": categories, "images": images, "annotations": annotations}


@settings(max_examples=150, deadline=None)
@given(documents())
def test_written_and_read_block_by_block_it_is_the_same(tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]) -> None:
    ours, other = (tmp_path_factory.mktemp("coco") / "x.json" for _ in range(2))
    coco.write_document(ours, document)
    other.write_text(json.dumps(document, indent=1))
    assert json.loads(ours.read_bytes()) == document
    for path in (ours, other):
        file = coco.CocoFile.open(path)
        assert {**file.head, "images": list(file.images()), "annotations": list(file.annotations())} == document
        read, whole = coco.read(path), coco.arrays(document)
        for name, value in vars(whole).items():
            assert np.array_equal(getattr(read, name), value), name


def test_many_blocks_are_read_as_one(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n:064x}.jpg", "width": 640, "height": 480} for n in range(1, 30_001)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1.5, 2, 3, 4], "area": 12, "iscrowd": 0} for n in range(1, 30_001)]
    document = {"categories": [{"id": 1, "name": "cat"}], "images": images, "annotations": boxes}
    path = tmp_path / "x.json"
    coco.write_document(path, document)
    file = coco.CocoFile.open(path)
    assert len(list(file.blocks("images"))) > 2
    assert list(file.images()) == images
    assert coco.read(path).annotation_ids_A.tolist() == list(range(1, 30_001))
    assert sorted(COCO(str(path)).imgs) == list(range(1, 30_001))


def test_a_file_has_a_line_for_each_box(tmp_path: Path) -> None:
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    document = {"categories": [], "images": [{"id": 1, "file_name": "a"}], "annotations": [box, {**box, "id": 2}]}
    coco.write_document(tmp_path / "x.json", document)
    assert (tmp_path / "x.json").read_text().splitlines()[6:8] == [
        json.dumps(box, separators=(",", ":")) + ",",
        json.dumps({**box, "id": 2}, separators=(",", ":")),
    ]


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.95])
def test_a_file_that_ends_early_is_said(tmp_path: Path, keep: float) -> None:
    images = [{"id": n, "file_name": "a", "width": 1, "height": 1} for n in range(1, 20)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [0, 0, 1, 1]} for n in range(1, 20)]
    path = tmp_path / "x.json"
    coco.write_document(path, {"categories": [{"id": 1, "name": "cat"}], "images": images, "annotations": boxes})
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(CorruptError, match=r"x\.json"):
        coco.read(path)


def test_what_is_not_there_or_no_coco_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        coco.CocoFile.open(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"images": []}')
    with pytest.raises(CorruptError, match="needs the lists"):
        coco.CocoFile.open(tmp_path / "x.json")
    lost = {"categories": [], "images": [], "annotations": [{"id": 4, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}]}
    coco.write_document(tmp_path / "x.json", lost)
    with pytest.raises(CorruptError, match="annotation 4 names an image"):
        coco.read(tmp_path / "x.json")

"""Every format out and in again: the same boxes, categories, splits and negatives, to the precision that the format states."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotate.formats.format import EXPORTERS, Export, exporter, importer, plain
from annotate.formats.names import name_images
from annotate.upright import frame_of
from collect.records import Picture

#: format -> what it cannot carry. Only those with an importer are read back by it here.
BOTH_WAYS = sorted(set(EXPORTERS) - {"fiftyone", "huggingface", "webdataset"})
PRECISION_PX = 1e-6
CATEGORIES = [{"id": 3, "name": "red panda", "supercategory": "animal"}, {"id": 7, "name": "Füchs & <co>", "supercategory": ""}]

names = st.sampled_from(["a", "A", "b.rf.c", "Zoë cat", "x,y;z", "train", "..", "sub/dir/q", "longer name (1)"])


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    images, annotations = [], []
    for number in range(1, draw(st.integers(1, 4)) + 1):
        width, height = draw(st.integers(1, 6000)), draw(st.integers(1, 6000))
        sha = f"{number:064x}"
        images.append(
            {
                "id": number, "file_name": f"{sha}.jpg", "original_name": draw(names) + ".jpg", "sha256": sha, "width": width,
                "height": height, "split": draw(st.sampled_from(["train", "val", "test"])), "license": 1,
            }
        )  # fmt: skip
        for _ in range(draw(st.integers(0, 3))):
            share = st.floats(0, 1, exclude_max=True, allow_subnormal=False)
            w, h = (max(draw(share) * side, 1e-3) for side in (width, height))
            x, y = draw(share) * (width - w), draw(share) * (height - h)
            if draw(st.booleans()):
                x, y, w, h = (float(int(value)) for value in (x, y, w + 1, h + 1))
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": number, "category_id": draw(st.sampled_from([3, 7])),
                    "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "segmentation": [], "box": f"{len(annotations):024x}",
                }
            )  # fmt: skip
    return {
        "info": {},
        "licenses": [{"id": 1, "name": "MIT"}],
        "images": name_images(images),
        "annotations": annotations,
        "categories": CATEGORIES,
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that stand for images: exporters link them and never look inside."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(1, 5):
        (folder / f"{number:064x}.jpg").write_bytes(bytes([number]))
    return folder


def truth_of(document: dict[str, Any]) -> dict[str, Any]:
    label = {category["id"]: category["name"] for category in document["categories"]}
    return {
        Path(image["name"]).stem: (
            image["split"],
            [(label[a["category_id"]], tuple(a["bbox"])) for a in document["annotations"] if a["image_id"] == image["id"]],
        )
        for image in document["images"]
    }


@pytest.mark.parametrize("form", BOTH_WAYS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents())
def test_what_goes_out_comes_in_the_same(form, document, store, tmp_path_factory):
    out = tmp_path_factory.mktemp(form)
    written = exporter(form)(Export(document, store, out, "v001"))
    assert all(path.is_file() and path.is_relative_to(out) for path in written)
    found = importer(form)(out)
    assert [p for p in found.problems if p.done != "noted"] == []
    truth = truth_of(document)
    size = {Path(image["name"]).stem: (image["width"], image["height"]) for image in document["images"]}
    stems = set(truth)
    read: dict[str, Any] = {}
    for image in found.images:
        stem = Path(image.file_name).stem if Path(image.file_name).stem in stems else Path(image.file_name).name
        frame, word, _ = frame_of((image.width, image.height), Picture("", 0, "", "jpg", *size[stem]), relative=image.relative)
        assert frame and not word
        read[stem] = (image.split, [(box.category, frame.box(box).xywh) for box in image.boxes])
    assert read.keys() == truth.keys()
    for stem, (split, boxes) in truth.items():
        assert read[stem][0] == split
        assert len(read[stem][1]) == len(boxes)
        for (category, xywh), (read_category, read_xywh) in zip(boxes, read[stem][1], strict=True):
            assert read_category == category
            assert max(abs(a - b) for a, b in zip(xywh, read_xywh, strict=True)) <= PRECISION_PX


@pytest.mark.parametrize("form", ["coco", "cvat", "labelme", "labelstudio"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents())
def test_box_ids_and_the_release_come_back(form, document, store, tmp_path_factory):
    out = tmp_path_factory.mktemp(form)
    exporter(form)(Export(document, store, out, "v012"))
    found = importer(form)(out)
    assert sorted(box.box for image in found.images for box in image.boxes) == sorted(a["box"] for a in document["annotations"])
    assert found.release == "v012" or not document["annotations"]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents())
def test_huggingface_metadata_has_a_line_per_image(document, store, tmp_path_factory):
    out = tmp_path_factory.mktemp("hf")
    exporter("huggingface")(Export(document, store, out, "v001"))
    order = [category["name"] for category in document["categories"]]
    read = {}
    for metadata in out.glob("*/metadata.jsonl"):
        for line in metadata.read_text("utf-8").splitlines():
            row = json.loads(line)
            assert (metadata.parent / row["file_name"]).is_file()
            objects = row["objects"]
            assert len({len(values) for values in objects.values()}) == 1
            split = {"validation": "val"}.get(metadata.parent.name, metadata.parent.name)
            pairs = zip(objects["categories"], objects["bbox"], strict=True)
            read[Path(row["file_name"]).stem] = (split, [(order[label], tuple(box)) for label, box in pairs])
    assert read == truth_of(document)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents())
def test_webdataset_shards_hold_pairs_and_are_reproducible(document, store, tmp_path_factory):
    shards = []
    for _ in range(2):
        out = tmp_path_factory.mktemp("wds")
        shards.append(sorted(exporter("webdataset")(Export(document, store, out, "v001"))))
    assert [path.read_bytes() for path in shards[0]] == [path.read_bytes() for path in shards[1]]
    read = {}
    for path in shards[0]:
        with tarfile.open(path) as shard:
            members = shard.getmembers()
            for picture, label in zip(members[0::2], members[1::2], strict=True):
                # WebDataset's rule: the key ends at the first dot of the base name
                assert picture.name.partition(".")[0] == label.name.partition(".")[0]
                row = orjson.loads(shard.extractfile(label).read())
                pairs = zip(row["categories"], row["boxes"], strict=True)
                read[Path(row["name"]).stem] = (path.name.partition("-")[0], [(name, tuple(box)) for name, box in pairs])
    assert read == truth_of(document)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_plain_numbers_read_back_to_the_same_double(number):
    text = plain(number)
    assert float(text) == number
    assert "e" not in text


def test_yolo_without_val_never_lets_test_choose_the_model(store, tmp_path):
    size = {"width": 9, "height": 9}
    images = [{"id": n, "file_name": f"{n:064x}.jpg", "sha256": f"{n:064x}", "split": s, **size} for n, s in ((1, "train"), (2, "test"))]
    document = {"images": name_images(images), "annotations": [], "categories": CATEGORIES}
    exporter("yolo")(Export(document, store, tmp_path, "v001"))
    text = (tmp_path / "data.yaml").read_text()
    assert "val: images/train" in text
    assert "test: images/test" in text
    assert text.startswith("# this release has no val split")

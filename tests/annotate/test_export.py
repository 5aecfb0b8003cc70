"""Exports from the command line, read back by the tools they are for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import orjson
import pytest
from PIL import Image

from boxwright import main

FORMATS = [
    "coco",
    "csv",
    "cvat",
    "huggingface",
    "imagenet",
    "labelme",
    "labelstudio",
    "openimages",
    "voc",
    "voc-devkit",
    "webdataset",
    "yolo",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the dataset `shapes`, released as v001: 6 images, the first turned by EXIF, the last without boxes."""
    folder = tmp_path_factory.mktemp("export")
    images, annotations = [], []
    (folder / "in").mkdir()
    for number in range(1, 7):
        pixels = np.random.default_rng(number).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 1 else 1
        Image.fromarray(pixels).resize((160, 120)).save(folder / "in" / f"shape {number}.jpg", exif=exif)
        width, height = (120, 160) if number == 1 else (160, 120)
        split = ["train", "train", "train", "val", "test", "train"][number - 1]
        images.append({"id": number, "file_name": f"shape {number}.jpg", "width": width, "height": height, "split": split})
        for k in range(number % 6 and 2):
            box = [10.25 * number, 20.5, 30 + k, 40.125]
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1 + k, "bbox": box, "area": box[2] * box[3]})
    categories = [{"id": 1, "name": "disc"}, {"id": 2, "name": "bar"}]
    (folder / "in" / "x.json").write_bytes(orjson.dumps({"images": images, "annotations": annotations, "categories": categories}))
    assert (
        main(["import", "shapes", str(folder / "in"), "--format", "coco", "--license", "CC-BY-4.0", "--root", str(folder), "--quiet"]) == 0
    )
    assert main(["release", "shapes", "--root", str(folder), "--quiet"]) == 0
    return folder


def truth(root: Path) -> dict[str, Any]:
    """readable stem -> (split, size, [(category, xywh)])."""
    document = orjson.loads((root / "datasets/shapes/releases/v001/annotations.json").read_bytes())
    names = {category["id"]: category["name"] for category in document["categories"]}
    return {
        image["original_name"].removesuffix(".jpg").replace(" ", "_"): (
            image["split"],
            (image["width"], image["height"]),
            [(names[a["category_id"]], a["bbox"]) for a in document["annotations"] if a["image_id"] == image["id"]],
        )
        for image in document["images"]
    }


def export(root: Path, form: str, out: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["export", "shapes", "v001", "--format", form, "--out", str(out), "--json", "--root", str(root), *more]) == 0
    return dict(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_lists_its_files_and_can_be_written_again(root, form, tmp_path, capsys):
    first = export(root, form, tmp_path / "out", capsys)
    written = {path: path.read_bytes() for path in map(Path, first["files"])}
    assert tmp_path / "out" / "ATTRIBUTION.md" in written
    (tmp_path / "out" / "mine.txt").write_text("keep")
    assert export(root, form, tmp_path / "out", capsys) == first
    assert {path: path.read_bytes() for path in written} == written
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_images_are_links_unless_copies_are_asked_for(root, tmp_path, capsys):
    export(root, "voc", tmp_path / "links", capsys)
    export(root, "voc", tmp_path / "copies", capsys, "--copy")
    linked = tmp_path / "links" / "JPEGImages" / "shape_2.jpg"
    copied = tmp_path / "copies" / "JPEGImages" / "shape_2.jpg"
    assert linked.stat().st_nlink > 1
    assert copied.stat().st_nlink == 1
    assert linked.read_bytes() == copied.read_bytes()


def test_upright_turns_the_pixels_that_exif_turns(root, tmp_path, capsys):
    export(root, "voc", tmp_path / "out", capsys, "--upright")
    with Image.open(tmp_path / "out" / "JPEGImages" / "shape_1.jpg") as image:
        assert image.size == (120, 160)
        assert image.getexif().get(0x0112, 1) == 1


def test_foreign_folders_and_unknown_names_are_refused(root, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    base = ["export", "shapes", "v001", "--out", str(tmp_path), "--root", str(root), "--format"]
    assert main([*base, "yolo"]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert main([*base, "yollo"]) == 2
    assert "did you mean 'yolo'" in capsys.readouterr().err
    assert main(["export", "shapes", "v009", "--out", str(tmp_path / "x"), "--root", str(root), "--format", "yolo"]) == 3
    assert main(["export", "shapes", "v001", "--out", str(tmp_path / "x"), "--root", str(root), "--format", "yolo", "--dry-run"]) == 0
    assert not (tmp_path / "x").exists()


def test_pycocotools_reads_the_coco_export(root, tmp_path, capsys):
    from pycocotools.coco import COCO

    export(root, "coco", tmp_path / "out", capsys)
    read = {}
    for path in (tmp_path / "out" / "annotations").glob("*.json"):
        coco = COCO(str(path))
        split = path.stem.removeprefix("instances_")
        for image in coco.loadImgs(coco.getImgIds()):
            assert (tmp_path / "out" / split / image["file_name"]).is_file()
            boxes = [(coco.cats[a["category_id"]]["name"], a["bbox"]) for a in coco.imgToAnns[image["id"]]]
            read[Path(image["file_name"]).stem] = (split, (image["width"], image["height"]), boxes)
    assert read == truth(root)


def test_torchvision_parses_the_voc_export(root, tmp_path, capsys):
    """In a process of its own: nothing in annotate's tests imports torch."""
    export(root, "voc", tmp_path / "out", capsys)
    script = """
import json, sys
from pathlib import Path
from xml.etree import ElementTree
from torchvision.datasets import VOCDetection
print(json.dumps({p.stem: VOCDetection.parse_voc_xml(ElementTree.parse(p).getroot()) for p in Path(sys.argv[1]).glob("*.xml")}))
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "out" / "Annotations"], capture_output=True, text=True, check=True)
    read = {}
    for stem, document in json.loads(done.stdout).items():
        boxes = []
        for entry in document["annotation"].get("object", []):
            x1, y1, x2, y2 = (float(entry["bndbox"][key]) for key in ("xmin", "ymin", "xmax", "ymax"))
            boxes.append((entry["name"], [x1, y1, x2 - x1, y2 - y1]))
        read[stem] = boxes
    assert read == {stem: [(name, pytest.approx(box, abs=1e-9)) for name, box in boxes] for stem, (_, _, boxes) in truth(root).items()}
    lists = {path.stem: path.read_text().split() for path in (tmp_path / "out" / "ImageSets" / "Main").glob("*.txt")}
    assert {stem: split for split, stems in lists.items() for stem in stems} == {stem: entry[0] for stem, entry in truth(root).items()}


def test_the_devkit_counts_pixels_from_one(root, tmp_path, capsys):
    export(root, "voc-devkit", tmp_path / "out", capsys)
    box = ElementTree.parse(tmp_path / "out" / "Annotations" / "shape_2.xml").find("object/bndbox")
    assert box is not None
    # our box [20.5, 20.5, 30, 40.125] covers pixels 21.5 to 50.5 when the first is 1 and the last counts in
    assert [float(box.findtext(key)) for key in ("xmin", "ymin", "xmax", "ymax")] == [21.5, 21.5, 50.5, 60.625]


def test_yolo_is_what_ultralytics_documents(root, tmp_path, capsys):
    import yaml

    export(root, "yolo", tmp_path / "out", capsys)
    config = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert config["names"] == {0: "disc", 1: "bar"}
    for stem, (split, (width, height), boxes) in truth(root).items():
        assert config[split] == f"images/{split}"
        assert (tmp_path / "out" / config[split] / f"{stem}.jpg").is_file()
        label = tmp_path / "out" / config[split].replace("images", "labels") / f"{stem}.txt"
        rows = [[float(word) for word in line.split()] for line in label.read_text().splitlines()]
        read = [(config["names"][int(n)], [(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height]) for n, cx, cy, w, h in rows]
        assert read == [(name, pytest.approx(box, abs=1e-9)) for name, box in boxes]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a mongod of our own."""
    from annotate.review import mongod

    with mongod.running(tmp_path_factory.mktemp("mongod")) as running:
        yield running.uri


@pytest.mark.mongod
@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "kind"),
    [("coco", "COCODetectionDataset"), ("cvat", "CVATImageDataset"), ("voc", "VOCDetectionDataset"), ("yolo", "YOLOv5Dataset")],
)
def test_fiftyone_imports_the_same_boxes(root, database, tmp_path, capsys, form, kind):
    """FiftyOne's own importers, on a mongod of their own, in a process of their own."""
    export(root, form, tmp_path / "out", capsys, "--copy")
    script = """
import json, sys
import fiftyone as fo
out, form, kind = sys.argv[1:]
places = {
    "coco": [dict(data_path=f"{out}/{s}", labels_path=f"{out}/annotations/instances_{s}.json") for s in ("train", "val", "test")],
    "cvat": [dict(data_path=f"{out}/images", labels_path=f"{out}/annotations.xml")],
    "voc": [dict(data_path=f"{out}/JPEGImages", labels_path=f"{out}/Annotations")],
    "yolo": [dict(dataset_dir=out, yaml_path=f"{out}/data.yaml", split=s, include_all_data=True) for s in ("train", "val", "test")],
}[form]
read = {}
for place in places:
    dataset = fo.Dataset.from_dir(dataset_type=getattr(fo.types, kind), **place)
    dataset.compute_metadata()
    for sample in dataset:
        labels = next((sample[f] for f in ("ground_truth", "detections") if sample.has_field(f)), None)
        size = (sample.metadata.width, sample.metadata.height)
        stem = sample.filepath.rpartition("/")[2].rpartition(".")[0]
        read[stem] = [(d.label, d.bounding_box) for d in (labels.detections if labels else [])]
    dataset.delete()
print("RESULT" + json.dumps(read))
"""
    environment = {
        "FIFTYONE_DATABASE_URI": database,
        "FIFTYONE_DO_NOT_TRACK": "true",
        "FIFTYONE_CONFIG_PATH": str(tmp_path / "none.json"),
    }
    command = [sys.executable, "-c", script, tmp_path / "out", form, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr[-3000:]
    read = json.loads(done.stdout.partition("RESULT")[2])
    expected = truth(root)
    assert read.keys() == expected.keys()
    for stem, (_, (width, height), boxes) in expected.items():
        if stem == "shape_1":
            continue  # FiftyOne divides by the size that EXIF has not turned
        shares = [(name, [x / width, y / height, w / width, h / height]) for name, (x, y, w, h) in boxes]
        # FiftyOne cuts the edges of VOC and CVAT files to whole pixels
        assert sorted(map(tuple, read[stem])) == [
            (name, pytest.approx(box, abs=1.01 / 120 if form in {"voc", "cvat"} else 1e-6)) for name, box in sorted(shares)
        ]

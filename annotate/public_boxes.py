"""Public sets with boxes: COCO 2017, Open Images V7, SVHN, Oxford-IIIT Pet, and the COCO images that VisualQA asks about."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from annotate.archives import Limits, unpack, unpacked
from annotate.coco import read_document, write_document
from annotate.public_sets import Fetched, Wanted, Web, link
from collect.errors import CorruptError
from collect.files import storage_errors

_COCO = "http://images.cocodataset.org"
_VQA = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"
_OPEN_IMAGES = "https://storage.googleapis.com/openimages"
_OPEN_IMAGES_PICTURES = "https://open-images-dataset.s3.amazonaws.com"
_PETS = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
_SVHN = "http://ufldl.stanford.edu/housenumbers"
#: Part -> box table of Open Images; the train table is the one of V6, which V7 took over.
_BOX_TABLES = {
    "train": "v6/oidv6-train-annotations-bbox.csv",
    "validation": "v5/validation-annotations-bbox.csv",
    "test": "v5/test-annotations-bbox.csv",
}
_IMAGE_TABLES = {
    "train": "2018_04/train/train-images-boxable-with-rotation.csv",
    "validation": "2018_04/validation/validation-images-with-rotation.csv",
    "test": "2018_04/test/test-images-with-rotation.csv",
}


def coco_2017(wanted: Wanted, web: Web) -> Fetched:
    """Images of COCO 2017 on which one of the classes is, with the boxes of these classes; per image its own licence."""
    return _coco(wanted, web, wanted.parts(("train", "val")), None)


def visualqa(wanted: Wanted, web: Web) -> Fetched:
    """The COCO images that VQA v2's questions are about (`image_id` is COCO's), with COCO 2017's boxes and split.

    VQA goes by COCO 2014's split, most of whose val images are train images in 2017; so both of 2017's parts are looked through.
    """
    asked: set[int] = set()
    for part in wanted.parts(("train", "val")):
        with unpacked(web.get(f"{_VQA}/v2_Questions_{part.capitalize()}_mscoco.zip")) as folder:
            for path in sorted(folder.rglob("*.json")):
                asked |= {int(question["image_id"]) for question in orjson.loads(path.read_bytes())["questions"]}
    return _coco(wanted, web, ["train", "val"], asked)


def _coco(wanted: Wanted, web: Web, parts: list[str], only: set[int] | None) -> Fetched:
    target = web.workspace(wanted)
    with unpacked(web.get(f"{_COCO}/annotations/annotations_trainval2017.zip")) as folder:
        documents = {part: read_document(_one(folder, f"instances_{part}2017.json")) for part in parts}
    left = wanted.limit
    for part, document in documents.items():
        wanted.check_classes(category["name"] for category in document["categories"])
        chosen = _choose(document, wanted, only, left)
        if wanted.limit:
            left -= len(chosen["images"])
        names = [image["file_name"] for image in chosen["images"]]
        for name, path in zip(names, web.get_all([f"{_COCO}/{part}2017/{name}" for name in names]), strict=True):
            link(path, target / f"{part}2017" / name)
        write_document(target / f"instances_{part}2017.json", chosen)
        if wanted.limit and left <= 0:
            break
    return Fetched(target, "coco")


def _choose(document: dict[str, Any], wanted: Wanted, only: set[int] | None, limit: int) -> dict[str, Any]:
    categories = [entry for entry in document["categories"] if not wanted.classes or entry["name"] in wanted.classes]
    ids = {entry["id"] for entry in categories}
    annotations = [entry for entry in document["annotations"] if entry["category_id"] in ids]
    shown = {entry["image_id"] for entry in annotations}
    images = [entry for entry in document["images"] if entry["id"] in shown and (only is None or entry["id"] in only)]
    images = sorted(images, key=lambda entry: int(entry["id"]))[: limit if wanted.limit else None]
    kept = {entry["id"] for entry in images}
    return {
        **document,
        "images": images,
        "categories": categories,
        "annotations": [entry for entry in annotations if entry["image_id"] in kept],
    }


def open_images_v7(wanted: Wanted, web: Web) -> Fetched:
    """Images of Open Images V7 with a box of one of the classes; licence and author per image from its own tables."""
    target = web.workspace(wanted)
    with _rows(web.get(f"{_OPEN_IMAGES}/v7/oidv7-class-descriptions-boxable.csv")) as rows:
        names = {row[0]: row[1] for row in rows if len(row) == 2 and row[0].startswith("/")}
    wanted.check_classes(names.values())
    labels = {label for label, name in names.items() if not wanted.classes or name in wanted.classes}
    _write(target / "class-descriptions.csv", ([label, names[label]] for label in sorted(labels)))
    left = wanted.limit
    for part in wanted.parts(tuple(_BOX_TABLES)):
        with _rows(web.get(f"{_OPEN_IMAGES}/{_BOX_TABLES[part]}")) as rows:
            headings = next(rows)
            column = headings.index("LabelName")
            boxes = [row for row in rows if row[column] in labels]
        chosen = sorted({row[0] for row in boxes})[: left if wanted.limit else None]
        kept = set(chosen)
        _write(target / f"{part}-annotations-bbox.csv", [headings, *(row for row in boxes if row[0] in kept)])
        with _rows(web.get(f"{_OPEN_IMAGES}/{_IMAGE_TABLES[part]}")) as rows:
            _write(target / f"{part}-images.csv", (row for number, row in enumerate(rows) if number == 0 or row[0] in kept))
        for name, path in zip(chosen, web.get_all([f"{_OPEN_IMAGES_PICTURES}/{part}/{name}.jpg" for name in chosen]), strict=True):
            link(path, target / part / f"{name}.jpg")
        left -= len(chosen)
        if wanted.limit and left <= 0:
            break
    return Fetched(target, "openimages", "CC-BY-2.0")


def oxford_pets(wanted: Wanted, web: Web) -> Fetched:
    """Oxford-IIIT Pet: head boxes of cats and dogs in VOC XML; CC BY-SA 4.0, as its page says."""
    target = web.workspace(wanted)
    for name in ("annotations", "images"):
        unpack(web.get(f"{_PETS}/{name}.tar.gz"), target, Limits())
    for path in target.rglob("._*"):  # resource forks that a Mac left in the archive
        path.unlink()
    labels = sorted((target / "annotations" / "xmls").glob("*.xml"))
    for path in labels[wanted.limit :] if wanted.limit else []:
        path.unlink()
    return Fetched(target, "voc", "CC-BY-SA-4.0")


def svhn(wanted: Wanted, web: Web) -> Fetched:
    """Street View House Numbers, full numbers: a box for each digit. Its page allows non-commercial use only."""
    target = web.workspace(wanted)
    for part in wanted.parts(("train", "test", "extra")):
        unpack(web.get(f"{_SVHN}/{part}.tar.gz"), target, Limits())
    return Fetched(target, "svhn", "LicenseRef-SVHN-NonCommercial")


def _one(folder: Path, name: str) -> Path:
    path = next(folder.rglob(name), None)
    if path is None:
        raise CorruptError(f"the archive holds no {name}; delete it from .cache/public and run this again")
    return path


@contextmanager
def _rows(path: Path) -> Iterator[Iterator[list[str]]]:
    """The rows of a large CSV, one at a time."""
    with path.open(encoding="utf-8", newline="") as file:
        yield csv.reader(file)


def _write(path: Path, rows: Iterable[list[str]]) -> None:
    with storage_errors(), path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)

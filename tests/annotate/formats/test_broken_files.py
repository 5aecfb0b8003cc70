"""Label files of every format with something broken in them: all of it is one report, never a traceback, and nothing half imported."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from annotate.formats.format import EXPORTERS, IMPORTERS, Export, exporter
from annotate.formats.names import name_images
from annotate.intake import Request, take_in
from collect.errors import BoxwrightError
from collect.workspace import Workspace

ROUNDS = 10
FORMATS = sorted(set(EXPORTERS) & set(IMPORTERS))
#: What a JSON value may turn into.
_VALUES: list[Any] = [
    None, True, -1, 0, 1e308, float("nan"), float("inf"), "", "a", "1,5", "nan", [], [[]], {}, {"a": 1}, "9" * 400, 10**400, 2**63,
    "\x00", "../x", "/etc/passwd", "\ud800", [["a"]], {"counts": "x", "size": [1, 2]}, {"size": [10**9, 10**9], "counts": "PPYo"},
]  # fmt: skip
_BYTES = [
    b"null", b"NaN", b"1e999", b"-1", b'""', b"[]", b"{}", b"9" * 400, b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"<", b">", b"&", b"&#0;",
    b"<!ENTITY a 'b'>", b"\n", b",", b";", b'"', b"../", b"\\", b"\xe9", b"-", b".", b"inf", b"]]>", b"\t", b"cat", b"99999999999999999999",
]  # fmt: skip


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images with six boxes, in every format that goes both ways."""
    root = tmp_path_factory.mktemp("exports")
    (root / "store").mkdir()
    images, annotations = [], []
    for number in (1, 2, 3):
        path = root / "store" / f"{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
        images.append(
            {
                "id": number, "file_name": path.name, "original_name": f"im {number}.png", "width": 60, "height": 40, "license": 1,
                "split": ["train", "val", "test"][number - 1], "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        )  # fmt: skip
        for place in range(number):
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": number, "category_id": 1 + place % 2, "bbox": [1.5 + place, 2.25, 10.0, 12.5],
                    "area": 125.0, "iscrowd": int(place == 2), "segmentation": [], "box": f"{len(annotations):024x}",
                    "attributes": {"occluded": True},
                }
            )  # fmt: skip
    categories = [{"id": 1, "name": "cat", "supercategory": ""}, {"id": 2, "name": "dög & <x>", "supercategory": ""}]
    document = {"info": {}, "licenses": [{"id": 1, "name": "MIT", "url": ""}], "images": name_images(images), "categories": categories}
    for form in FORMATS:
        exporter(form)(Export({**document, "annotations": annotations}, root / "store", root / form, "v001", copy=True))
    return root


def broken(chance: random.Random, path: Path) -> bytes:
    """The bytes of a label file after something happened to it."""
    data = path.read_bytes()
    if path.suffix == ".json" and chance.random() < 0.6:
        return json.dumps(broken_json(chance, json.loads(data))).encode()
    if chance.random() < 0.5:
        words = re.split(rb"([<>\",\s=]+)", data)
        words[chance.randrange(len(words))] = chance.choice(_BYTES)
        return b"".join(words)
    changed, place = bytearray(data), chance.randrange(len(data))
    match chance.randrange(5):
        case 0:
            changed[place] ^= 1 << chance.randrange(8)
        case 1:
            changed[place:place] = chance.choice(_BYTES)
        case 2:
            del changed[place : place + chance.choice([1, 10, 100])]
        case 3:
            del changed[place:]
        case _:
            changed[place:place] = changed[place : place + 200]
    return bytes(changed)


def broken_json(chance: random.Random, document: Any) -> Any:
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(document)
    where, key = chance.choice(places)
    if chance.random() < 0.2:
        del where[key]
    else:
        where[key] = chance.choice(_VALUES)
    return document


@pytest.mark.parametrize("form", FORMATS)
def test_a_broken_file_is_a_report_and_nothing_half_imported(form: str, exports: Path, tmp_path: Path) -> None:
    for number in range(ROUNDS):
        chance = random.Random(f"{form} {number}")
        labels, dataset = tmp_path / "labels", Workspace.at(tmp_path).new_dataset("x")
        for folder in (labels, dataset.folder):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(exports / form, labels)
        path = chance.choice([path for path in sorted(labels.rglob("*")) if path.is_file() and path.suffix != ".png"])
        path.write_bytes(broken(chance, path))
        try:
            outcome = take_in(dataset, Request(form, labels, skip_bad=chance.random() < 0.3), lambda items, _: iter(items))
        except BoxwrightError as error:
            assert str(error).encode(), number
            assert not dataset.folder.exists(), number
        else:
            assert json.dumps(outcome.document(), ensure_ascii=False).encode(), number
            assert dataset.labels.exists(), number

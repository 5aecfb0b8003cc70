"""The sets that the simulated reviewer of `bench_queue.py` works through: images in the queue, and others that the mAP is taken on."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from collect.demo.scenes import make_scenes
from collect.files import sha256_file

JUDGED = 150
#: Chance that a scene with this class stays in the uneven queue.
LEFT_IN = {"motorcycle": 0.12, "cup": 0.4}

Listed = list[tuple[Path, list[tuple[str, list[float]]]]]


@dataclass(frozen=True)
class Boxes:
    """The true boxes of I images: xywh pixels (N, 4) and contiguous labels (N,) each."""

    xywh: tuple[NDArray[np.float64], ...]
    labels: tuple[NDArray[np.int64], ...]

    def count(self, rows: Sequence[int]) -> int:
        return sum(len(self.labels[row]) for row in rows)


@dataclass(frozen=True)
class Scene:
    """A set: class names, files and boxes of all images, which of them wait in the queue and which the mAP is taken on."""

    names: tuple[str, ...]
    files: tuple[Path, ...]
    sizes_wh: tuple[tuple[int, int], ...]
    boxes: Boxes
    pool: tuple[int, ...]
    judged: tuple[int, ...]

    def truth(self, rows: Sequence[int]) -> dict:
        """COCO's document of some images; the id of an image is its place among them + 1."""
        images = [
            {"id": number, "file_name": str(self.files[row]), "width": self.sizes_wh[row][0], "height": self.sizes_wh[row][1]}
            | {"sha256": sha256_file(self.files[row])}
            for number, row in enumerate(rows, 1)
        ]
        annotations = [
            {"image_id": number, "category_id": int(label) + 1, "bbox": box.tolist(), "area": float(box[2] * box[3]), "iscrowd": 0}
            for number, row in enumerate(rows, 1)
            for box, label in zip(self.boxes.xywh[row], self.boxes.labels[row], strict=True)
        ]
        categories = [{"id": number, "name": name} for number, name in enumerate(self.names, 1)]
        numbered = [{**a, "id": number} for number, a in enumerate(annotations, 1)]
        return {"images": images, "annotations": numbered, "categories": categories}


def bccd(data: Path, _: Path) -> tuple[Listed, Listed]:
    folder, listed = data / "bccd/BCCD", []
    for path in sorted((folder / "Annotations").glob("*.xml")):
        boxes = []
        for node in ET.parse(path).getroot().iter("object"):
            x1, y1, x2, y2 = (float(node.findtext(f"bndbox/{key}") or 0) for key in ("xmin", "ymin", "xmax", "ymax"))
            boxes.append((node.findtext("name") or "", [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]))
        listed.append((folder / "JPEGImages" / f"{path.stem}.jpg", boxes))
    listed = shuffled(listed)
    pool = round(0.56 * len(listed))
    return listed[:pool], listed[pool:]


def facemask(data: Path, _: Path) -> tuple[Listed, Listed]:
    parts = []
    for split in ("train", "val"):
        document = json.loads((data / f"facemask-coco/annotations/custom_{split}.json").read_bytes())
        kinds = {entry["id"]: entry["name"] for entry in document["categories"]}
        of_image: dict[int, list[tuple[str, list[float]]]] = {entry["id"]: [] for entry in document["images"]}
        for box in document["annotations"]:
            of_image[box["image_id"]].append((kinds[box["category_id"]], list(map(float, box["bbox"]))))
        folder = data / f"facemask-coco/{split}2017"
        parts.append(shuffled([(folder / entry["file_name"], of_image[entry["id"]]) for entry in document["images"]]))
    return parts[0], parts[1]


def scenes(_: Path, place: Path) -> tuple[Listed, Listed]:
    listed = []
    (place / "scenes").mkdir(parents=True, exist_ok=True)
    for scene in make_scenes(400, 0):
        path = place / "scenes" / f"{scene.index}.jpg"
        path.write_bytes(scene.jpeg)
        listed.append((path, [(name, list(xywh)) for name, xywh in scene.boxes]))
    listed = shuffled(listed)
    return listed[:240], listed[240:]


def uneven_scenes(data: Path, place: Path) -> tuple[Listed, Listed]:
    pool, judged = scenes(data, place)
    luck = np.random.default_rng(1).random(len(pool))
    chances = [min([LEFT_IN.get(kind, 1.0) for kind, _ in boxes], default=1.0) for _, boxes in pool]
    return [entry for entry, chance, drawn in zip(pool, chances, luck, strict=True) if drawn < chance], judged


def shuffled(listed: Listed) -> Listed:
    return [listed[row] for row in np.random.default_rng(0).permutation(len(listed))]


SETS = {"bccd": bccd, "facemask-coco": facemask, "scenes": scenes, "uneven-scenes": uneven_scenes}


def load(name: str, data: Path, keep: Path) -> Scene:
    """The images in the queue and at most JUDGED outside of it, the same for all seeds."""
    pool, judged = SETS[name](data, keep)
    listed = [(path, [(kind, box) for kind, box in boxes if min(box[2:]) > 4]) for path, boxes in [*pool, *judged[:JUDGED]]]
    names = tuple(sorted({kind for _, boxes in listed for kind, _ in boxes}))
    boxes = Boxes(
        tuple(np.array([box for _, box in of], dtype=np.float64).reshape(-1, 4) for _, of in listed),
        tuple(np.array([names.index(kind) for kind, _ in of], dtype=np.int64) for _, of in listed),
    )
    files = tuple(path for path, _ in listed)
    sizes = tuple(Image.open(path).size for path in files)
    return Scene(names, files, sizes, boxes, tuple(range(len(pool))), tuple(range(len(pool), len(listed))))

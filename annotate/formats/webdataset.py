"""WebDataset shards (github.com/webdataset/webdataset): tars in which `KEY.jpg` and `KEY.json` follow one another.

Keys are the image ids with nine digits, since a key ends at its first dot and names have dots. The JSON holds the image's name,
size, licence and `boxes` as COCO's `[x, y, w, h]` in pixels of the upright image. Precision: exact. The same release
gives the same bytes.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import orjson

from annotate.formats.format import Export
from collect.files import storage_errors

_PER_SHARD = 1000


def write(export: Export) -> list[Path]:
    """`<split>-000000.tar`, … with a thousand images each."""
    names, grouped = export.names_of_categories(), export.annotations_by_image()
    licences = {entry["id"]: entry.get("name", "") for entry in export.document.get("licenses", [])}
    paths: list[Path] = []
    for split in export.splits():
        images = [image for image in export.document["images"] if (image.get("split") or "train") == split]
        for number, start in enumerate(range(0, len(images), _PER_SHARD)):
            target = export.out / f"{split}-{number:06d}.tar"
            with storage_errors():
                target.parent.mkdir(parents=True, exist_ok=True)
                with tarfile.open(target, "w") as shard:
                    for image in images[start : start + _PER_SHARD]:
                        _add(shard, export, image, _label(image, grouped[image["id"]], names, licences))
            paths.append(target)
    return paths


def _add(shard: tarfile.TarFile, export: Export, image: dict[str, Any], label: dict[str, Any]) -> None:
    key = f"{image['id']:09d}"
    suffix = Path(image["name"]).suffix.lower()
    for name, data in ((f"{key}{suffix}", export.read(image)), (f"{key}.json", orjson.dumps(label))):
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        shard.addfile(entry, io.BytesIO(data))


def _label(image: dict[str, Any], annotations: list[dict[str, Any]], names: dict[int, str], licences: dict[int, str]) -> dict[str, Any]:
    return {
        "name": image["name"],
        "width": image["width"],
        "height": image["height"],
        "sha256": image.get("sha256", ""),
        "license": licences.get(image.get("license", -1), ""),
        "author": image.get("author") or "",
        "boxes": [[float(value) for value in annotation["bbox"]] for annotation in annotations],
        "category_ids": [annotation["category_id"] for annotation in annotations],
        "categories": [names[annotation["category_id"]] for annotation in annotations],
        "iscrowd": [int(annotation.get("iscrowd", 0)) for annotation in annotations],
    }

"""Hugging Face `imagefolder` (huggingface.co/docs/datasets/image_dataset#object-detection): images with a `metadata.jsonl`.

`objects.bbox` is COCO's `[x, y, w, h]` in pixels of the upright image, `objects.categories` counts from 0 in the order in which
README.md lists the classes. Precision: exact.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import yaml  # type: ignore[import-untyped]

from annotate.formats.format import Export

_FOLDERS = {"val": "validation"}  # the name under which `load_dataset` knows that split


def write(export: Export) -> list[Path]:
    """`<split>/metadata.jsonl` beside the split's images, and a README.md with the dataset card's header."""
    grouped = export.annotations_by_image()
    labels = {number: place for place, number in enumerate(export.names_of_categories())}
    licences = {entry["id"]: entry.get("name", "") for entry in export.document.get("licenses", [])}
    paths: list[Path] = []
    for split in export.splits():
        folder, lines = _FOLDERS.get(split, split), []
        for image in (image for image in export.document["images"] if (image.get("split") or "train") == split):
            paths.append(export.place(image, folder))
            lines.append(orjson.dumps(_line(image, grouped[image["id"]], labels, licences)))
        paths.append(export.write(f"{folder}/metadata.jsonl", b"".join(line + b"\n" for line in lines)))
    return [*paths, _write_card(export)]


def _line(image: dict[str, Any], annotations: list[dict[str, Any]], labels: dict[int, int], licences: dict[int, str]) -> dict[str, Any]:
    return {
        "file_name": image["name"],
        "image_id": image["id"],
        "width": image["width"],
        "height": image["height"],
        "license": licences.get(image.get("license", -1), ""),
        "author": image.get("author") or "",
        "source_url": image.get("source_url") or "",
        "objects": {
            "id": [annotation["id"] for annotation in annotations],
            "bbox": [[float(value) for value in annotation["bbox"]] for annotation in annotations],
            "area": [float(annotation["area"]) for annotation in annotations],
            "iscrowd": [int(annotation.get("iscrowd", 0)) for annotation in annotations],
            "categories": [labels[annotation["category_id"]] for annotation in annotations],
        },
    }


def _write_card(export: Export) -> Path:
    splits = Counter(image.get("split") or "train" for image in export.document["images"])
    header = {
        "task_categories": ["object-detection"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": _FOLDERS.get(split, split), "path": f"{_FOLDERS.get(split, split)}/*"} for split in export.splits()
                ],
            }
        ],
    }
    classes = "\n".join(f"{place}. {name}" for place, name in enumerate(export.names_of_categories().values()))
    counts = ", ".join(f"{split} {splits[split]}" for split in export.splits())
    text = f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\nClasses (`objects.categories`):\n\n{classes}\n\nImages: {counts}.\n"
    return export.write("README.md", text)

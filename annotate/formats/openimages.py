"""Open Images CSV (storage.googleapis.com/openimages/web/download_v7.html): one row per box, edges as shares of the image.

`LabelName` is a Freebase id where a `class-descriptions*.csv` lies near and names it, else the class's name. A `*images*.csv`
without box columns lists images, those without a box included. `IsGroupOf` is COCO's `iscrowd`.

Precision: as many digits as a double takes, below 1e-9 px; decimal commas are understood.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from annotate.formats.format import Done, Export, LabelledBox, LabelledImage, LabelSet, plain
from annotate.formats.label_files import files_under, number_from, read_rows, relative, split_of
from annotate.values import climbs
from collect.licenses import spdx_from_url
from collect.records import Licence

HEADINGS = (
    "ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax",
    "IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside",
)  # fmt: skip
_FLAGS = {"IsOccluded": "occluded", "IsTruncated": "truncated", "IsDepiction": "depiction", "IsInside": "inside"}
_EDGES = ("XMin", "YMin", "XMax", "YMax")


def read(path: Path) -> LabelSet:
    """The labels of one CSV, or of all under a folder."""
    found = LabelSet()
    images: dict[str, tuple[str, str, list[LabelledBox]]] = {}
    origins: dict[str, dict[str, str]] = {}
    names = _descriptions(path if path.is_dir() else path.parent, found)
    tables = 0
    for file in files_under(path, ".csv"):
        headings, rows = read_rows(file, found)
        if "ImageID" not in headings:
            continue
        tables += 1
        _add_table(found, relative(file, path), headings, rows, names, images)
        if "OriginalURL" in headings:
            origins |= {row[headings.index("ImageID")]: dict(zip(headings, row, strict=False)) for row in rows}
    for name, (split, label_file, boxes) in images.items():
        url, licence = _origin(origins.get(name, {}))
        found.images.append(
            LabelledImage(name, tuple(boxes), split=split, relative=True, label_file=label_file, id=name, source_url=url, licence=licence)
        )
    if not tables:
        found.complain(path, None, "holds no CSV file with a column ImageID", Done.REFUSED)
    found.add_categories_of_boxes()
    return found


def _origin(row: dict[str, str]) -> tuple[str, Licence | None]:
    """Address and licence of an image, from Open Images' own table of images."""
    address = row.get("License", "").strip()
    spdx = spdx_from_url(address)
    if not spdx:
        return row.get("OriginalURL", "").strip(), None
    facts = {"creator": row.get("Author", ""), "creator_url": row.get("AuthorProfileURL", ""), "title": row.get("Title", "")}
    evidence = row.get("OriginalLandingURL", "").strip() or "Open Images"
    return row.get("OriginalURL", "").strip(), Licence(spdx, url=address, evidence=evidence, **facts)


def _descriptions(folder: Path, found: LabelSet) -> dict[str, str]:
    """Freebase id -> name, from files of two columns without headings."""
    names: dict[str, str] = {}
    for file in files_under(folder, ".csv"):
        if "class-descriptions" in file.name:
            first, rows = read_rows(file, found)
            names |= {row[0]: row[1].strip() for row in [first, *rows] if len(row) == 2}
    return names


def _add_table(
    found: LabelSet,
    file: str,
    headings: list[str],
    rows: list[list[str]],
    names: dict[str, str],
    images: dict[str, tuple[str, str, list[LabelledBox]]],
) -> None:
    has_boxes = all(edge in headings for edge in (*_EDGES, "LabelName"))
    for number, row in enumerate(rows, 2):
        if len(row) < len(headings):
            found.complain(file, f"row {number}", f"has {len(row)} of {len(headings)} columns", Done.REFUSED)
            continue
        value = dict(zip(headings, row, strict=False))
        name = value.get("ImageID", "").strip()
        if not name or climbs(name):
            found.complain(file, f"row {number}", f"the ImageID '{name}' is empty or climbs out of its folder", Done.REFUSED)
            continue
        split = split_of(value.get("Subset", "")) or split_of(file)
        boxes = images.setdefault(name, (split, file, []))[2]
        if has_boxes:
            box = _box(value, f"row {number}", (file, name), names, found)
            boxes.extend([box] if box else [])


def _box(value: dict[str, str], ident: str, place: tuple[str, str], names: dict[str, str], found: LabelSet) -> LabelledBox | None:
    label = value["LabelName"].strip()
    if not label:
        found.complain(place[0], ident, "has no LabelName", Done.REFUSED, place[1])
        return None
    x1, y1, x2, y2 = (number_from(value.get(edge)) for edge in _EDGES)
    attributes: dict[str, Any] = {name: True for heading, name in _FLAGS.items() if value.get(heading, "").strip() == "1"}
    crowd = value.get("IsGroupOf", "").strip() == "1"
    return LabelledBox(names.get(label, label), x1, y1, x2 - x1, y2 - y1, crowd, attributes, id=ident)


def write(export: Export) -> list[Path]:
    """`<split>-annotations-bbox.csv`, `<split>-images.csv` (negatives too) and the images in `<split>/`."""
    names, grouped = export.names_of_categories(), export.annotations_by_image()
    paths: list[Path] = []
    for split in export.splits():
        boxes, images = io.StringIO(), io.StringIO()
        box_rows, image_rows = csv.writer(boxes, lineterminator="\n"), csv.writer(images, lineterminator="\n")
        box_rows.writerow(HEADINGS)
        image_rows.writerow(("ImageID", "Subset", "OriginalURL", "Author"))
        for image in (image for image in export.document["images"] if (image.get("split") or "train") == split):
            paths.append(export.place(image, split))
            image_rows.writerow((image["name"], split, image.get("source_url", ""), image.get("author", "")))
            box_rows.writerows(_row(annotation, image, names[annotation["category_id"]]) for annotation in grouped[image["id"]])
        for name, text in ((f"{split}-annotations-bbox.csv", boxes), (f"{split}-images.csv", images)):
            paths.append(export.write(name, text.getvalue()))
    return paths


def _row(annotation: dict[str, Any], image: dict[str, Any], label: str) -> tuple[str, ...]:
    x, y, w, h = annotation["bbox"]
    width, height = image["width"], image["height"]
    attributes = annotation.get("attributes") or {}
    occluded, truncated, depiction, inside = ("1" if attributes.get(name) else "0" for name in _FLAGS.values())
    crowd = "1" if annotation.get("iscrowd") else "0"
    edges = (x / width, (x + w) / width, y / height, (y + h) / height)
    return image["name"], "boxwright", label, "1", *map(plain, edges), occluded, truncated, crowd, depiction, inside

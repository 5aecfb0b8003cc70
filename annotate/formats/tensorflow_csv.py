"""The TensorFlow object-detection CSV: `filename,width,height,class,xmin,ymin,xmax,ymax`, one row per box, edges in pixels.

Other columns' names for the same are understood (`image`, `label`, `cell_type`, `x1` …). An image without a box has a row with
empty box columns on the way out; on the way in such a row is a negative.
Precision: as many digits as a double takes, below 1e-9 px.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from annotate.formats.format import Done, Export, LabelledBox, LabelledImage, LabelSet, plain
from annotate.formats.label_files import files_under, number_from, read_rows, relative, split_of
from annotate.values import climbs, whole

HEADINGS = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
_NAMES = {
    "filename": ("filename", "file_name", "image", "image_path", "path", "img"),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
    "class": ("class", "class_name", "label", "category", "cell_type", "name"),
    "xmin": ("xmin", "x1", "x_min"),
    "ymin": ("ymin", "y1", "y_min"),
    "xmax": ("xmax", "x2", "x_max"),
    "ymax": ("ymax", "y2", "y_max"),
}
_NEEDED = ("filename", "class", "xmin", "ymin", "xmax", "ymax")


def read(path: Path) -> LabelSet:
    """The labels of one CSV, or of all under a folder.

    Where some of a folder's files are named for a split and another holds all rows (`raccoon_labels.csv` beside
    `train_labels.csv`), the named ones say the split, and rows said twice count once.
    """
    found = LabelSet()
    files = files_under(path, ".csv")
    rows: dict[str, list[LabelledBox]] = {}
    facts: dict[str, tuple[int, int, str, str]] = {}
    for file in sorted(files, key=lambda entry: split_of(entry.name) == ""):
        _add_file(found, file, relative(file, path), rows, facts)
    for name, boxes in rows.items():
        width, height, split, label_file = facts[name]
        found.images.append(LabelledImage(name, tuple(boxes), width, height, split, label_file=label_file, id=name))
    if not files:
        found.complain(path, None, "holds no CSV file", Done.REFUSED)
    found.add_categories_of_boxes()
    return found


def _add_file(
    found: LabelSet, path: Path, file: str, rows: dict[str, list[LabelledBox]], facts: dict[str, tuple[int, int, str, str]]
) -> None:
    headings, lines = read_rows(path, found)
    column = {key: _column(headings, names) for key, names in _NAMES.items()}
    missing = [key for key in _NEEDED if column[key] is None]
    if missing:
        found.complain(file, None, f"has no column {', '.join(missing)}; it has {', '.join(headings) or 'none'}", Done.REFUSED)
        return
    known = set(rows)  # images that an earlier file, one named for a split, has told all about
    for number, line in enumerate(lines, 2):
        ident = f"row {number}"
        if len(line) < len(headings):
            found.complain(file, ident, f"has {len(line)} of {len(headings)} columns", Done.REFUSED)
            continue
        value = {key: line[place].strip() if place is not None else "" for key, place in column.items()}
        name = value["filename"].replace("\\", "/")
        if not name or climbs(name):
            found.complain(file, ident, f"the file name '{name}' is empty or climbs out of its folder", Done.REFUSED)
            continue
        boxes = rows.setdefault(name, [])
        facts.setdefault(name, (whole(value["width"] or 0) or 0, whole(value["height"] or 0) or 0, split_of(file) or split_of(name), file))
        if not value["class"] and not value["xmin"]:
            continue
        if not value["class"]:
            found.complain(file, ident, "has a box but no class", Done.REFUSED, name)
            continue
        x1, y1, x2, y2 = (number_from(value[key]) for key in ("xmin", "ymin", "xmax", "ymax"))
        box = LabelledBox(value["class"], x1, y1, x2 - x1, y2 - y1, id=ident)
        if name not in known or all((box.category, box.xywh) != (other.category, other.xywh) for other in boxes):
            boxes.append(box)


def _column(headings: list[str], names: tuple[str, ...]) -> int | None:
    lower = [heading.lower() for heading in headings]
    return next((lower.index(name) for name in names if name in lower), None)


def write(export: Export) -> list[Path]:
    """`<split>_labels.csv` with the images in `<split>/`."""
    names, grouped = export.names_of_categories(), export.annotations_by_image()
    paths: list[Path] = []
    for split in export.splits():
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(HEADINGS)
        for image in (image for image in export.document["images"] if (image.get("split") or "train") == split):
            paths.append(export.place(image, split))
            head = (image["name"], image["width"], image["height"])
            for annotation in grouped[image["id"]]:
                x, y, w, h = annotation["bbox"]
                table.writerow((*head, names[annotation["category_id"]], plain(x), plain(y), plain(x + w), plain(y + h)))
            if not grouped[image["id"]]:
                table.writerow((*head, "", "", "", "", ""))
        paths.append(export.write(f"{split}_labels.csv", text.getvalue()))
    return paths

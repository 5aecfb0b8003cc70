"""YOLO text labels: one file per image, `class cx cy w h` per line, centre and size as shares of the upright image.

Understood: Ultralytics' layout (`data.yaml`, `images/<split>/…`, `labels/<split>/…`; docs.ultralytics.com/datasets/detect) and
darknet's (`obj.names`, `obj.data`, `train.txt`), polygons (`class x1 y1 x2 y2 …`) and a sixth column with a score. An image
beside the others without a text file brings no labels; an empty file makes a negative, as Ultralytics has it.

Precision: as many digits as a double takes, below 1e-9 px; others' files usually have 6 digits, 0.0005 px on 1000 px.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from annotate.formats.format import Done, Export, LabelledBox, LabelledImage, LabelSet, plain
from annotate.formats.label_files import IMAGE_SUFFIXES, decode, files_under, number_from, read_bytes, relative, split_lists, split_of

_LISTS = {"classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "trainval.txt"}
_NOT_LABELS = _LISTS | {"readme.txt", "readme.roboflow.txt", "readme.dataset.txt"}


def read(path: Path) -> LabelSet:
    """The labels under a folder (or of the folder that a given `data.yaml` lies in)."""
    found = LabelSet()
    root = path.parent if path.is_file() else path
    names = _names(path, root, found)
    for number, name in names.items():
        found.add_category(name, number + 1)  # class numbers count from 0 here, ids from 1
    splits = split_lists(root, found)
    labels = [file for file in files_under(root, ".txt") if _in_labels(file, root) or file.name.lower() not in _NOT_LABELS]
    seen: set[str] = set()
    for file in labels:
        boxes = _boxes(file, relative(file, root), names, found)
        stem = relative(file, root).removesuffix(file.suffix).replace("labels/", "images/", 1)
        seen.add(stem)
        split = splits.get(file.stem) or split_of(str(Path(stem).parent))
        label_file = relative(file, root)
        found.images.append(LabelledImage(stem, boxes, split=split, relative=True, label_file=label_file, id=file.stem))
    stems = {Path(stem).name for stem in seen}
    for image in files_under(root, *IMAGE_SUFFIXES):
        stem = relative(image, root).removesuffix(image.suffix)
        if stem not in seen and image.stem not in stems:
            found.images.append(
                LabelledImage(relative(image, root), split=split_of(str(Path(stem).parent)), labels_known=False, path=image, id=image.name)
            )
    if not labels:
        found.complain(path, None, "holds no label file (.txt)", Done.REFUSED)
    return found


def _in_labels(file: Path, root: Path) -> bool:
    """Whether a file lies in a folder of labels, where even `train.txt` belongs to an image."""
    return "labels" in file.relative_to(root).parts[:-1]


def _names(path: Path, root: Path, found: LabelSet) -> dict[int, str]:
    """Class number -> name, from data.yaml, obj.names or classes.txt; empty where there is none."""
    files = [path] if path.is_file() else files_under(root, ".yaml", ".yml", ".names")
    files += [file for file in files_under(root, ".txt") if file.name.lower() == "classes.txt"] if root == path else []
    for file in files:
        data = read_bytes(file, found)
        if data is None:
            continue
        text = decode(data, file, found)
        if file.suffix.lower() not in {".yaml", ".yml"}:
            return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
        names = _yaml_names(text, relative(file, root), found)
        if names:
            return names
    return {}


def _yaml_names(text: str, file: str, found: LabelSet) -> dict[int, str]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        found.complain(file, None, f"is not valid YAML: {' '.join(str(error).split())}", Done.REFUSED)
        return {}
    names = document.get("names") if isinstance(document, dict) else None
    if isinstance(names, list):
        return dict(enumerate(map(str, names)))
    if isinstance(names, dict) and all(isinstance(number, int) for number in names):
        return {number: str(name) for number, name in sorted(names.items())}
    return {}


def _boxes(path: Path, file: str, names: dict[int, str], found: LabelSet) -> tuple[LabelledBox, ...]:
    data = read_bytes(path, found)
    boxes = []
    for number, line in enumerate(decode(data or b"", path, found).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        ident = f"line {number}"
        values = [number_from(word) for word in words]
        if len(values) < 5 or any(math.isnan(value) for value in values) or not values[0].is_integer():
            found.complain(file, ident, f"'{line[:60]}' is not 'class cx cy w h'", Done.REFUSED, path.stem)
            continue
        name = names.get(int(values[0]))
        if name is None:
            known = f"0 to {max(names)}" if names else "none: data.yaml, obj.names or classes.txt is missing"
            found.complain(file, ident, f"class {int(values[0])} has no name (named: {known})", Done.REFUSED, path.stem)
            continue
        boxes.append(_box(name, values[1:], ident))
    return tuple(boxes)


def _box(name: str, values: list[float], ident: str) -> LabelledBox:
    if len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[0::2], values[1::2]
        x, y = min(xs), min(ys)
        return LabelledBox(name, x, y, max(xs) - x, max(ys) - y, segmentation=[values], id=ident)
    cx, cy, w, h = values[:4]
    score = values[4] if len(values) == 5 else None
    return LabelledBox(name, cx - w / 2, cy - h / 2, w, h, score=score, id=ident)


def write(export: Export) -> list[Path]:
    """Ultralytics' layout: `data.yaml`, `images/<split>/`, `labels/<split>/*.txt` (empty for negatives)."""
    grouped = export.annotations_by_image()
    numbers = {category: number for number, category in enumerate(export.names_of_categories())}
    paths: list[Path] = []
    for image in export.document["images"]:
        split = image.get("split") or "train"
        paths.append(export.place(image, f"images/{split}"))
        lines = "".join(_line(annotation, image, numbers) for annotation in grouped[image["id"]])
        paths.append(export.write(f"labels/{split}/{Path(image['name']).stem}.txt", lines))
    paths.append(_write_yaml(export))
    return paths


def _line(annotation: dict[str, Any], image: dict[str, Any], numbers: dict[int, int]) -> str:
    x, y, w, h = annotation["bbox"]
    width, height = image["width"], image["height"]
    shares = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
    return " ".join([str(numbers[annotation["category_id"]]), *map(plain, shares)]) + "\n"


def _write_yaml(export: Export) -> Path:
    """Ultralytics insists on train and val. Where the release has no val, train stands in: test must not choose a model."""
    splits = export.splits()
    train = "train" if "train" in splits else splits[0]
    val = "val" if "val" in splits else train
    document: dict[str, Any] = {"path": ".", "train": f"images/{train}", "val": f"images/{val}"}
    if "test" in splits:
        document["test"] = "images/test"
    document["names"] = dict(enumerate(export.names_of_categories().values()))
    note = "" if val == "val" else f"# this release has no val split: {val} stands in\n"
    return export.write("data.yaml", note + yaml.safe_dump(document, sort_keys=False, allow_unicode=True))

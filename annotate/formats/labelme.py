"""LabelMe JSON (github.com/wkentaro/labelme): one file per image, shapes as corner points in pixels of the upright image.

Our box id and release stand in each shape under `boxwright`; LabelMe keeps keys it does not know. The image's split stands in
the file under `split`. Precision: as many digits as a double takes, below 1e-9 px.
"""

from __future__ import annotations

import math
from pathlib import Path, PureWindowsPath
from typing import Any

import orjson

from annotate.formats.format import Done, Export, LabelledBox, LabelledImage, LabelSet, split_tag
from annotate.formats.label_files import files_under, image_stem, number_from, parse_json, relative, split_lists, split_of
from annotate.values import polygons_box, whole

TAG = "boxwright"


def read(path: Path) -> LabelSet:
    """The labels of all LabelMe files under a folder."""
    found = LabelSet()
    splits = split_lists(path, found)
    files = files_under(path, ".json")
    for file in files:
        document = parse_json(file, found)
        if document is None:
            continue
        if not isinstance(document, dict) or not isinstance(document.get("shapes"), list):
            word = "is no LabelMe file: it has no list 'shapes'"
            found.complain(relative(file, path), None, word, Done.REFUSED if len(files) == 1 else Done.SKIPPED)
            continue
        found.images.append(_image(document, relative(file, path), splits, found))
    if not files:
        found.complain(path, None, "holds no JSON file", Done.REFUSED)
    found.add_categories_of_boxes()
    return found


def _image(document: dict[str, Any], file: str, splits: dict[str, str], found: LabelSet) -> LabelledImage:
    name = PureWindowsPath(str(document.get("imagePath") or "")).name or Path(file).stem
    boxes = [_box(shape, f"shape {number}", (file, name), found) for number, shape in enumerate(document["shapes"], 1)]
    width, height = (max(whole(document.get(key) or 0) or 0, 0) for key in ("imageWidth", "imageHeight"))
    split = split_of(str(document.get("split") or "")) or splits.get(image_stem(name)) or split_of(file)
    return LabelledImage(name, tuple(box for box in boxes if box), width, height, split, label_file=file, id=name)


def _box(shape: Any, ident: str, place: tuple[str, str], found: LabelSet) -> LabelledBox | None:
    file, image = place
    if not isinstance(shape, dict) or not isinstance(shape.get("points"), list) or not str(shape.get("label") or "").strip():
        found.complain(file, f"{image} {ident}", "has no label or no points", Done.REFUSED, image)
        return None
    kind, label = str(shape.get("shape_type") or "polygon"), str(shape["label"]).strip()
    points = [[number_from(value) for value in point[:2]] for point in shape["points"] if isinstance(point, list) and len(point) >= 2]
    if kind == "circle" and len(points) == 2:
        radius = math.dist(*points)
        points = [[value - radius for value in points[0]], [value + radius for value in points[0]]]
    elif kind not in {"rectangle", "polygon"}:
        found.complain(file, f"{image} {ident}", f"the {kind} '{label}' is no box", Done.SKIPPED, image)
        return None
    flat = [value for point in points for value in point]
    x, y, w, h = polygons_box([flat]) or (math.nan,) * 4
    segmentation = [flat] if kind == "polygon" and len(points) > 2 else None
    flags = shape.get("flags")
    attributes = {key: value for key, value in flags.items() if value} if isinstance(flags, dict) else {}
    box, release = split_tag(str(shape.get(TAG) or ""))
    found.release = found.release or release
    return LabelledBox(label, x, y, w, h, bool(attributes.pop("iscrowd", False)), attributes, segmentation, id=ident, box=box)


def write(export: Export) -> list[Path]:
    """One JSON beside each image, in `<split>/`."""
    names, grouped = export.names_of_categories(), export.annotations_by_image()
    paths: list[Path] = []
    for image in export.document["images"]:
        split = image.get("split") or "train"
        paths.append(export.place(image, split))
        shapes = [_shape(annotation, names[annotation["category_id"]], export) for annotation in grouped[image["id"]]]
        document = {
            "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image["name"], "imageData": None,
            "imageHeight": image["height"], "imageWidth": image["width"], "split": split,
        }  # fmt: skip
        data = orjson.dumps(document, option=orjson.OPT_INDENT_2)
        paths.append(export.write(f"{split}/{Path(image['name']).stem}.json", data))
    return paths


def _shape(annotation: dict[str, Any], label: str, export: Export) -> dict[str, Any]:
    x, y, w, h = annotation["bbox"]
    flags = dict(annotation.get("attributes") or {})
    if annotation.get("iscrowd"):
        flags["iscrowd"] = True
    shape = {"label": label, "points": [[x, y], [x + w, y + h]], "group_id": None, "shape_type": "rectangle", "flags": flags}
    return {**shape, TAG: f"{annotation['box']}@{export.release}"} if annotation.get("box") else shape

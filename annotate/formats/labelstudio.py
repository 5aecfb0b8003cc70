"""Label Studio JSON (labelstud.io/guide/export): a list of tasks, boxes in percent of the upright image.

Our box ids are the regions' ids, which Label Studio keeps, and each task's `data` carries the image's sha256 and our release.
Where several people annotated a task, the newest annotation that was not cancelled counts, which is listed.

Precision: percent with as many digits as a double takes, below 1e-9 px.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse
from xml.etree import ElementTree as Xml

import orjson

from annotate.formats.cvat import turned_hull
from annotate.formats.format import Done, Export, LabelledBox, LabelledImage, LabelSet
from annotate.formats.label_files import files_under, number_from, parse_json, relative, split_of
from annotate.values import climbs, polygons_box, whole

_KINDS = {"rectanglelabels", "rectangle", "polygonlabels"}


def read(path: Path) -> LabelSet:
    """The labels of one Label Studio export, or of all under a folder."""
    found = LabelSet()
    files = files_under(path, ".json")
    for file in files:
        document = parse_json(file, found)
        if document is None:
            continue
        tasks = [document] if isinstance(document, dict) and "data" in document else document
        if not isinstance(tasks, list) or not all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks):
            word = "is no Label Studio export: it is no list of tasks with 'data'"
            found.complain(relative(file, path), None, word, Done.REFUSED if len(files) == 1 else Done.SKIPPED)
            continue
        for task in tasks:
            _add_task(task, relative(file, path), found)
    if not files:
        found.complain(path, None, "holds no JSON file", Done.REFUSED)
    found.add_categories_of_boxes()
    return found


def _add_task(task: dict[str, Any], file: str, found: LabelSet) -> None:
    data, ident = task["data"], f"task {task.get('id', '?')}"
    address = data.get("image") or next((value for value in data.values() if isinstance(value, str) and "." in value), "")
    name = image_name(str(address))
    if not name or climbs(name):
        found.complain(file, ident, f"the image '{address}' is no file name", Done.REFUSED)
        return
    given = task.get("annotations", task.get("completions"))
    annotations = [entry for entry in given or [] if isinstance(entry, dict) and not entry.get("was_cancelled")]
    if len(annotations) > 1:
        annotations.sort(key=lambda entry: str(entry.get("updated_at") or entry.get("created_at") or ""))
        found.complain(file, ident, f"{len(annotations)} annotations; the newest was taken", Done.MENDED)
    result = annotations[-1].get("result") if annotations else []
    regions = [region for region in result if isinstance(region, dict)] if isinstance(result, list) else []
    sizes = [(whole(region.get("original_width")) or 0, whole(region.get("original_height")) or 0) for region in regions]
    width, height = sizes[0] if sizes else (whole(data.get("width")) or 0, whole(data.get("height")) or 0)
    boxes = [box for region in regions if (box := _box(region, (file, ident), found))]
    if isinstance(data.get("boxwright_release"), str):
        found.release = data["boxwright_release"]
    found.images.append(
        LabelledImage(
            name,
            tuple(boxes),
            width,
            height,
            split_of(str(data.get("split") or "")) or split_of(file),
            bool(annotations),
            relative=True,
            label_file=file,
            id=ident,
            sha256=str(data.get("sha256") or ""),
        )
    )


def image_name(address: str) -> str:
    """The file name behind what Label Studio calls an image: a URL, an upload, or a file of its local storage.

    >>> image_name("/data/upload/3/1a2b3c4d-cat%201.jpg"), image_name("/data/local-files/?d=images/cat.jpg")
    ('cat 1.jpg', 'images/cat.jpg')
    """
    parsed = urlparse(address)
    local = parse_qs(parsed.query).get("d")
    if local:
        return local[0].lstrip("/")
    name = unquote(parsed.path).rpartition("/")[2]
    return re.sub(r"^[0-9a-f]{8}-(?=.)", "", name) if "/upload/" in parsed.path else name


def _box(region: dict[str, Any], place: tuple[str, str], found: LabelSet) -> LabelledBox | None:
    (file, task), kind, value = place, str(region.get("type") or ""), region.get("value")
    ident = f"{task} region {region.get('id', '?')}"
    if kind not in _KINDS or not isinstance(value, dict):
        if kind not in {"choices", "textarea", "rating", "labels"}:
            found.complain(file, ident, f"a region of type '{kind}' is no box", Done.SKIPPED, task)
        return None
    labels = value.get("rectanglelabels") or value.get("polygonlabels") or value.get("labels") or []
    if not isinstance(labels, list) or not labels:
        found.complain(file, ident, "has no label", Done.REFUSED, task)
        return None
    size = (number_from(region.get("original_width", 100)), number_from(region.get("original_height", 100)))
    segmentation = None
    if isinstance(value.get("points"), list):
        flat = [number_from(number) / 100 for point in value["points"] for number in point[:2]]
        (x, y, w, h), segmentation = polygons_box([flat]) or (math.nan,) * 4, [flat]
    else:
        x, y, w, h = (number_from(value.get(key)) / 100 for key in ("x", "y", "width", "height"))
        if turn := number_from(value.get("rotation") or 0):
            x, y, w, h = _turned((x, y, w, h), turn, size)
            found.complain(file, ident, f"is turned by {turn:g}°; the upright box around it was taken", Done.MENDED)
    meta = region.get("meta")
    attributes = dict(meta["attributes"]) if isinstance(meta, dict) and isinstance(meta.get("attributes"), dict) else {}
    number = str(region.get("id") or "")
    box = number if re.fullmatch(r"[0-9a-f]{24}", number) else ""
    return LabelledBox(
        str(labels[0]).strip(), x, y, w, h, bool(attributes.pop("iscrowd", False)), attributes, segmentation, id=f"region {number}", box=box
    )


def _turned(shares: tuple[float, float, float, float], degrees: float, size_wh: tuple[float, float]) -> tuple[float, float, float, float]:
    """The upright box around a box that Label Studio turned clockwise about its top left corner, in shares of the image."""
    (x, y, w, h), (width, height) = shares, size_wh
    w_px, h_px, angle = w * width, h * height, math.radians(degrees)
    centre_x = x * width + (w_px * math.cos(angle) - h_px * math.sin(angle)) / 2
    centre_y = y * height + (w_px * math.sin(angle) + h_px * math.cos(angle)) / 2
    hull = turned_hull((centre_x - w_px / 2, centre_y - h_px / 2, w_px, h_px), degrees)
    return hull[0] / width, hull[1] / height, hull[2] / width, hull[3] / height


def write(export: Export) -> list[Path]:
    """`tasks.json`, `label_config.xml` for the project, and the images in `images/`, addressed as files of local storage."""
    names, grouped = export.names_of_categories(), export.annotations_by_image()
    paths: list[Path] = []
    tasks = []
    for image in export.document["images"]:
        paths.append(export.place(image, "images"))
        result = [_region(annotation, image, names[annotation["category_id"]]) for annotation in grouped[image["id"]]]
        data = {
            "image": f"/data/local-files/?d=images/{image['name']}", "sha256": image.get("sha256", ""), "split": image.get("split", ""),
            "width": image["width"], "height": image["height"], "boxwright_release": export.release,
        }  # fmt: skip
        tasks.append({"id": image["id"], "data": data, "annotations": [{"id": image["id"], "result": result, "was_cancelled": False}]})
    view = Xml.Element("View")
    Xml.SubElement(view, "Image", {"name": "image", "value": "$image"})
    labels = Xml.SubElement(view, "RectangleLabels", {"name": "label", "toName": "image"})
    for name in names.values():
        Xml.SubElement(labels, "Label", {"value": name})
    text = orjson.dumps(tasks, option=orjson.OPT_INDENT_2)
    return [*paths, export.write("tasks.json", text), export.write("label_config.xml", Xml.tostring(view, encoding="utf-8"))]


def _region(annotation: dict[str, Any], image: dict[str, Any], label: str) -> dict[str, Any]:
    x, y, w, h = annotation["bbox"]
    width, height = image["width"], image["height"]
    shares = {"x": 100 * x / width, "y": 100 * y / height, "width": 100 * w / width, "height": 100 * h / height}
    attributes = dict(annotation.get("attributes") or {}) | ({"iscrowd": True} if annotation.get("iscrowd") else {})
    region: dict[str, Any] = {
        "id": annotation.get("box") or f"box{annotation['id']}", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
        "original_width": width, "original_height": height, "image_rotation": 0,
        "value": {**shares, "rotation": 0, "rectanglelabels": [label]},
    }  # fmt: skip
    return {**region, "meta": {"attributes": attributes}} if attributes else region

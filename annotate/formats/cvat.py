"""CVAT XML 1.1, "for images" and "for video" (docs.cvat.ai/docs/dataset_management/formats/format-cvat): edges in pixels.

Our export gives every box the attribute `boxwright` with its id and release (`ID@v001`). CVAT keeps attributes that the task's
labels define, so make the task with the `labels.json` that lies beside the XML (Raw tab of the constructor): a corrected
dump then edits our boxes instead of doubling them.

Precision: we write as many digits as a double takes (below 1e-9 px); CVAT's own dumps have two, 0.005 px.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import orjson

from annotate.formats.format import Done, Export, LabelledBox, LabelledImage, LabelSet, plain, split_tag
from annotate.formats.label_files import files_under, number_from, parse_xml, relative, split_of
from annotate.values import climbs, polygons_box, whole

TAG = "boxwright"
_LABELLED = {"polyline", "points", "cuboid", "ellipse", "mask", "skeleton", "tag"}


def read(path: Path) -> LabelSet:
    """The labels of one CVAT dump, or of all under a folder."""
    found = LabelSet()
    files = files_under(path, ".xml")
    for file in files:
        root = parse_xml(file, found)
        if root is None:
            continue
        if root.tag != "annotations":
            word = f"is no CVAT dump: its root is <{root.tag}>"
            found.complain(relative(file, path), None, word, Done.REFUSED if len(files) == 1 else Done.SKIPPED)
            continue
        for label in root.iterfind("meta//labels/label/name"):
            found.add_category((label.text or "").strip())
        for image in root.iterfind("image"):
            _add_image(image, relative(file, path), found)
        _add_tracks(root, relative(file, path), found)
    if not files:
        found.complain(path, None, "holds no XML file", Done.REFUSED)
    found.add_categories_of_boxes()
    return found


def _add_image(image: Xml.Element, file: str, found: LabelSet) -> None:
    name = (image.get("name") or "").replace("\\", "/")
    if not name or climbs(name):
        found.complain(file, image.get("id"), f"the file name '{name}' is empty or climbs out of its folder", Done.REFUSED)
        return
    boxes = [box for number, shape in enumerate(image, 1) if (box := _shape(shape, f"shape {number}", file, name, found))]
    width, height = (max(whole(image.get(key, "0")) or 0, 0) for key in ("width", "height"))
    split = split_of(image.get("subset") or "") or split_of(name) or split_of(file)
    found.images.append(LabelledImage(name, tuple(boxes), width, height, split, label_file=file, id=name))


def _shape(shape: Xml.Element, ident: str, file: str, image: str, found: LabelSet) -> LabelledBox | None:
    label = (shape.get("label") or "").strip()
    if shape.tag not in {"box", "polygon"}:
        if shape.tag in _LABELLED:
            found.complain(file, f"{image} {ident}", f"<{shape.tag}> '{label}' is no box", Done.SKIPPED, image)
        return None
    if not label:
        found.complain(file, f"{image} {ident}", "has no label", Done.REFUSED, image)
        return None
    attributes: dict[str, Any] = {entry.get("name", ""): _value(entry.text) for entry in shape.iterfind("attribute")}
    if shape.get("occluded") == "1":
        attributes["occluded"] = True
    box, release = split_tag(str(attributes.pop(TAG, "")))
    found.release = found.release or release
    crowd = bool(attributes.pop("iscrowd", False))
    segmentation = None
    if shape.tag == "polygon":
        points = [number_from(word) for pair in (shape.get("points") or "").split(";") for word in pair.split(",")]
        place, segmentation = polygons_box([points]) or (math.nan,) * 4, [points]
    else:
        x1, y1, x2, y2 = (number_from(shape.get(key)) for key in ("xtl", "ytl", "xbr", "ybr"))
        place = (x1, y1, x2 - x1, y2 - y1)
        turn = number_from(shape.get("rotation", "0"))
        if turn:
            place = turned_hull(place, turn)
            found.complain(file, f"{image} {ident}", f"is turned by {turn:g}°; the upright box around it was taken", Done.MENDED)
    x, y, w, h = place
    return LabelledBox(label, x, y, w, h, crowd, attributes, segmentation, id=ident, box=box)


def turned_hull(box_xywh: tuple[float, float, float, float], degrees: float) -> tuple[float, float, float, float]:
    """The upright box (xywh) around a box turned about its centre.

    >>> tuple(round(value, 6) for value in turned_hull((0.0, 0.0, 4.0, 2.0), 90.0))
    (1.0, -1.0, 2.0, 4.0)
    """
    x, y, w, h = box_xywh
    sine, cosine = abs(math.sin(math.radians(degrees))), abs(math.cos(math.radians(degrees)))
    width, height = w * cosine + h * sine, w * sine + h * cosine
    return x + (w - width) / 2, y + (h - height) / 2, width, height


def _value(text: str | None) -> str | bool:
    words = (text or "").strip()
    return {"true": True, "false": False}.get(words.lower(), words)


def _add_tracks(root: Xml.Element, file: str, found: LabelSet) -> None:
    """Tracks of a video: CVAT lists every frame of each; frames are files named `frame_000000` as CVAT writes them."""
    frames: dict[int, list[LabelledBox]] = {}
    for track in root.iterfind("track"):
        for shape in track:
            frame = whole(shape.get("frame"))
            if frame is None or shape.get("outside") == "1":
                continue
            shape.set("label", track.get("label") or "")
            name = f"frame_{frame:06d}"
            box = _shape(shape, f"track {track.get('id')}", file, name, found)
            frames.setdefault(frame, []).extend([box] if box else [])
    width, height = (whole(root.findtext(f"meta//original_size/{key}")) or 0 for key in ("width", "height"))
    for frame, boxes in sorted(frames.items()):
        name = f"frame_{frame:06d}"
        found.images.append(LabelledImage(name, tuple(boxes), width, height, split_of(file), label_file=file, id=name))


def write(export: Export) -> list[Path]:
    """`annotations.xml`, `labels.json` for the task's constructor, and the images in `images/<subset>/`, as CVAT packs them."""
    root = Xml.Element("annotations")
    Xml.SubElement(root, "version").text = "1.1"
    labels = Xml.SubElement(Xml.SubElement(Xml.SubElement(root, "meta"), "task"), "labels")
    for name in export.names_of_categories().values():
        label = Xml.SubElement(labels, "label")
        Xml.SubElement(label, "name").text = name
        _define(Xml.SubElement(label, "attributes"), _attribute_names(export))
    names, grouped = export.names_of_categories(), export.annotations_by_image()
    paths: list[Path] = []
    for number, image in enumerate(export.document["images"]):
        paths.append(export.place(image, f"images/{image.get('split') or 'train'}"))
        size = {"width": str(image["width"]), "height": str(image["height"])}
        facts = {"id": str(number), "name": image["name"], "subset": image.get("split") or "train", **size}
        entry = Xml.SubElement(root, "image", facts)
        for annotation in grouped[image["id"]]:
            _write_box(entry, annotation, names[annotation["category_id"]], export)
    Xml.indent(root)
    target = export.write("annotations.xml", Xml.tostring(root, encoding="utf-8", xml_declaration=True))
    return [*paths, target, _write_labels(export)]


def _define(attributes: Xml.Element, names: list[str]) -> None:
    for name in names:
        entry = Xml.SubElement(attributes, "attribute")
        for key, value in (("name", name), ("mutable", "False"), ("input_type", "text"), ("default_value", ""), ("values", "")):
            Xml.SubElement(entry, key).text = value


def _attribute_names(export: Export) -> list[str]:
    used = {str(name) for entry in export.document["annotations"] for name in (entry.get("attributes") or {}) if name != "occluded"}
    return [*sorted(used - {TAG, "iscrowd"}), "iscrowd", TAG]


def _write_box(image: Xml.Element, annotation: dict[str, Any], label: str, export: Export) -> None:
    x, y, w, h = annotation["bbox"]
    attributes = dict(annotation.get("attributes") or {})
    occluded = "1" if attributes.pop("occluded", False) else "0"
    edges = {key: plain(value) for key, value in zip(("xtl", "ytl", "xbr", "ybr"), (x, y, x + w, y + h), strict=True)}
    box = Xml.SubElement(image, "box", {"label": label, "source": "manual", "occluded": occluded, **edges, "z_order": "0"})
    if annotation.get("iscrowd"):
        attributes["iscrowd"] = True
    if annotation.get("box"):
        attributes[TAG] = f"{annotation['box']}@{export.release}"
    for name, value in sorted(attributes.items()):
        Xml.SubElement(box, "attribute", {"name": str(name)}).text = str(value).lower() if isinstance(value, bool) else str(value)


def _write_labels(export: Export) -> Path:
    """The labels as CVAT's task constructor takes them."""
    attributes = [
        {"name": name, "mutable": False, "input_type": "text", "default_value": "", "values": [""]} for name in _attribute_names(export)
    ]
    labels = [{"name": name, "attributes": attributes} for name in export.names_of_categories().values()]
    return export.write("labels.json", orjson.dumps(labels, option=orjson.OPT_INDENT_2))

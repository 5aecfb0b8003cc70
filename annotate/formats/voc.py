"""Pascal VOC XML (host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc), and ImageNet-detection XML, which is the same file.

Whose pixels? The VOC devkit counts pixels from 1 and takes `xmax` and `ymax` as the last pixel inside (devkit_doc, "bounding
box … x,y coordinates of the top-left pixel have value (1,1)"): there x = xmin - 1 and w = xmax - xmin + 1. The tools that
write VOC files today (labelImg, CVAT, Roboflow, Label Studio) take the four numbers as edges: x = xmin, w = xmax - xmin; so do
the nine formats of one ground truth that we hold ourselves against. `voc` and `imagenet` are edges, `voc-devkit` is the devkit.

Precision: edges are written with as many digits as a double takes, below 1e-9 px; whole numbers are written as such.
"""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import Any
from xml.etree import ElementTree as Xml

from annotate.formats.format import Done, Export, LabelledBox, LabelledImage, LabelSet, plain
from annotate.formats.label_files import files_under, image_stem, number_from, parse_xml, relative, split_lists, split_of
from annotate.values import climbs, whole

_FLAGS = ("difficult", "truncated", "occluded")


def read(path: Path) -> LabelSet:
    """The labels of all VOC files under a folder; splits from `ImageSets/Main` or lists like `train_labels.csv`."""
    return _read(path, devkit=False)


def read_devkit(path: Path) -> LabelSet:
    """As :func:`read`, with the devkit's own pixels: from 1, last one inside."""
    return _read(path, devkit=True)


def read_imagenet(path: Path) -> LabelSet:
    """As :func:`read`; ImageNet's file names lack the suffix and its categories are WordNet ids or names."""
    return _read(path, devkit=False)


def _read(path: Path, *, devkit: bool) -> LabelSet:
    found = LabelSet()
    splits = split_lists(path, found)
    files = files_under(path, ".xml")
    for file in files:
        root = parse_xml(file, found)
        if root is None:
            continue
        if root.tag != "annotation":
            message = f"is no VOC annotation: its root is <{root.tag}>"
            found.complain(relative(file, path), None, message, Done.REFUSED if len(files) == 1 else Done.SKIPPED)
            continue
        found.images.append(_image(root, relative(file, path), splits, found, devkit))
    if not files:
        found.complain(path, None, "holds no XML file", Done.REFUSED)
    found.add_categories_of_boxes()
    return found


def _image(root: Xml.Element, file: str, splits: dict[str, str], found: LabelSet, devkit: bool) -> LabelledImage:
    stated = (root.findtext("filename") or "").strip()
    name = PureWindowsPath(stated).name if stated else Path(file).stem
    if climbs(stated):
        found.complain(file, stated, "the file name climbs out of its folder; its last part is used", Done.MENDED)
    boxes = [_box(entry, number, (file, name), found, devkit) for number, entry in enumerate(root.iter("object"), 1)]
    width, height = (whole((root.findtext(f"size/{key}") or "0").strip()) or 0 for key in ("width", "height"))
    split = splits.get(Path(file).stem) or splits.get(image_stem(name)) or split_of(file)
    return LabelledImage(name, tuple(box for box in boxes if box), max(width, 0), max(height, 0), split, label_file=file, id=name)


def _box(entry: Xml.Element, number: int, place: tuple[str, str], found: LabelSet, devkit: bool) -> LabelledBox | None:
    name = " ".join((entry.findtext("name") or "").split())
    if not name:
        found.complain(place[0], f"object {number}", "has no name", Done.REFUSED, place[1])
        return None
    x1, y1, x2, y2 = (number_from(entry.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax"))
    shift = 1.0 if devkit else 0.0
    attributes: dict[str, Any] = {key: True for key in _FLAGS if (entry.findtext(key) or "0").strip() in {"1", "true", "True"}}
    pose = (entry.findtext("pose") or "").strip()
    if pose and pose.lower() not in {"unspecified", "unknown"}:
        attributes["pose"] = pose
    x, y = x1 - shift, y1 - shift
    # y2 - y, not y2 - y1 + 1: one subtraction, so that edges written from our boxes come back exactly
    return LabelledBox(name, x, y, x2 - x, y2 - y, attributes=attributes, id=f"object {number}")


def write(export: Export) -> list[Path]:
    """VOC's folders: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/<split>.txt`."""
    return _write(export, devkit=False, images="JPEGImages", suffix=True)


def write_devkit(export: Export) -> list[Path]:
    """As :func:`write`, with the devkit's own pixels."""
    return _write(export, devkit=True, images="JPEGImages", suffix=True)


def write_imagenet(export: Export) -> list[Path]:
    """ImageNet's folders: `Annotations/*.xml` with names that lack the suffix, `images/`, `ImageSets/Main/<split>.txt`."""
    return _write(export, devkit=False, images="images", suffix=False)


def _write(export: Export, *, devkit: bool, images: str, suffix: bool) -> list[Path]:
    paths: list[Path] = []
    names = export.names_of_categories()
    grouped = export.annotations_by_image()
    lists: dict[str, list[str]] = {split: [] for split in export.splits()}
    for image in export.document["images"]:
        stem = Path(image["name"]).stem
        paths.append(export.place(image, images))
        root = _document(image, grouped[image["id"]], names, devkit, folder=images, suffix=suffix)
        Xml.indent(root)
        paths.append(export.write(f"Annotations/{stem}.xml", Xml.tostring(root, encoding="utf-8", xml_declaration=True)))
        lists[image.get("split") or "train"].append(stem)
    for split, stems in lists.items():
        paths.append(export.write(f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in stems)))
    return paths


def _document(
    image: dict[str, Any], annotations: list[dict[str, Any]], names: dict[int, str], devkit: bool, *, folder: str, suffix: bool
) -> Xml.Element:
    root = Xml.Element("annotation")
    for key, value in (("folder", folder), ("filename", image["name"] if suffix else Path(image["name"]).stem)):
        Xml.SubElement(root, key).text = value
    Xml.SubElement(Xml.SubElement(root, "source"), "database").text = "Boxwright"
    size = Xml.SubElement(root, "size")
    for key, value in (("width", image["width"]), ("height", image["height"]), ("depth", 3)):
        Xml.SubElement(size, key).text = str(value)
    Xml.SubElement(root, "segmented").text = "0"
    shift = 1.0 if devkit else 0.0
    for annotation in annotations:
        entry = Xml.SubElement(root, "object")
        Xml.SubElement(entry, "name").text = names[annotation["category_id"]]
        attributes = annotation.get("attributes") or {}
        Xml.SubElement(entry, "pose").text = str(attributes.get("pose", "Unspecified"))
        for flag in _FLAGS:
            value = attributes.get(flag) or (flag == "difficult" and annotation.get("iscrowd"))
            Xml.SubElement(entry, flag).text = "1" if value else "0"
        x, y, w, h = annotation["bbox"]
        box = Xml.SubElement(entry, "bndbox")
        for key, value in (("xmin", x + shift), ("ymin", y + shift), ("xmax", x + w), ("ymax", y + h)):
            Xml.SubElement(box, key).text = plain(value)
    return root

"""COCO detection JSON (cocodataset.org/#format-data): `[x, y, width, height]` in pixels, origin top left, continuous.

Precision: exact; a double is written with as many digits as it takes to read it back. Reading a folder takes every JSON in
it that is a COCO document; the split comes from the image's own `split`, the file's name or the image's path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annotate.coco import Document, cut, write_document
from annotate.formats.format import Done, Export, LabelledBox, LabelledImage, LabelSet
from annotate.formats.label_files import files_under, parse_json, relative, split_of
from annotate.validate import normalise, taken_out
from collect.licenses import spdx_from_name
from collect.records import Licence


def read(path: Path) -> LabelSet:
    """The labels of one COCO file, or of all COCO files under a folder."""
    found = LabelSet()
    files = files_under(path, ".json")
    for file in files:
        document = parse_json(file, found)
        if document is None:
            continue
        if len(files) > 1 and not _has_boxes(document):
            found.complain(relative(file, path), None, "is no COCO detection file", Done.SKIPPED)
            continue
        _add(found, document, relative(file, path))
    if not files:
        found.complain(path, None, "holds no JSON file", Done.REFUSED)
    return found


def _has_boxes(document: Any) -> bool:
    """Whether a document is COCO's for detection; captions and results lie in the same folders."""
    if not isinstance(document, dict) or not all(key in document for key in ("images", "annotations", "categories")):
        return False
    annotations = document["annotations"]
    return (
        not isinstance(annotations, list)
        or not annotations
        or any(isinstance(entry, dict) and "category_id" in entry for entry in annotations[:1000])
    )


def _add(found: LabelSet, document: Any, file: str) -> None:
    clean, problems = normalise(document, file)
    found.problems += problems
    if clean is None:
        return
    for entry in clean["categories"]:
        found.add_category(entry["name"], entry["id"], entry["supercategory"])
    names = {entry["id"]: entry["name"] for entry in clean["categories"]}
    info = clean.get("info")
    if isinstance(info, dict):
        found.release = str(info.get("boxwright_release") or info.get("version") or "")
    boxes: dict[int, list[LabelledBox]] = {image["id"]: [] for image in clean["images"]}
    for annotation in taken_out(clean["annotations"]):
        boxes[annotation["image_id"]].append(_box(annotation, names[annotation["category_id"]]))
    licences = _licences(clean, file)
    for image in clean["images"]:
        found.images.append(_image(image, tuple(boxes[image["id"]]), file, licences))


def _box(annotation: dict[str, Any], category: str) -> LabelledBox:
    attributes = annotation.get("attributes")
    kept = dict(attributes) if isinstance(attributes, dict) else {}
    score = annotation.get("score")
    x, y, w, h = annotation["bbox"]
    return LabelledBox(
        category, x, y, w, h,
        iscrowd=bool(annotation["iscrowd"]), attributes=kept, segmentation=annotation["segmentation"] or None, area=annotation["area"],
        score=float(score) if isinstance(score, int | float) else None,
        id=str(annotation["id"]), box=str(annotation.get("box") or kept.pop("box", "")),
    )  # fmt: skip


def _image(image: dict[str, Any], boxes: tuple[LabelledBox, ...], file: str, licences: dict[int, Licence]) -> LabelledImage:
    number = image.get("license")
    licence = licences.get(number) if isinstance(number, int) else None
    author, url = image.get("author"), image.get("source_url") or image.get("flickr_url") or image.get("coco_url")
    if licence and isinstance(author, str) and author:
        licence = Licence(licence.spdx, licence.url, creator=author, evidence=licence.evidence)
    split = image.get("split")
    return LabelledImage(
        image["file_name"], boxes, image["width"], image["height"],
        split=(split_of(split) if isinstance(split, str) else "") or split_of(file) or split_of(image["file_name"]),
        label_file=file, id=str(image["id"]), sha256=str(image.get("sha256") or ""),
        source_url=url if isinstance(url, str) else "", licence=licence,
    )  # fmt: skip


def _licences(document: Document, file: str) -> dict[int, Licence]:
    """Licence id -> licence, for those whose name or address says which one it is."""
    known: dict[int, Licence] = {}
    entries = document.get("licenses")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("id"), int):
            url, name = str(entry.get("url") or ""), str(entry.get("spdx") or entry.get("name") or "")
            spdx = spdx_from_name(name, url=url)
            if spdx:
                known[entry["id"]] = Licence(spdx, url=url, evidence=file)
    return known


def write(export: Export) -> list[Path]:
    """`annotations/instances_<split>.json` with the images in `<split>/`; all that a release says stays in."""
    paths: list[Path] = []
    document = {**export.document, "info": {**export.document.get("info", {}), "boxwright_release": export.release}}
    for split in export.splits():
        part = cut({**document, "images": [{**i, "split": i.get("split") or "train"} for i in document["images"]]}, split)
        paths += [export.place(image, split) for image in part["images"]]
        images = [{**{key: value for key, value in i.items() if key != "name"}, "file_name": i["name"]} for i in part["images"]]
        target = export.out / "annotations" / f"instances_{split}.json"
        write_document(target, {**part, "images": images})
        paths.append(target)
    return paths

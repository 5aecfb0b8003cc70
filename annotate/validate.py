"""Strict validation of COCO detection documents, on the way in and on the way out.

What can be mended is mended and listed (ids as texts or floats, RLE crowds without a box, ids used twice), what cannot is
refused by image and annotation id. Everything wrong is found in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from annotate.boxes import clip_xywh
from annotate.coco import Document
from annotate.formats.format import Done, LabelSet, Problem
from collect.errors import CorruptError

#: A box may stick out of its image by this much for rounding's sake; it is clipped, and nobody needs to hear of it.
ROUNDING_PX = 0.01


def whole(value: object) -> int | None:
    """A whole number from an int, a float without a fraction or a text of either; None where it is none.

    >>> whole(7), whole(7.0), whole("7"), whole(7.5), whole(True), whole(None)
    (7, 7, 7, None, None, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return int(number) if math.isfinite(number) and number == int(number) else None


def climbs(file_name: str) -> bool:
    r"""Whether a file name leads out of its folder by `..`, in the manner of either family of systems.

    >>> climbs("../../etc/passwd"), climbs("a\\..\\..\\b"), climbs("train/a.jpg")
    (True, True, False)
    """
    return ".." in PurePosixPath(file_name).parts or ".." in PureWindowsPath(file_name).parts or "\0" in file_name


def rle_box(segmentation: dict[str, Any]) -> tuple[tuple[float, float, float, float], float] | None:
    """The box (xywh px) and area of a run-length mask, compressed or not; None where it is no mask.

    The reading is the COCO API's own (`pycocotools.mask`).
    """
    from pycocotools import mask

    try:
        height, width = (int(side) for side in segmentation["size"])
        counts = segmentation["counts"]
        if isinstance(counts, list):
            if sum(counts) != height * width or any(run < 0 for run in counts):
                return None
            encoded = mask.frPyObjects(segmentation, height, width)
        else:
            encoded = {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
        x, y, w, h = (float(value) for value in mask.toBbox(encoded))
        return (x, y, w, h), float(mask.area(encoded))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def polygons_box(polygons: Iterable[Any]) -> tuple[float, float, float, float] | None:
    """The box (xywh px) around polygons given as `[[x1, y1, x2, y2, …], …]`; None where there are no finite points."""
    try:
        numbers = [[float(value) for value in polygon] for polygon in polygons]
    except (TypeError, ValueError):
        return None
    xs, ys = [x for polygon in numbers for x in polygon[0::2]], [y for polygon in numbers for y in polygon[1::2]]
    if not xs or not ys or not all(math.isfinite(value) for value in (*xs, *ys)):
        return None
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def fit_box(box_xywh: tuple[float, float, float, float], size_wh: tuple[int, int]) -> tuple[tuple[float, float, float, float] | None, str]:
    """A box cut to its image, and what was wrong with it ("" = nothing). None where nothing of it is left.

    >>> fit_box((-5.0, 0.0, 20.0, 10.0), (100, 50))
    ((0.0, 0.0, 15.0, 10.0), 'sticks out of the image of 100×50; clipped')
    >>> fit_box((1.0, 1.0, 0.0, 3.0), (100, 50))
    (None, 'the box 1,1,0,3 has no area')
    """
    named = ",".join(f"{value:g}" for value in box_xywh)
    if not all(math.isfinite(value) for value in box_xywh):
        return None, f"the box {named} is not finite"
    if box_xywh[2] <= 0 or box_xywh[3] <= 0:
        return None, f"the box {named} has no area"
    clipped = clip_xywh(box_xywh, size_wh)
    if clipped[2] <= 0 or clipped[3] <= 0:
        return None, f"the box {named} lies outside the image of {size_wh[0]}×{size_wh[1]}"
    moved = max(abs(new - old) for new, old in zip(clipped, box_xywh, strict=True))
    return clipped, f"sticks out of the image of {size_wh[0]}×{size_wh[1]}; clipped" if moved > ROUNDING_PX else ""


def normalise(document: Any, file: str) -> tuple[Document | None, list[Problem]]:
    """A COCO detection document with everything wrong mended or left out, and the list of what that was.

    In the result ids are ints and unique within their list, references hold, file names are not empty and do not climb,
    boxes are four finite floats with an area, `iscrowd` is 0 or 1, `area` a number. Boxes are not held against the image's
    size: only who has the image knows it. None where it is no such document at all.
    """
    checker = _Checker(file)
    return checker.document(document), checker.found.problems


def assert_valid(document: Document, file: str) -> None:
    """Hold a document of our own against all rules, sizes included, before it is written.

    Raises:
        CorruptError: something is wrong; lists all of it.
    """
    _, problems = normalise(document, file)
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"] if image["width"] and image["height"]}
    problems += [
        Problem(file, f"image {image['id']}", "has no size", Done.REFUSED) for image in document["images"] if image["id"] not in sizes
    ]
    problems += [
        Problem(file, f"annotation {annotation['id']}", wrong, Done.REFUSED)
        for annotation in document["annotations"]
        if annotation["image_id"] in sizes and (wrong := fit_box(tuple(annotation["bbox"]), sizes[annotation["image_id"]])[1])
    ]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems[:50])
        raise CorruptError(f"{file} would not be valid COCO ({len(problems)} problems):\n{lines}")


class _Checker:
    """One document on its way through."""

    def __init__(self, file: str) -> None:
        self.file, self.found = file, LabelSet()
        self.image_of_box = ""

    def complain(self, ident: object, problem: str, done: Done) -> None:
        self.found.complain(self.file, ident, problem, done, self.image_of_box)

    def document(self, document: Any) -> Document | None:
        if isinstance(document, list):
            self.complain(None, "is a list: detections of a model, not labels; labels are an object with images, annotations", Done.REFUSED)
            return None
        if not isinstance(document, dict) or not isinstance(document.get("images"), list):
            self.complain(None, "is no COCO detection file: it has no list 'images'", Done.REFUSED)
            return None
        lists = {}
        for key in ("images", "categories", "annotations"):
            value = document.get(key, [])
            if not isinstance(value, list):
                self.complain(None, f"'{key}' is no list", Done.REFUSED)
                value = []
            elif any(not isinstance(entry, dict) for entry in value):
                self.complain(None, f"'{key}' holds entries that are no objects", Done.REFUSED)
                value = [entry for entry in value if isinstance(entry, dict)]
            lists[key] = value
        images, image_ids = self.images(lists["images"])
        categories, category_ids = self.categories(lists["categories"])
        annotations = self.annotations(lists["annotations"], image_ids, category_ids)
        return {**document, "images": images, "categories": categories, "annotations": annotations}

    def images(self, entries: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[int, int]]:
        by_id: dict[int, dict[str, Any]] = {}
        bad: set[int] = set()
        for entry in entries:
            image = self.image(entry)
            if image is None:
                continue
            other = by_id.setdefault(image["id"], image)
            if other is image:
                continue
            if other["file_name"] == image["file_name"]:
                self.complain(f"image {image['id']}", "is listed twice; taken once", Done.MENDED)
            else:
                bad.add(image["id"])
                message = f"two images have this id, '{other['file_name']}' and '{image['file_name']}': whose the boxes are cannot be told"
                self.complain(f"image {image['id']}", message, Done.REFUSED)
        images = [image for number, image in by_id.items() if number not in bad]
        return images, {image["id"]: image["id"] for image in images} | dict.fromkeys(bad, -1)

    def image(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        number, name = self.id_of(entry, "image"), entry.get("file_name")
        if number is None:
            return None
        ident = f"image {number}"
        if not isinstance(name, str) or not name.strip():
            self.complain(ident, f"has no file name but {name!r}", Done.REFUSED)
            return None
        if climbs(name):
            self.complain(ident, f"the file name '{name}' climbs out of its folder", Done.REFUSED)
            return None
        sides = {}
        for key in ("width", "height"):
            value = entry.get(key, 0)
            side = whole(value)
            if side is None or side < 0:
                self.complain(ident, f"the {key} is {value!r}; taken from the picture", Done.MENDED)
                side = 0
            elif not isinstance(value, int):
                self.complain(ident, f"the {key} is {value!r}, not a whole number; read as {side}", Done.MENDED)
            sides[key] = side
        return {**entry, **sides, "id": number, "file_name": name.replace("\\", "/")}

    def categories(self, entries: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[int, int]]:
        kept: dict[str, dict[str, Any]] = {}
        ids: dict[int, int] = {}
        names: dict[int, str] = {}
        for entry in entries:
            number, name = self.id_of(entry, "category"), entry.get("name")
            if number is None:
                continue
            if not isinstance(name, str) or not name.strip():
                self.complain(f"category {number}", f"has no name but {name!r}", Done.REFUSED)
                continue
            name = name.strip()
            if number in ids:
                if names[number] != name:
                    self.complain(f"category {number}", f"is both '{names[number]}' and '{name}'", Done.REFUSED)
                    ids[number] = -1
                continue
            names[number] = name
            if name in kept:
                self.complain(f"category {number}", f"'{name}' has the id {kept[name]['id']} too; taken as one", Done.MENDED)
            super_name = entry.get("supercategory")
            clean = {**entry, "id": number, "name": name, "supercategory": super_name if isinstance(super_name, str) else ""}
            ids[number] = kept.setdefault(name, clean)["id"]
        return list(kept.values()), ids

    def annotations(self, entries: list[dict[str, Any]], images: dict[int, int], categories: dict[int, int]) -> list[dict[str, Any]]:
        kept: list[dict[str, Any]] = []
        seen: set[int] = set()
        highest = max((number for entry in entries if (number := whole(entry.get("id"))) is not None), default=0)
        for place, entry in enumerate(entries):
            number = whole(entry.get("id"))
            ident = f"annotation {entry['id'] if entry.get('id') is not None else f'#{place}'}"
            image, category = whole(entry.get("image_id")), whole(entry.get("category_id"))
            self.image_of_box = "" if image is None else str(image)
            target = None if image is None else images.get(image)
            meant = None if category is None else categories.get(category)
            if target is None:
                self.complain(ident, f"is on image {entry.get('image_id')!r}, which is not in the file", Done.REFUSED)
            if meant is None or meant == -1:
                reason = "which two names share" if meant == -1 else "which is not in the file"
                self.complain(ident, f"has the category {entry.get('category_id')!r}, {reason}", Done.REFUSED)
            box = self.box(entry, ident)
            if target is None or target == -1 or meant is None or meant == -1 or box is None:
                continue
            if number is None or number < 1 or number in seen:
                highest += 1
                why = "is used twice" if number in seen else "is no whole number from 1"
                self.complain(ident, f"the id {why}; it became {highest}", Done.MENDED)
                number = highest
            elif not isinstance(entry["id"], int):
                self.complain(ident, f"the id is {entry['id']!r}; read as {number}", Done.MENDED)
            seen.add(number)
            kept.append({**entry, "id": number, "image_id": target, "category_id": meant, **box})
        return kept

    def box(self, entry: dict[str, Any], ident: str) -> dict[str, Any] | None:
        """`bbox`, `area`, `iscrowd` and `segmentation` of an annotation, or None where it has no box to keep."""
        segmentation, crowd = entry.get("segmentation"), whole(entry.get("iscrowd", 0) or 0)
        if isinstance(entry.get("iscrowd"), bool):
            crowd = int(entry["iscrowd"])
        if crowd not in {0, 1}:
            self.complain(ident, f"iscrowd is {entry.get('iscrowd')!r}; taken as 0", Done.MENDED)
            crowd = 0
        masked = rle_box(segmentation) if isinstance(segmentation, dict) else None
        if isinstance(segmentation, dict) and masked is None:
            self.complain(ident, "the run-length mask cannot be read; left out", Done.MENDED)
            segmentation = None
        box = self.numbers(entry, ident)
        if box is None:
            shape = masked[0] if masked else polygons_box(segmentation) if isinstance(segmentation, list) else None
            if shape is None:
                self.complain(ident, f"the box is {entry.get('bbox')!r}, and no mask says where it is", Done.REFUSED)
                return None
            if "bbox" in entry:
                self.complain(ident, f"the box is {entry['bbox']!r}; taken from the mask", Done.MENDED)
            box = shape
        if box[2] <= 0 or box[3] <= 0:
            self.complain(ident, f"the box {','.join(f'{value:g}' for value in box)} has no area", Done.SKIPPED)
            return None
        area = entry.get("area", masked[1] if masked else box[2] * box[3])
        if isinstance(area, bool) or not isinstance(area, int | float) or not math.isfinite(area) or area < 0:
            self.complain(ident, f"the area is {area!r}; computed", Done.MENDED)
            area = masked[1] if masked else box[2] * box[3]
        return {"bbox": list(box), "area": area, "iscrowd": crowd, "segmentation": segmentation}

    def numbers(self, entry: dict[str, Any], ident: str) -> tuple[float, float, float, float] | None:
        given = entry.get("bbox")
        if not isinstance(given, list) or len(given) != 4:
            return None
        try:
            x, y, w, h = (float(value) for value in given)
        except (TypeError, ValueError):
            return None
        if not all(math.isfinite(value) and abs(value) < 1e9 for value in (x, y, w, h)):
            return None
        if any(isinstance(value, str | bool) for value in given):
            self.complain(ident, f"the box holds texts: {given!r}; read as numbers", Done.MENDED)
        return x, y, w, h

    def id_of(self, entry: dict[str, Any], kind: str) -> int | None:
        given = entry.get("id")
        number = whole(given)
        if number is None:
            self.complain(f"{kind} {given!r}", f"an id must be a whole number, this one is {given!r}", Done.REFUSED)
        elif not isinstance(given, int):
            self.complain(f"{kind} {number}", f"the id is {given!r}; read as {number}", Done.MENDED)
        return number

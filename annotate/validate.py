"""Strict validation of COCO detection documents, on the way in and on the way out.

What can be mended is mended and listed (ids as texts or floats, RLE crowds without a box, ids used twice), what cannot is
refused by image and annotation id. Everything wrong is found in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from annotate.coco import Content, Document, Entry
from annotate.formats.format import Done, LabelSet, Problem
from annotate.values import climbs, fit_box, polygons_box, rle_box, whole
from collect.errors import CorruptError


def normalise(document: Any, file: str) -> tuple[Document | None, list[Problem]]:
    """A COCO detection document with everything wrong mended or left out, and the list of what that was.

    In the result ids are ints and unique within their list, references hold, file names are not empty and do not climb,
    boxes are four finite floats with an area, `iscrowd` is 0 or 1, `area` a number. Boxes are not held against the image's
    size: only who has the image knows it. None where it is no such document at all.

    The given document is used up: its annotations are taken out one by one, since two copies of millions would not fit.
    """
    checker = _Checker(file)
    return checker.document(document), checker.found.problems


def taken_out(entries: list[Entry]) -> Iterator[Entry]:
    """The entries of a list in order; the list is empty afterwards, and each may be freed as soon as it was used."""
    entries.reverse()
    while entries:
        yield entries.pop()


class Strict:
    """Content on its way out: each entry is held against all rules, sizes included, as it passes."""

    def __init__(self, content: Content, file: str) -> None:
        self.head = content.head
        self._content, self._checker = content, _Checker(file)
        self._checker.categories(content.head["categories"])
        self._sizes: dict[int, tuple[int, int]] = {}

    def images(self) -> Iterator[Entry]:
        for image in self._content.images():
            number, size = image["id"], (image["width"], image["height"])
            self._checker.add_image(image)
            self._sizes[number] = size
            if 0 in size:
                self._checker.complain(f"image {number}", "has no size", Done.REFUSED)
            yield image

    def annotations(self) -> Iterator[Entry]:
        for place, annotation in enumerate(self._content.annotations()):
            self._checker.annotation(annotation, place)
            size = self._sizes.get(annotation["image_id"], (0, 0))
            if 0 not in size and (wrong := fit_box(tuple(annotation["bbox"]), size)[1]):
                self._checker.complain(f"annotation {annotation['id']}", wrong, Done.REFUSED)
            yield annotation

    def finish(self) -> None:
        """To be called when all has passed.

        Raises:
            CorruptError: something was wrong; lists it.
        """
        problems = self._checker.found.problems
        if problems:
            lines = "\n".join(f"  {problem}" for problem in problems[:50])
            raise CorruptError(f"{self._checker.file} would not be valid COCO ({len(problems)} problems):\n{lines}")


class _Checker:
    """One document on its way through."""

    def __init__(self, file: str) -> None:
        self.file, self.found = file, LabelSet()
        self.image_of_box = ""
        #: id -> file name of the images, id -> id of the categories that stands for it; "" and -1 = ambiguous
        self.image_names: dict[int, str] = {}
        self.category_ids: dict[int, int] = {}
        self.annotation_ids: set[int] = set()
        self.highest = 0

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
        images = [image for entry in lists["images"] if (image := self.add_image(entry))]
        categories = self.categories(lists["categories"])
        numbers = (whole(entry.get("id")) for entry in lists["annotations"])
        self.highest = max((number for number in numbers if number is not None), default=0)
        taken = enumerate(taken_out(lists["annotations"]))
        annotations = [kept for place, entry in taken if (kept := self.annotation(entry, place))]
        images = [image for image in images if self.image_names[image["id"]]]
        return {**document, "images": images, "categories": categories, "annotations": annotations}

    def add_image(self, entry: Entry) -> Entry | None:
        """The image, mended, or None where it cannot be or is known already."""
        image = self.image(entry)
        if image is None:
            return None
        name = self.image_names.get(image["id"])
        if name is None:
            self.image_names[image["id"]] = image["file_name"]
            return image
        if name == image["file_name"]:
            self.complain(f"image {image['id']}", "is listed twice; taken once", Done.MENDED)
        else:
            message = f"two images have this id, '{name}' and '{image['file_name']}': whose the boxes are cannot be told"
            self.complain(f"image {image['id']}", message, Done.REFUSED)
            self.image_names[image["id"]] = ""
        return None

    def image(self, entry: Entry) -> Entry | None:
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

    def categories(self, entries: list[Entry]) -> list[Entry]:
        kept: dict[str, Entry] = {}
        ids = self.category_ids
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
        return list(kept.values())

    def annotation(self, entry: Entry, place: int) -> Entry | None:
        """The annotation, mended, or None where it cannot be; `place` names one that has no id."""
        ident = f"annotation {entry['id'] if entry.get('id') is not None else f'#{place}'}"
        image, category = whole(entry.get("image_id")), whole(entry.get("category_id"))
        self.image_of_box = "" if image is None else str(image)
        name = None if image is None else self.image_names.get(image)
        meant = None if category is None else self.category_ids.get(category)
        if name is None:
            self.complain(ident, f"is on image {entry.get('image_id')!r}, which is not in the file", Done.REFUSED)
        if meant is None or meant == -1:
            reason = "which two names share" if meant == -1 else "which is not in the file"
            self.complain(ident, f"has the category {entry.get('category_id')!r}, {reason}", Done.REFUSED)
        box = self.box(entry, ident)
        if not name or meant is None or meant == -1 or box is None:
            return None
        return {**entry, "id": self.unique_id(entry, ident), "image_id": image, "category_id": meant, **box}

    def unique_id(self, entry: Entry, ident: str) -> int:
        """The annotation's id, or a new one where it is used twice or none."""
        number = whole(entry.get("id"))
        if number is None or number < 1 or number in self.annotation_ids:
            self.highest += 1
            why = "is used twice" if number in self.annotation_ids else "is no whole number from 1"
            self.complain(ident, f"the id {why}; it became {self.highest}", Done.MENDED)
            number = self.highest
        elif not isinstance(entry["id"], int):
            self.complain(ident, f"the id is {entry['id']!r}; read as {number}", Done.MENDED)
        self.annotation_ids.add(number)
        return number

    def box(self, entry: Entry, ident: str) -> Entry | None:
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

    def numbers(self, entry: Entry, ident: str) -> tuple[float, float, float, float] | None:
        given = entry.get("bbox")
        if not isinstance(given, list) or len(given) != 4:
            return None
        try:
            x, y, w, h = map(float, given)
        except (TypeError, ValueError, OverflowError):
            return None
        if not (abs(x) < 1e9 and abs(y) < 1e9 and abs(w) < 1e9 and abs(h) < 1e9):  # False for NaN and infinities
            return None
        if {*map(type, given)} - {float, int}:
            self.complain(ident, f"the box holds texts: {given!r}; read as numbers", Done.MENDED)
        return x, y, w, h

    def id_of(self, entry: Entry, kind: str) -> int | None:
        given = entry.get("id")
        number = whole(given)
        if number is None:
            self.complain(f"{kind} {given!r}", f"an id must be a whole number, this one is {given!r}", Done.REFUSED)
        elif not isinstance(given, int):
            self.complain(f"{kind} {number}", f"the id is {given!r}; read as {number}", Done.MENDED)
        return number

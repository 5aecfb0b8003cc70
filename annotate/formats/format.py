"""What every label format is turned into on the way in, what it is made from on the way out, and the two tables.

A reader knows its own file format and nothing else: no image is opened, nothing is written, and whatever is wrong becomes
a :class:`Problem` in the result, so that a person sees all of them at once. :mod:`annotate.intake` does the rest.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from annotate.coco import Category, Document
from collect.errors import NotFoundError, RefusedError, unknown_name
from collect.files import storage_errors
from collect.records import Licence

#: name -> function `read(path) -> LabelSet`. `path` is a file or a folder that exists.
IMPORTERS = {
    "coco": "annotate.formats.coco:read",
    "csv": "annotate.formats.tensorflow_csv:read",
    "cvat": "annotate.formats.cvat:read",
    "folder": "annotate.formats.folder:read",
    "imagenet": "annotate.formats.voc:read_imagenet",
    "labelme": "annotate.formats.labelme:read",
    "labelstudio": "annotate.formats.labelstudio:read",
    "openimages": "annotate.formats.openimages:read",
    "svhn": "annotate.formats.svhn:read",
    "tfrecord": "annotate.formats.tfrecord:read",
    "voc": "annotate.formats.voc:read",
    "voc-devkit": "annotate.formats.voc:read_devkit",
    "yolo": "annotate.formats.yolo:read",
}

#: name -> function `write(export) -> [paths written]`, see :class:`Export`.
EXPORTERS = {
    "coco": "annotate.formats.coco:write",
    "csv": "annotate.formats.tensorflow_csv:write",
    "cvat": "annotate.formats.cvat:write",
    "fiftyone": "annotate.review.export:write",
    "huggingface": "annotate.formats.huggingface:write",
    "imagenet": "annotate.formats.voc:write_imagenet",
    "labelme": "annotate.formats.labelme:write",
    "labelstudio": "annotate.formats.labelstudio:write",
    "openimages": "annotate.formats.openimages:write",
    "voc": "annotate.formats.voc:write",
    "voc-devkit": "annotate.formats.voc:write_devkit",
    "webdataset": "annotate.formats.webdataset:write",
    "yolo": "annotate.formats.yolo:write",
}


class Done(StrEnum):
    """What was done about a problem. Only REFUSED stops an import: going on would lose labels."""

    NOTED = "noted"
    MENDED = "mended"
    SKIPPED = "skipped"
    REFUSED = "refused"


@dataclass(frozen=True)
class Problem:
    """Something wrong in a label file: where (`file`, `id` of the image or annotation there), what, and what was done.

    `image` is the :attr:`LabelledImage.id` that a lost box belonged to, "" where it is not about a box of an image.
    """

    file: str
    id: str
    problem: str
    done: Done
    image: str = ""

    def document(self) -> dict[str, str]:
        """As `--json` shows it."""
        return {"file": self.file, "id": self.id, "problem": self.problem, "done": str(self.done)}

    def __str__(self) -> str:
        place = f"{self.file} [{self.id}]" if self.id else self.file
        words = f"{place}: {self.problem} ({self.done})"
        return "".join(character if character.isprintable() else "\ufffd" for character in words)  # a file must not steer the terminal


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """One box of a label file. `x, y, w, h` are pixels of the image as the file sees it, or shares of it where the image
    says `relative`; `id` is the file's own name for the box, `box` the id that our export gave it, "" = none.

    `segmentation` is COCO's: a list of polygons or an RLE; `area` is None where the file does not say.
    """

    category: str
    x: float
    y: float
    w: float
    h: float
    iscrowd: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
    segmentation: Any = None
    area: float | None = None
    score: float | None = None
    id: str = ""
    box: str = ""

    @property
    def xywh(self) -> tuple[float, float, float, float]:
        return self.x, self.y, self.w, self.h


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image of a label file, found by `file_name` (a path, or a path without suffix) or, where set, by `path`.

    `width` and `height` are what the file says, 0 = nothing. `labels_known` is False for an image that lies among the
    others without a label file: nobody said that nothing is on it.
    """

    file_name: str
    boxes: tuple[LabelledBox, ...] = ()
    width: int = 0
    height: int = 0
    split: str = ""
    labels_known: bool = True
    relative: bool = False
    path: Path | None = None
    label_file: str = ""
    id: str = ""
    sha256: str = ""
    source_url: str = ""
    licence: Licence | None = None


@dataclass
class LabelSet:
    """All that a reader found. `release` is the version that our export was made from ("v001"), "" = not our export."""

    categories: list[Category] = field(default_factory=list)
    images: list[LabelledImage] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    release: str = ""

    def complain(self, file: str | Path, ident: object, problem: str, done: Done, image: object = "") -> None:
        """Note a problem."""
        self.problems.append(Problem(str(file), "" if ident is None else str(ident), problem, done, str(image)))

    def add_category(self, name: str, number: int = 0, supercategory: str = "") -> None:
        """Add a category unless one of that name is there; id 0 = the format has none."""
        if all(category.name != name for category in self.categories):
            self.categories.append(Category(number, name, supercategory))

    def rename(self, names: dict[str, str]) -> None:
        """Call the boxes' categories as `names` says; boxes of others are left out, and their images are not vouched for."""

        def renamed(image: LabelledImage) -> LabelledImage:
            kept = tuple(replace(box, category=names[box.category]) for box in image.boxes if box.category in names)
            return replace(image, boxes=kept, labels_known=image.labels_known and len(kept) == len(image.boxes))

        self.images = [renamed(image) for image in self.images]

    def add_categories_of_boxes(self) -> None:
        """Add the names that boxes use, sorted, so that the order does not hang on the order of files."""
        there = {category.name for category in self.categories}
        used = {box.category for image in self.images for box in image.boxes}
        self.categories.extend(Category(0, name) for name in sorted(used - there))


@dataclass(frozen=True)
class Export:
    """A release on its way into another format. Each image of `document` carries `name`: readable, unique, without folder.

    `categories` are those of the document; exporters write under `out` only.
    """

    document: Document
    images_dir: Path
    out: Path
    release: str = ""
    copy: bool = False
    upright: bool = False

    def annotations_by_image(self) -> dict[int, list[dict[str, Any]]]:
        """The annotations of each image id, in file order; an image without any has an empty list."""
        grouped: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in self.document["images"]}
        for annotation in self.document["annotations"]:
            grouped[annotation["image_id"]].append(annotation)
        return grouped

    def names_of_categories(self) -> dict[int, str]:
        """Category id -> name, in the document's order."""
        return {category["id"]: category["name"] for category in self.document["categories"]}

    def splits(self) -> list[str]:
        """The splits that hold an image, `train` first; images without one count as `train`."""
        there = {image.get("split") or "train" for image in self.document["images"]}
        order = ["train", "val", "test"]
        return [name for name in order if name in there] + sorted(there - set(order))

    def source(self, image: dict[str, Any]) -> Path:
        """Where the bytes of an image lie.

        Raises:
            NotFoundError: they are gone.
            RefusedError: the document names a place outside the store.
        """
        name = str(image["file_name"])
        path = self.images_dir / name
        if ".." in path.parts or name.startswith("/"):
            raise RefusedError(f"image {image['id']} has the file name '{image['file_name']}', which leads outside {self.images_dir}")
        if not path.is_file():
            raise NotFoundError(f"the image {path} is gone; `boxwright verify` lists all that are, restore them, then run this again")
        return path

    def write(self, name: str, data: bytes | str) -> Path:
        """Write one file at `out/name`. Without fsync: an export can be made again, and has a file for each of many images."""
        target = self.out / name
        with storage_errors():
            if target.parent not in self._folders:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._folders.add(target.parent)
            target.write_bytes(data.encode() if isinstance(data, str) else data)
        return target

    @cached_property
    def _folders(self) -> set[Path]:
        """Those that were made already."""
        return set()

    def place(self, image: dict[str, Any], folder: str) -> Path:
        """Put an image under its readable name into `out/folder`: a hard link where that works and no copy is asked for."""
        source, target = self.source(image), self.out / folder / str(image["name"])
        with storage_errors():
            if target.parent not in self._folders:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._folders.add(target.parent)
            target.unlink(missing_ok=True)
            if self._turns(image):
                target.write_bytes(self.read(image))
            elif self.copy or not _linked(source, target):
                shutil.copyfile(source, target)
        return target

    def read(self, image: dict[str, Any]) -> bytes:
        """The bytes of an image as they leave: the original's, or those of its upright self where that is asked for."""
        data = self.source(image).read_bytes()
        return _upright(data) if self._turns(image) else data

    def _turns(self, image: dict[str, Any]) -> bool:
        return self.upright and image.get("orientation", 1) != 1


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        return False
    return True


def _upright(data: bytes) -> bytes:
    from PIL import Image, ImageOps

    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        ImageOps.exif_transpose(image).save(out, format=image.format, quality=95)
    return out.getvalue()


def split_tag(tag: str) -> tuple[str, str]:
    """Box id and release from the tag that our exports carry; both "" where it is none.

    >>> split_tag("0123456789abcdef01234567@v002"), split_tag("mine")
    (('0123456789abcdef01234567', 'v002'), ('', ''))
    """
    match = re.fullmatch(r"([0-9a-f]{24})@(v\d+)?", tag.strip())
    return (match[1], match[2] or "") if match else ("", "")


def importer(name: str) -> Callable[[Path], LabelSet]:
    """The reader of a format.

    Raises:
        UsageError: there is none of that name; lists the valid ones.
    """
    return cast("Callable[[Path], LabelSet]", _resolve("import format", name, IMPORTERS))


def exporter(name: str) -> Callable[[Export], list[Path]]:
    """The writer of a format.

    Raises:
        UsageError: there is none of that name; lists the valid ones.
    """
    return cast("Callable[[Export], list[Path]]", _resolve("export format", name, EXPORTERS))


def _resolve(kind: str, name: str, table: dict[str, str]) -> Any:
    if name not in table:
        raise unknown_name(kind, name, table)
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def plain(number: float) -> str:
    """A number as text that reads back to the same double, without an idle `.0`.

    >>> plain(135.0), plain(0.1), plain(1e-7)
    ('135', '0.1', '0.0000001')
    """
    if float(number).is_integer():
        return str(int(number))
    return format(Decimal(repr(float(number))), "f")

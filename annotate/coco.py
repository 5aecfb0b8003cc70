"""COCO detection files: the one module that reads and writes them.

Layout as at cocodataset.org/#format-data. What is ours on top: per image `sha256`, `phash`, `split`, `license` (an id into
`licenses`), `source_url`, `author`, `orientation`; per annotation `proposed_by`, `reviewed_by`, `reviewed_at`, `event`,
`box`. Annotation ids start at 1, since pycocotools takes a match with id 0 for none. `width` and `height` are those of
the upright image (EXIF orientation applied), and so are the boxes.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from collect.errors import CorruptError, NotFoundError
from collect.files import write_atomic

Document = dict[str, Any]


@dataclass(frozen=True)
class Category:
    """A COCO category; its id is the class id of dataset.toml."""

    id: int
    name: str
    supercategory: str = ""


@dataclass(frozen=True)
class CocoArrays:
    """A COCO file as arrays: I images and A annotations, in file order.

    `annotation_image_A` holds each annotation's row into the image arrays; boxes are xywh pixels of the upright image,
    float64; `file_names_I` are relative to the folder of images; `sha256_I` and `split_I` are "" where the file has none.
    """

    categories: tuple[Category, ...]
    image_ids_I: NDArray[np.int64]
    file_names_I: tuple[str, ...]
    sizes_wh_I2: NDArray[np.int64]
    sha256_I: tuple[str, ...]
    split_I: tuple[str, ...]
    annotation_ids_A: NDArray[np.int64]
    annotation_image_A: NDArray[np.int64]
    category_ids_A: NDArray[np.int64]
    boxes_xywh_A4: NDArray[np.float64]
    areas_A: NDArray[np.float64]
    iscrowd_A: NDArray[np.bool_]

    def labels_A(self) -> NDArray[np.int64]:
        """Contiguous labels 0..C-1 in the order of `categories`: the one place where ids become labels."""
        position = {category.id: place for place, category in enumerate(self.categories)}
        return np.array([position[number] for number in self.category_ids_A.tolist()], dtype=np.int64)

    def annotations_of(self) -> list[NDArray[np.int64]]:
        """For each image the rows of its annotations."""
        order = np.argsort(self.annotation_image_A, kind="stable")
        bounds = np.searchsorted(self.annotation_image_A[order], np.arange(len(self.image_ids_I) + 1))
        return [order[bounds[place] : bounds[place + 1]] for place in range(len(self.image_ids_I))]


def read_document(path: Path) -> Document:
    """The JSON of a COCO file.

    Raises:
        NotFoundError: there is no such file.
        CorruptError: it is not JSON, or not a COCO detection document.
    """
    try:
        with _collector_asleep():
            document = orjson.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {path}") from error
    except orjson.JSONDecodeError as error:
        raise CorruptError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in ("images", "annotations", "categories")):
        raise CorruptError(f"{path} is no COCO detection file: it needs the lists images, annotations and categories")
    return document


@contextmanager
def _collector_asleep() -> Iterator[None]:
    """No garbage collection meanwhile: it would walk a million new dicts again and again, and took most of the time."""
    awake = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if awake:
            gc.enable()


def write_document(path: Path, document: Document) -> None:
    """Write a COCO file atomically, byte for byte the same for the same document."""
    write_atomic(path, orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY))


def arrays(document: Document) -> CocoArrays:
    """A COCO document as arrays.

    Raises:
        CorruptError: an annotation names an image or category that is not there.
    """
    images, annotations = document["images"], document["annotations"]
    row_of = {image["id"]: row for row, image in enumerate(images)}
    categories = tuple(Category(c["id"], c["name"], c.get("supercategory", "")) for c in document["categories"])
    count = len(annotations)
    image_rows = np.fromiter((row_of.get(number, -1) for number in map(itemgetter("image_id"), annotations)), np.int64, count)
    category_ids = np.fromiter(map(itemgetter("category_id"), annotations), np.int64, count)
    lost = (image_rows < 0) | ~np.isin(category_ids, [category.id for category in categories])
    if lost.any():
        number = annotations[int(lost.argmax())]["id"]
        raise CorruptError(f"annotation {number} names an image or category that is not in the file")
    return CocoArrays(
        categories=categories,
        image_ids_I=np.fromiter(map(itemgetter("id"), images), np.int64, len(images)),
        file_names_I=tuple(map(itemgetter("file_name"), images)),
        sizes_wh_I2=np.array([(image["width"], image["height"]) for image in images], dtype=np.int64).reshape(-1, 2),
        sha256_I=tuple(image.get("sha256", "") for image in images),
        split_I=tuple(image.get("split", "") for image in images),
        annotation_ids_A=np.fromiter(map(itemgetter("id"), annotations), np.int64, count),
        annotation_image_A=image_rows,
        category_ids_A=category_ids,
        boxes_xywh_A4=np.fromiter(chain.from_iterable(map(itemgetter("bbox"), annotations)), np.float64, count * 4).reshape(count, 4),
        areas_A=np.fromiter((a["area"] if "area" in a else a["bbox"][2] * a["bbox"][3] for a in annotations), np.float64, count),
        iscrowd_A=np.fromiter((bool(a.get("iscrowd", 0)) for a in annotations), bool, count),
    )


def read(path: Path) -> CocoArrays:
    """A COCO file as arrays; see :func:`read_document` and :func:`arrays` for the errors."""
    return arrays(read_document(path))


def cut(document: Document, split: str) -> Document:
    """The part of a document that one split holds: plain COCO, for any other tool; ids stay."""
    images = [image for image in document["images"] if image.get("split") == split]
    kept = {image["id"] for image in images}
    return {**document, "images": images, "annotations": [a for a in document["annotations"] if a["image_id"] in kept]}

"""COCO detection files: the one module that reads and writes them.

Layout as at cocodataset.org/#format-data. What is ours on top: per image `sha256`, `phash`, `split`, `license` (an id into
`licenses`), `source_url`, `author`, `orientation`; per annotation `proposed_by`, `reviewed_by`, `reviewed_at`, `event`,
`box`. Annotation ids start at 1, since pycocotools takes a match with id 0 for none. `width` and `height` are those of
the upright image (EXIF orientation applied), and so are the boxes.

What we write is JSON like any other with a line for each image and annotation. So text tools show what differs, and a file is
read block by block: half a million boxes are never held as objects all at once (:class:`CocoFile`).
"""

from __future__ import annotations

import gc
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from collect.errors import CorruptError, NotFoundError
from collect.files import open_atomic

Document = dict[str, Any]
Entry = dict[str, Any]
_LISTS = ("images", "annotations")
_BLOCK = 1 << 20


class Content(Protocol):
    """What a COCO file holds, an entry at a time. `head` is all but `images` and `annotations`."""

    @property
    def head(self) -> Document: ...

    def images(self) -> Iterator[Entry]: ...

    def annotations(self) -> Iterator[Entry]: ...


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
    """The whole JSON of a COCO file.

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
    if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in (*_LISTS, "categories")):
        raise CorruptError(f"{path} is no COCO detection file: it needs the lists images, annotations and categories")
    return document


@dataclass(frozen=True)
class CocoFile:
    """A COCO file that is read block by block where it has the lines that we write, else all at once."""

    path: Path
    head: Document
    _lists: Mapping[str, list[Entry]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> CocoFile:
        """The file with its head read.

        Raises:
            NotFoundError: there is no such file.
            CorruptError: it is not JSON, or not a COCO detection document.
        """
        try:
            with path.open("rb") as file:
                head = _head(file)
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no {path}") from error
        if head is not None and isinstance(head.get("categories"), list):
            return cls(path, head)
        document = read_document(path)
        return cls(path, {key: value for key, value in document.items() if key not in _LISTS}, {key: document[key] for key in _LISTS})

    def images(self) -> Iterator[Entry]:
        return chain.from_iterable(self.blocks("images"))

    def annotations(self) -> Iterator[Entry]:
        return chain.from_iterable(self.blocks("annotations"))

    def blocks(self, key: str) -> Iterator[list[Entry]]:
        """The entries of `images` or `annotations` in file order, some thousand at a time.

        Raises:
            CorruptError: a line is not JSON, or the file ends early.
        """
        if self._lists:
            yield self._lists[key]
        else:
            yield from map(self._entries, self._lines(key))

    def _lines(self, key: str) -> Iterator[list[bytes]]:
        """The lines of the entries of `key`, a block at a time; only the last block may be empty."""
        opening, line = b'"%b":[\n' % key.encode(), b"?"
        with self.path.open("rb") as file:
            while line and line != opening:
                line = file.readline()
            while lines := file.readlines(_BLOCK):
                last = min((lines.index(closing) for closing in (b"]\n", b"],\n") if closing in lines), default=None)
                yield lines[:last]
                if last is not None:
                    return
        raise CorruptError(f"{self.path} ends within its {key}; restore it from a backup")

    def unequal(self, other: CocoFile, key: str) -> Iterator[tuple[list[Entry], list[Entry]]]:
        """The entries of `key` here and in `other`, side by side in spans of ids, without those whose lines are the same in both.

        Such lines are not even parsed. Both files are in the order of their ids, so an id is on both sides of one span.
        """
        if self._lists or other._lists:
            yield list(chain.from_iterable(self.blocks(key))), list(chain.from_iterable(other.blocks(key)))
            return
        mine, theirs = self._lines(key), other._lines(key)
        left, right = next(mine, []), next(theirs, [])
        while left or right:
            last = min(file._id(lines[-1]) for file, lines in ((self, left), (other, right)) if lines)
            i, j = bisect_right(left, last, key=self._id), bisect_right(right, last, key=other._id)
            same = set(left[:i]).intersection(right[:j])
            yield (
                self._entries([line for line in left[:i] if line not in same]),
                other._entries([line for line in right[:j] if line not in same]),
            )
            left, right = left[i:] or next(mine, []), right[j:] or next(theirs, [])

    def _id(self, line: bytes) -> int:
        number: int = self._entries([line])[0]["id"]
        return number

    def _entries(self, lines: list[bytes]) -> list[Entry]:
        try:
            with _collector_asleep():
                entries: list[Entry] = orjson.loads(b"[" + b"".join(lines).rstrip(b",\n") + b"]")
        except orjson.JSONDecodeError as error:
            raise CorruptError(f"{self.path} is not valid JSON: {error}") from error
        return entries


def _head(file: IO[bytes]) -> Document | None:
    """All that stands before the images, None where the file has not our lines."""
    if file.readline(64) != b"{\n":
        return None
    head: Document = {}
    while (line := file.readline()) != b'"images":[\n':
        try:
            head |= orjson.loads(b"{" + line.rstrip(b",\n") + b"}")
        except orjson.JSONDecodeError:
            return None
        if not line:
            return None
    return head


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


class Writer:
    """Writes the lists of a COCO file: first all images, then all annotations, each given as the JSON of its entry."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._key, self._before = file, "", b""
        self._open("images")

    def image(self, entry: bytes) -> None:
        self._write("images", entry)

    def annotation(self, entry: bytes) -> None:
        self._write("annotations", entry)

    def _write(self, key: str, entry: bytes) -> None:
        if key != self._key:
            self._open(key)
        self._file.write(self._before + entry)
        self._before = b",\n"

    def _open(self, key: str) -> None:
        self._file.write(b'%b"%b":[' % (b"\n],\n" if self._key else b"", key.encode()))
        self._key, self._before = key, b"\n"

    def close(self) -> None:
        """End the lists; a file without annotations has an empty list of them."""
        if self._key != "annotations":
            self._open("annotations")
        self._file.write(b"\n]\n}\n")


@contextmanager
def writing(path: Path, head: Document) -> Iterator[Writer]:
    """Write a COCO file atomically and entry by entry, byte for byte the same for the same content.

    Raises:
        StorageError: the disk is full; the file is not there.
    """
    with open_atomic(path) as file:
        file.write(b"{\n" + b"".join(b"%b:%b,\n" % (orjson.dumps(key), orjson.dumps(value)) for key, value in head.items()))
        writer = Writer(file)
        yield writer
        writer.close()


def write_document(path: Path, document: Document) -> None:
    """Write a whole COCO document; see :func:`writing`."""
    with writing(path, {key: value for key, value in document.items() if key not in _LISTS}) as writer:
        for image in document["images"]:
            writer.image(orjson.dumps(image, option=orjson.OPT_SERIALIZE_NUMPY))
        for annotation in document["annotations"]:
            writer.annotation(orjson.dumps(annotation, option=orjson.OPT_SERIALIZE_NUMPY))


def arrays(document: Document) -> CocoArrays:
    """A COCO document as arrays.

    Raises:
        CorruptError: an annotation names an image or category that is not there.
    """
    return _arrays(document["categories"], document["images"], [document["annotations"]])


def read(path: Path) -> CocoArrays:
    """A COCO file as arrays; see :meth:`CocoFile.open` and :func:`arrays` for the errors."""
    file = CocoFile.open(path)
    return _arrays(file.head["categories"], file.images(), file.blocks("annotations"))


def _arrays(categories: list[Entry], images: Iterable[Entry], blocks: Iterable[list[Entry]]) -> CocoArrays:
    facts = [(i["id"], i["file_name"], i["width"], i["height"], i.get("sha256", ""), i.get("split", "")) for i in images]
    ids, names, widths, heights, hashes, splits = zip(*facts, strict=True) if facts else ((),) * 6
    row_of = {number: row for row, number in enumerate(ids)}
    known = {category["id"] for category in categories}
    columns = [_columns(block, row_of, known) for block in blocks] or [_columns([], row_of, known)]
    numbers, rows, category_ids, boxes, areas, crowds = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return CocoArrays(
        categories=tuple(Category(c["id"], c["name"], c.get("supercategory", "")) for c in categories),
        image_ids_I=np.array(ids, dtype=np.int64),
        file_names_I=tuple(names),
        sizes_wh_I2=np.array([widths, heights], dtype=np.int64).T.reshape(-1, 2),
        sha256_I=tuple(hashes),
        split_I=tuple(splits),
        annotation_ids_A=numbers,
        annotation_image_A=rows,
        category_ids_A=category_ids,
        boxes_xywh_A4=boxes,
        areas_A=areas,
        iscrowd_A=crowds,
    )


def _columns(annotations: list[Entry], row_of: dict[int, int], known: set[int]) -> tuple[NDArray[Any], ...]:
    """The columns of :class:`CocoArrays` that are about annotations, in its order."""
    count = len(annotations)
    numbers = np.fromiter(map(itemgetter("id"), annotations), np.int64, count)
    rows = np.fromiter((row_of.get(number, -1) for number in map(itemgetter("image_id"), annotations)), np.int64, count)
    category_ids = np.fromiter(map(itemgetter("category_id"), annotations), np.int64, count)
    lost = (rows < 0) | ~np.isin(category_ids, list(known))
    if lost.any():
        raise CorruptError(f"annotation {numbers[lost.argmax()]} names an image or category that is not in the file")
    boxes = np.fromiter(chain.from_iterable(map(itemgetter("bbox"), annotations)), np.float64, count * 4).reshape(count, 4)
    areas = np.fromiter((a["area"] if "area" in a else a["bbox"][2] * a["bbox"][3] for a in annotations), np.float64, count)
    crowds = np.fromiter((bool(a.get("iscrowd", 0)) for a in annotations), bool, count)
    return numbers, rows, category_ids, boxes, areas, crowds


def cut(document: Document, split: str) -> Document:
    """The part of a document that one split holds: plain COCO, for any other tool; ids stay."""
    images = [image for image in document["images"] if image.get("split") == split]
    kept = {image["id"] for image in images}
    return {**document, "images": images, "annotations": [a for a in document["annotations"] if a["image_id"] in kept]}

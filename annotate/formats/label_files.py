"""Reading label files that others wrote: their encodings, their size, and what their names say about splits."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree  # nosec: entities are refused in parse_xml

import orjson

from annotate.formats.format import Done, LabelSet

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".avif", ".jfif", ".ppm", ".pgm", ".jp2"})
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe\x00\x00", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
#: Bytes of memory that reading a JSON needs per byte of file: measured 10.6 on COCO with nothing but boxes, less with longer entries.
_JSON_MEMORY = 11
_SPLITS = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def available_memory() -> int:
    """Bytes of memory that are free for use; large where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 1 << 62


def read_bytes(path: Path, found: LabelSet, memory: int | None = None) -> bytes | None:
    """The bytes of a label file, or None and a refusal where it cannot be read or would not fit into memory."""
    try:
        size = path.stat().st_size
        limit = available_memory() if memory is None else memory
        if size * _JSON_MEMORY > limit:
            need, have = size * _JSON_MEMORY / 2**30, limit / 2**30
            message = f"is {size / 2**30:.2f} GiB and would need about {need:.1f} GiB of memory, {have:.1f} are free; cut it into parts"
            found.complain(path, None, message, Done.REFUSED)
            return None
        return path.read_bytes()
    except OSError as error:
        found.complain(path, None, f"cannot be read: {error.strerror}", Done.REFUSED)
        return None


def decode(data: bytes, path: Path, found: LabelSet) -> str:
    """Text from bytes: by its byte order mark, else UTF-8, else Windows' code page 1252, which is listed."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                return data.decode(encoding).removeprefix("\ufeff")
            except UnicodeDecodeError:
                break
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        found.complain(path, None, f"is not UTF-8 (byte {error.start}); read as Windows-1252", Done.MENDED)
        return data.decode("cp1252", errors="replace")


def parse_json(path: Path, found: LabelSet) -> Any:
    """The JSON of a file, or None and a refusal. `NaN` and `Infinity`, which JSON lacks, are read as what they mean."""
    data = read_bytes(path, found)
    if data is None:
        return None
    try:
        return orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        pass
    try:
        document = json.loads(decode(data, path, found))
        json.dumps(document, ensure_ascii=False).encode()  # fails on half a surrogate pair, which nothing could be written with
    except (ValueError, RecursionError) as error:
        found.complain(path, None, f"is not valid JSON: {error}", Done.REFUSED)
        return None
    return document


def parse_xml(path: Path, found: LabelSet) -> ElementTree.Element | None:
    """The root of an XML file, or None and a refusal. A declared encoding that is wrong is mended and listed.

    Entity declarations are refused: no label tool writes them, and they are how small files become huge.
    """
    data = read_bytes(path, found)
    if data is None:
        return None
    if b"<!ENTITY" in data or "<!ENTITY".encode("utf-16-le") in data or "<!ENTITY".encode("utf-16-be") in data:
        found.complain(path, None, "declares XML entities; remove them", Done.REFUSED)
        return None
    try:
        return ElementTree.fromstring(data)  # noqa: S314 - entities were refused above, and expat reads no external ones
    except (ElementTree.ParseError, ValueError, LookupError):
        text = re.sub(r"^\s*<\?xml[^>]*\?>", "", decode(data, path, found))
    try:
        return ElementTree.fromstring(text)  # noqa: S314 - as above
    except (ElementTree.ParseError, ValueError) as error:
        found.complain(path, None, f"is not valid XML: {error}", Done.REFUSED)
        return None


def read_rows(path: Path, found: LabelSet) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a CSV file, whatever its delimiter (comma, semicolon, tab)."""
    data = read_bytes(path, found)
    if data is None:
        return [], []
    text = decode(data, path, found)
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    except csv.Error as error:
        found.complain(path, None, f"is not valid CSV: {error}", Done.REFUSED)
        return [], []
    return ([heading.strip() for heading in rows[0]], rows[1:]) if rows else ([], [])


def files_under(path: Path, *suffixes: str) -> list[Path]:
    """`path` itself where it is a file, else all files below it with one of the suffixes, sorted; hidden ones left out."""
    if path.is_file():
        return [path]
    return sorted(
        Path(folder) / name
        for folder, folders, names in os.walk(path)
        for name in names
        if Path(name).suffix.lower() in suffixes and not name.startswith(".") and not _prune(folders)
    )


def _prune(folders: list[str]) -> bool:
    folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
    return False


def relative(path: Path, root: Path) -> str:
    """How a label file is named in problems: relative to what the person gave."""
    return path.name if path == root else path.relative_to(root).as_posix()


def split_of(name: str) -> str:
    """The split that a path names, the last part that names one first; "" = none.

    >>> split_of("annotations/custom_train.json"), split_of("val2017/a.jpg"), split_of("images/training-wheels.jpg")
    ('train', 'val', '')
    """
    parts = Path(name).parts
    for place, part in enumerate(reversed(parts)):
        stem = Path(part).stem if place == 0 else part
        words = [word for word in re.split(r"[^a-z]+", stem.lower()) if word]
        if place == 0 and Path(part).suffix.lower() in IMAGE_SUFFIXES:
            continue
        named = {_SPLITS[word] for word in words if word in _SPLITS}
        if len(named) == 1:
            return named.pop()
    return ""


def image_stem(name: str) -> str:
    """The name of an image without folders and suffix; a dot within the name begins no suffix.

    >>> image_stem("a/b.rf.c.JPG"), image_stem("b.rf.c")
    ('b.rf.c', 'b.rf.c')
    """
    path = PurePosixPath(name)
    return path.name[: -len(path.suffix)] if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def split_lists(root: Path, found: LabelSet) -> dict[str, str]:
    """Stem of an image's name -> split, from lists like `ImageSets/Main/train.txt` or `data/train_labels.csv` near `root`.

    A list is a file named for a split and nothing else (`aeroplane_train.txt` is none). `trainval` counts only where
    `train` does not list the image.
    """
    folder = root if root.is_dir() else root.parent
    folders = [folder, *(place for place in (folder.parent / "ImageSets", folder.parent / "data") if place.is_dir())]
    stems: dict[str, str] = {}
    weak: dict[str, str] = {}
    for path in (path for place in folders for path in files_under(place, ".txt", ".csv")):
        match = re.fullmatch(r"(train|trainval|val|valid|validation|test)(_labels|_annotations|_images)?", path.stem.lower())
        if not match:
            continue
        target = weak if match[1] == "trainval" else stems
        for name in _listed_names(path, found):
            target.setdefault(image_stem(name), _SPLITS[match[1]])
    return {**weak, **stems}


def _listed_names(path: Path, found: LabelSet) -> Iterator[str]:
    headings, rows = read_rows(path, found) if path.suffix.lower() == ".csv" else ([], [])
    if path.suffix.lower() == ".csv":
        column = next((place for place, name in enumerate(headings) if name.lower() in {"filename", "file_name", "image"}), None)
        if column is not None:
            yield from (row[column] for row in rows if len(row) > column)
        return
    data = read_bytes(path, found)
    for line in decode(data or b"", path, found).splitlines():
        words = line.split()
        # lists have up to three numbers behind the name (VOC's per-class lists, Oxford's pets); rows of boxes have more
        if words and len(words) <= 4 and all(word.lstrip("-").isdigit() for word in words[1:]):
            yield words[0]


def number_from(text: object) -> float:
    """A number from a text of a label file; NaN where it is none. A decimal comma is understood.

    >>> number_from("0,358"), number_from(" 12 "), number_from("x") != number_from("x")
    (0.358, 12.0, True)
    """
    try:
        if isinstance(text, int | float) and not isinstance(text, bool):
            return float(text)
        return float(str(text).strip().replace(",", ".") if text is not None else "nan")
    except (ValueError, OverflowError):
        return float("nan")

"""TFRecord files of `tf.train.Example` as TensorFlow's object detection writes them, read without TensorFlow.

Framing (tensorflow.org/tutorials/load_data/tfrecord): length as uint64, its masked CRC, the bytes, their CRC. The message is
three levels of protocol buffers with three field numbers each, so a few lines read it. Boxes are float32 shares of the image:
precision 3e-5 px on 500 px. Images are found by their name; those inside the records are not unpacked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from annotate.formats.format import Done, LabelledBox, LabelledImage, LabelSet
from annotate.formats.label_files import files_under, read_bytes, relative, split_of
from annotate.values import climbs

Values = list[bytes] | list[float] | list[int]


class _BrokenError(ValueError):
    """The bytes end early or are no protocol buffer."""


def read(path: Path) -> LabelSet:
    """The labels of one TFRecord file, or of all under a folder (shards `x.record-00000-of-00010` included)."""
    found = LabelSet()
    suffixes = {file.suffix.lower() for file in path.rglob("*") if "record" in file.suffix} if path.is_dir() else set()
    files = files_under(path, *suffixes)
    for file in files:
        data = read_bytes(file, found)
        try:
            for number, record in enumerate(_records(data or b""), 1):
                _add(found, _example(record), relative(file, path), f"record {number}")
        except (_BrokenError, struct.error, IndexError) as error:
            found.complain(relative(file, path), None, f"is no whole TFRecord file: {error}", Done.REFUSED)
    if not files:
        found.complain(path, None, "holds no TFRecord file", Done.REFUSED)
    found.add_categories_of_boxes()
    return found


def _add(found: LabelSet, example: dict[str, Values], file: str, ident: str) -> None:
    name = _text(example.get("image/filename", [])) or _text(example.get("image/source_id", []))
    if not name or climbs(name):
        found.complain(file, ident, f"the file name '{name}' is empty or climbs out of its folder", Done.REFUSED)
        return
    columns = [example.get(f"image/object/bbox/{edge}", []) for edge in ("xmin", "ymin", "xmax", "ymax")]
    labels = [value.decode("utf-8", "replace") for value in example.get("image/object/class/text", []) if isinstance(value, bytes)]
    if len({len(labels), *map(len, columns)}) != 1:
        found.complain(file, ident, f"has {len(labels)} class texts for {len(columns[0])} boxes", Done.REFUSED)
        return
    boxes = []
    for number, (label, *edges) in enumerate(zip(labels, *columns, strict=True), 1):
        x1, y1, x2, y2 = map(float, edges)
        boxes.append(LabelledBox(label, x1, y1, x2 - x1, y2 - y1, id=f"box {number}"))
    width, height = (next((int(value) for value in example.get(f"image/{side}", [])), 0) for side in ("width", "height"))
    found.images.append(LabelledImage(name, tuple(boxes), width, height, split_of(file), relative=True, label_file=file, id=name))


def _text(values: Values) -> str:
    return values[0].decode("utf-8", "replace") if values and isinstance(values[0], bytes) else ""


def _records(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        end = start + 12 + length
        if end + 4 > len(data):
            raise _BrokenError(f"the record at byte {start} is cut off")
        yield data[start + 12 : end]
        start = end + 4


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise _BrokenError("a number has too many bytes")


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes | int]]:
    """`(field number, wire type, value)` of one message (protobuf.dev/programming-guides/encoding)."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, kind, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in {1, 5}:
            length = 8 if kind == 1 else 4
        else:
            raise _BrokenError(f"wire type {kind}")
        if at + length > len(data):
            raise _BrokenError("a field is cut off")
        yield tag >> 3, kind, data[at : at + length]
        at += length


def _example(data: bytes) -> dict[str, Values]:
    """Example { Features = 1 { map<string, Feature> = 1 } } → name -> values."""
    features: dict[str, Values] = {}
    for _, _, message in _fields(data):
        for _, _, entry in _fields(_bytes(message)):
            pair = {number: value for number, _, value in _fields(_bytes(entry))}
            features[_bytes(pair.get(1, b"")).decode("utf-8", "replace")] = _feature(_bytes(pair.get(2, b"")))
    return features


def _bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise _BrokenError("a number stands where a message should")
    return value


def _feature(data: bytes) -> Values:
    """Feature { BytesList = 1 | FloatList = 2 | Int64List = 3 }, each { repeated value = 1 }, packed or not."""
    for kind, _, message in _fields(data):
        parts = list(_fields(_bytes(message)))
        if kind == 1:
            return [_bytes(value) for _, _, value in parts]
        if kind == 2:
            packed = b"".join(_bytes(value) for _, _, value in parts)
            return list(struct.unpack(f"<{len(packed) // 4}f", packed))
        numbers: list[int] = []
        for _, wire, value in parts:
            if isinstance(value, int):
                numbers.append(value)
                continue
            at = 0
            while wire == 2 and at < len(value):
                number, at = _varint(value, at)
                numbers.append(number)
        return numbers
    return []

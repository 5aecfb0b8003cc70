"""Public classification sets as crops for the two-phase detector's classifier: each image is one object that fills it."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotate.public_sets import Fetched, Wanted, Web
from collect.errors import CorruptError, MissingServiceError
from collect.files import storage_errors

_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
_MNIST_FILES = {"train": "train", "test": "t10k"}
_CIFAR_RECORD = 1 + 3 * 32 * 32
Crop = tuple[str, NDArray[np.uint8]]


def cifar_10(wanted: Wanted, web: Web) -> Fetched:
    """CIFAR-10 in its binary form (a label byte, then 32×32 red, green and blue); no pickle is opened. It states no licence."""
    files: dict[str, bytes] = {}
    with tarfile.open(web.get(_CIFAR)) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isreg() and member.size < 64 << 20 else None
            files[Path(member.name).name] = stream.read() if stream else b""
    names = [line.strip() for line in files.get("batches.meta.txt", b"").decode().splitlines() if line.strip()]
    batches = {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]}
    wanted.check_classes(names)
    target = web.workspace(wanted)
    for part in wanted.parts(tuple(batches)):
        data = b"".join(files.get(name, b"") for name in batches[part])
        if not data or len(data) % _CIFAR_RECORD or not names:
            raise CorruptError(f"{_CIFAR} is not CIFAR-10's binary archive; delete it from .cache/public and run this again")
        records = np.frombuffer(data, np.uint8).reshape(-1, _CIFAR_RECORD)
        crops = ((names[record[0]], record[1:].reshape(3, 32, 32).transpose(1, 2, 0)) for record in records)
        _write(target / part, crops, wanted)
    return Fetched(target, "folder", "LicenseRef-CIFAR-10")


def mnist(wanted: Wanted, web: Web) -> Fetched:
    """MNIST's handwritten digits, from IDX files (magic number, sizes, bytes); CC BY-SA 3.0 as its makers state."""
    wanted.check_classes(map(str, range(10)))
    target = web.workspace(wanted)
    for part in wanted.parts(tuple(_MNIST_FILES)):
        stem = _MNIST_FILES[part]
        images_NHW = _idx(web.get(f"{_MNIST}/{stem}-images-idx3-ubyte.gz"), 3)
        labels_N = _idx(web.get(f"{_MNIST}/{stem}-labels-idx1-ubyte.gz"), 1)
        _write(target / part, ((str(label), image) for label, image in zip(labels_N, images_NHW, strict=True)), wanted)
    return Fetched(target, "folder", "CC-BY-SA-3.0")


def imagenet(wanted: Wanted, web: Web) -> Fetched:  # noqa: ARG001 - the table's form
    """ImageNet wants an account.

    Raises:
        MissingServiceError: always; says what to do instead.
    """
    raise MissingServiceError(
        "ImageNet is given to people with an account (image-net.org/download); download ILSVRC2012 there, then "
        "`boxwright import NAME DIR --format folder` takes its class folders as crops, `--format imagenet` its boxes"
    )


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An IDX file of bytes: 0, 0, 8, number of dimensions, the sizes as big-endian uint32, the data."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise CorruptError(f"{path} is not a whole gzip file: {error}; delete it and run this again") from error
    sizes = np.frombuffer(data, ">u4", dimensions, 4).tolist() if len(data) >= 4 + 4 * dimensions else []
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) != 4 + 4 * dimensions + int(np.prod(sizes)):
        raise CorruptError(f"{path} is no IDX file of {dimensions} dimensions; delete it and run this again")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(sizes)


def _write(folder: Path, crops: Iterator[Crop], wanted: Wanted) -> None:
    """Crops as PNG in a folder per class, `limit` in all."""
    number = 0
    for name, pixels in crops:
        if wanted.classes and name not in wanted.classes:
            continue
        if wanted.limit and number >= wanted.limit:
            return
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        path = folder / name / f"{number:06d}.png"
        with storage_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.getvalue())
        number += 1

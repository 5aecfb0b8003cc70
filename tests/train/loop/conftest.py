"""Small datasets on disk for the loop's tests: real bytes in the store, rows in the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from collect import blobs, definition
from collect.ledger import Ledger
from collect.records import ImageRecord, Licence, Reason, State
from collect.workspace import Dataset, Workspace

MakeDataset = Callable[..., tuple[Dataset, list[ImageRecord]]]


def record_of(data: bytes, class_name: str = "", source: str = "folder") -> ImageRecord:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    height, width = image.shape[:2] if image is not None else (10, 10)
    return ImageRecord(
        hashlib.sha256(data).hexdigest(), "png", width, height, 1, "0" * 16, len(data), State.KEPT, Reason.NONE, Licence("CC0-1.0"),
        source, "", class_name, "", "", "", "2026-01-01T00:00:00.000Z",
    )  # fmt: skip


@pytest.fixture
def make_dataset(workspace: Workspace) -> MakeDataset:
    """Make a dataset of given classes from pictures given as bytes or paths."""

    def make(name: str, classes: Sequence[str], pictures: Sequence[bytes | Path], found_for: str = "") -> tuple[Dataset, list[ImageRecord]]:
        dataset = workspace.new_dataset(name)
        definition.create(dataset, definition.template(name, list(enumerate(classes, 1))))
        records = []
        for picture in pictures:
            data = picture if isinstance(picture, bytes) else picture.read_bytes()
            record = record_of(data, found_for)
            blobs.store(dataset, record.sha256, record.extension, data, durable=False)
            records.append(record)
        with Ledger(dataset.ledger) as ledger:
            ledger.add_images(records)
        return dataset, records

    return make


def png(seed: int, size_wh: tuple[int, int] = (64, 48)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1])


@pytest.fixture
def noise() -> Callable[..., bytes]:
    return png

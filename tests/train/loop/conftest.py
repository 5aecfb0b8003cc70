"""Small datasets on disk for the loop's tests: real bytes in the store, rows in the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from annotate.journal import Event, Journal, Kind, Status, box_event, new_box_id, verdict_event
from collect import blobs, definition
from collect.images.hashing import phash
from collect.ledger import Ledger
from collect.records import ImageRecord, Licence, Reason, State
from collect.workspace import Dataset, Workspace

MakeDataset = Callable[..., tuple[Dataset, list[ImageRecord]]]


def record_of(data: bytes, class_name: str = "", source: str = "folder") -> ImageRecord:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    height, width = image.shape[:2] if image is not None else (10, 10)
    look = phash(Image.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))) if image is not None else "0" * 16
    return ImageRecord(
        hashlib.sha256(data).hexdigest(), "png", width, height, 1, look, len(data), State.KEPT, Reason.NONE, Licence("CC0-1.0"),
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


Shapes = tuple[bytes, list[tuple[str, tuple[float, float, float, float]]]]


def shapes(seed: int, kinds: Sequence[str] = ("disc", "bar"), side_px: int = 128) -> Shapes:
    """A PNG of coloured shapes on a mottled ground, and their boxes: what a small detector learns in seconds."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 150, (8, 8, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    boxes = []
    for place in rng.permutation(4)[: rng.integers(1, 4)].tolist():
        kind = str(rng.choice(list(kinds)))
        size = int(rng.integers(24, 44))
        x, y = place % 2 * 64 + int(rng.integers(2, 62 - size)), place // 2 * 64 + int(rng.integers(2, 62 - size))
        if kind == "disc":
            cv2.circle(picture, (x + size // 2, y + size // 2), size // 2, (40, 40, 230), -1)
        elif kind == "bar":
            cv2.rectangle(picture, (x, y), (x + size - 1, y + size - 1), (230, 200, 30), -1)
        else:
            corners = np.array([[x + size // 2, y], [x, y + size], [x + size, y + size]])
            cv2.fillPoly(picture, [corners], (40, 220, 60))
        boxes.append((kind, (float(x), float(y), float(size), float(size))))
    return bytes(cv2.imencode(".png", picture)[1]), boxes


def labelled(record: ImageRecord, boxes: Sequence[tuple[str, tuple[float, float, float, float]]]) -> list[Event]:
    """The events of an image that a person labelled and accepted."""
    events = [box_event(Kind.DRAW, "reviewer:ann", record.sha256, new_box_id(), Status.PRESENT, kind, xywh) for kind, xywh in boxes]
    return [*events, verdict_event("reviewer:ann", record.sha256, "accepted")]


@pytest.fixture
def add_shapes() -> Callable[..., list[ImageRecord]]:
    """Add labelled pictures of shapes to a dataset."""

    def add(dataset: Dataset, seeds: Sequence[int], kinds: Sequence[str] = ("disc", "bar"), source: str = "folder") -> list[ImageRecord]:
        records, events = [], []
        for seed in seeds:
            data, boxes = shapes(seed, kinds)
            record = record_of(data, source=source)
            blobs.store(dataset, record.sha256, record.extension, data, durable=False)
            records.append(record)
            events += labelled(record, boxes)
        with Ledger(dataset.ledger) as ledger, Journal(dataset.labels) as journal:
            ledger.add_images(records)
            journal.append(events)
        return records

    return add


@pytest.fixture
def unlabelled_shapes() -> Callable[..., list[ImageRecord]]:
    """Add pictures of shapes that nobody has looked at."""

    def add(dataset: Dataset, seeds: Sequence[int]) -> list[ImageRecord]:
        pictures = [shapes(seed)[0] for seed in seeds]
        records = [record_of(data) for data in pictures]
        for record, data in zip(records, pictures, strict=True):
            blobs.store(dataset, record.sha256, record.extension, data, durable=False)
        with Ledger(dataset.ledger) as ledger:
            ledger.add_images(records)
        return records

    return add


@pytest.fixture
def labelled_events() -> Callable[..., list[Event]]:
    return labelled

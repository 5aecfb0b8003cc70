"""A small dataset made by hand: images of noise, records in the ledger, labels in the journal."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

from annotate.journal import Event, Journal, Kind, Status, Verdict, box_event, new_box_id, verdict_event
from collect import blobs, definition
from collect.definition import Definition
from collect.ledger import Ledger
from collect.records import ImageRecord, Licence, Reason, State
from collect.workspace import Dataset, Workspace


@dataclass
class SmallDataset:
    dataset: Dataset
    definition: Definition

    def add_image(self, seed: int, *, boxes: int = 1, verdict: str = Verdict.ACCEPTED, **changes: object) -> str:
        """One image of noise with `boxes` boxes of class cat; returns its sha256. `changes` go into its record."""
        noise = np.random.default_rng(seed).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "PNG")
        data = buffer.getvalue()
        sha = hashlib.sha256(data).hexdigest()
        blobs.store(self.dataset, sha, "png", data)
        record = ImageRecord(
            sha256=sha, extension="png", width=128, height=96, orientation=1, phash=sha[:16], num_bytes=len(data), state=State.KEPT,
            reason=Reason.NONE, licence=Licence("CC-BY-4.0", creator=f"author {seed}", title=f"noise {seed}"), source="test", query="",
            class_name="cat", source_url=f"https://example.org/{seed}.png", page_url=f"https://example.org/{seed}", domain="example.org",
            found_at="2026-01-01T00:00:00.000Z",
        )  # fmt: skip
        with Ledger(self.dataset.ledger) as ledger:
            ledger.add_images([replace(record, **changes)])
        events: list[Event] = [
            box_event(Kind.DRAW, "reviewer:anna", sha, new_box_id(), Status.PRESENT, "cat", (4.0 + 9 * n, 8.5, 20.25, 30.0))
            for n in range(boxes)
        ]
        with self.journal() as journal:
            journal.append([*events, verdict_event("reviewer:anna", sha, verdict)])
        return sha

    def journal(self) -> Journal:
        return Journal(self.dataset.labels)


@pytest.fixture
def make_dataset(workspace: Workspace) -> Callable[..., SmallDataset]:
    """A factory of datasets with the classes cat and dog."""

    def make(name: str = "pets", images: int = 0) -> SmallDataset:
        dataset = workspace.new_dataset(name)
        small = SmallDataset(dataset, definition.create(dataset, definition.template(name, [(1, "cat"), (5, "dog")])))
        for seed in range(images):
            small.add_image(seed)
        return small

    return make

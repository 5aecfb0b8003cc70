"""A definition with two classes and an open journal; a dataset of bare records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from annotate.journal import Journal
from collect import definition as definitions
from collect.definition import Definition
from collect.ledger import Ledger
from collect.records import ImageRecord, Licence, Reason, State
from collect.workspace import Dataset, Workspace


@pytest.fixture
def definition(tmp_path: Path) -> Definition:
    return definitions.parse(tmp_path / "dataset.toml", definitions.template("beach", [(1, "gull"), (2, "crab")]))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "labels.sqlite") as opened:
        yield opened


@pytest.fixture
def make_beach(workspace: Workspace) -> Callable[[Sequence[str], tuple[int, int]], Dataset]:
    """A dataset `beach` with one class, and a record of each image (sha256) of a size in pixels; there are no files."""

    def make(images: Sequence[str], size_wh: tuple[int, int]) -> Dataset:
        made = workspace.new_dataset("beach")
        definitions.create(made, definitions.template("beach", [(1, "gull")]))
        with Ledger(made.ledger) as ledger:
            ledger.add_images(
                ImageRecord(name, "jpg", *size_wh, 1, "", 9, State.KEPT, Reason.NONE, Licence(), "folder", "", "", "", "", "", "2026")
                for name in images
            )
        return made

    return make

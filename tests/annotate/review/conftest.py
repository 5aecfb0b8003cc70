"""A definition with two classes and an open journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from annotate.journal import Journal
from collect import definition as definitions
from collect.definition import Definition


@pytest.fixture
def definition(tmp_path: Path) -> Definition:
    return definitions.parse(tmp_path / "dataset.toml", definitions.template("beach", [(1, "gull"), (2, "crab")]))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "labels.sqlite") as opened:
        yield opened

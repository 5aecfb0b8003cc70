"""What all tests share: where the real data lies, and a workspace of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from collect.workspace import Workspace

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and labels; tests that need it are skipped where it is absent."""
    path = Path(os.environ.get("BOXWRIGHT_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set BOXWRIGHT_TEST_DATA")
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.at(tmp_path)

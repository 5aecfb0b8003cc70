"""Names of datasets, releases and runs, and where they lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from collect.errors import CorruptError, NotFoundError, UsageError
from collect.workspace import Workspace


def test_release_names__by_number_and_only_finished_ones(tmp_path: Path) -> None:
    dataset = Workspace.at(tmp_path).new_dataset("owls")
    for name in ("v1000", "v999", "v002", "vault"):
        (dataset.releases / name).mkdir(parents=True)
        (dataset.releases / name / "manifest.json").touch()
    (dataset.releases / "v1001").mkdir()  # not finished: its manifest is written last
    assert dataset.release_names() == ["v002", "v999", "v1000"]
    with pytest.raises(NotFoundError, match="v002, v999, v1000"):
        dataset.release_path("v1001")


@pytest.mark.parametrize("name", ["", ".", "..", "../owls", "a/b", "-x", "x" * 101, "owls\n"])
def test_new_dataset__a_name_that_is_no_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a dataset"):
        Workspace.at(tmp_path).new_dataset(name)


def test_run_path__by_name_by_dataset_and_when_ambiguous(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path)
    for dataset in ("owls", "cats"):
        folder = workspace.runs / dataset / "v001-fcos-1"
        folder.mkdir(parents=True)
        (folder / "config.json").touch()
    assert workspace.run_path("owls/v001-fcos-1") == workspace.runs / "owls" / "v001-fcos-1"
    with pytest.raises(UsageError, match="cats/v001-fcos-1, owls/v001-fcos-1"):
        workspace.run_path("v001-fcos-1")
    assert workspace.run_path("v001-fcos-1", "owls") == workspace.runs / "owls" / "v001-fcos-1"
    assert workspace.run_path("cats/v001-fcos-1", "owls") == workspace.runs / "cats" / "v001-fcos-1"
    with pytest.raises(NotFoundError, match="did you mean"):
        workspace.run_path("owls/v001-fcos-2")


def test_run_path__of_the_champion(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path)
    run = workspace.runs / "owls" / "v001-fcos-1"
    run.mkdir(parents=True)
    (run / "config.json").touch()
    dataset = workspace.new_dataset("owls")
    with pytest.raises(NotFoundError, match="owls"):
        workspace.run_path("owls/champion")
    dataset.folder.mkdir(parents=True)
    dataset.definition.touch()
    with pytest.raises(NotFoundError, match="no champion yet; `boxwright retrain owls`"):
        workspace.run_path("owls/champion")
    dataset.champion.write_text('{"run": "v001-fcos-1"}')
    assert workspace.run_path("owls/champion") == workspace.run_path("champion", "owls") == run
    dataset.champion.write_text("[]")
    with pytest.raises(CorruptError, match="names no run"):
        workspace.run_path("owls/champion")

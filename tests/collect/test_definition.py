"""dataset.toml: what is right is read, what is wrong is named by file, line and nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest

from collect import definition
from collect.errors import NotFoundError, UsageError
from collect.workspace import Workspace

ROOT = Path(__file__).parent.parent.parent
GOOD = definition.template("pets", [(1, "cat"), (2, 'dog "big"')])


def test_template__is_valid_and_keeps_the_names() -> None:
    assert definition.parse(Path("x"), GOOD).class_names == ["cat", 'dog "big"']


def test_parse__options_become_what_a_query_string_carries() -> None:
    text = GOOD.replace("[annotate]", '[collect.options.bing-api]\nmkt = "de-DE"\nminWidth = 300\nflag = true\n[annotate]', 1)
    assert definition.parse(Path("x"), text).collect.options == {"bing-api": {"mkt": "de-DE", "minWidth": "300", "flag": "true"}}


@pytest.mark.parametrize(
    "old, new, line_has, message",
    [
        ("min_side_px", "min_side", "min_side", "did you mean 'min_side_px'"),
        ("[collect]", "[colect]", "[colect]", "did you mean 'collect'"),
        ("id = 2", "id = 1", "id = 1", "id 1 is used by 'cat'"),
        ("id = 2", "id = 'two'", "id = 'two'", "must be a whole number"),
        ("train = 0.7", "train = 0.8", "train = 0.8", "add up to 1.1"),
        ('name = "cat"', 'nam = "cat"', 'nam = "cat"', "did you mean 'name'"),
        ('sources = ["openverse", "wikimedia"]', "sources = 3", "sources = 3", "must be a list of texts"),
        ('"CC-BY-SA"', '"CCBY??"', "CCBY??", "no SPDX id or family"),
        ("min_side_px = 64", "min_side_px = 64\n[collect.options.serpapi]\nengine = [1]", "engine = [1]", "must be a text"),
        ("min_side_px = 64", "min_side_px = 64\noptions.serpapi = 3", "options.serpapi = 3", "write [collect.options.serpapi]"),
        ("epochs = 30", "epochs = 30\nepsilon = 0.5", "epsilon = 0.5", "0.005 is half an AP point"),
        ("min_side_px = 64", "min_side_px = 64\nper_domain = 0", "per_domain = 0", "'per_domain' must be from 1 to 1000, not 0"),
        ("min_side_px = 64", "min_side_px = -1", "min_side_px = -1", "at least 0"),
        ("min_side_px = 64", "min_side_px = 64\nmax_blur = 95", "max_blur = 95", "from 0 to 1"),
        ("quota = 200", "quota = -1", "quota = -1", "at least 0"),
        ("[split]", "keep_iou = 75.0\n\n[split]", "keep_iou = 75.0", "'keep_iou' must be from 0.5 to 0.95, not 75"),
        ("epochs = 30", "epochs = 30\nepochs = 31", "epochs = 31", "not valid TOML"),
    ],
)
def test_parse__names_line_and_nearest_key(old: str, new: str, line_has: str, message: str) -> None:
    text = GOOD.replace(old, new, 1)
    with pytest.raises(UsageError) as caught:
        definition.parse(Path("dataset.toml"), text)
    place, number = str(caught.value).split(":")[:2]
    assert place == "dataset.toml"
    assert line_has in text.splitlines()[int(number) - 1]
    assert message in str(caught.value)


def test_load__of_a_dataset_that_is_not_there(workspace: Workspace) -> None:
    definition.create(workspace.new_dataset("pets"), GOOD)
    with pytest.raises(NotFoundError, match="did you mean 'pets'"):
        workspace.dataset("petz")


def test_create__does_not_overwrite(workspace: Workspace) -> None:
    definition.create(workspace.new_dataset("pets"), GOOD)
    with pytest.raises(UsageError, match="exists already"):
        definition.create(workspace.new_dataset("pets"), GOOD)


def test_current__finds_a_class_by_its_former_name() -> None:
    renamed = GOOD.replace('name = "cat"', 'name = "feline"\nwas = ["cat"]')
    described = definition.parse(Path("x"), renamed)
    assert described.class_named("cat").name == "feline"
    assert described.current("cow") is None


@pytest.mark.parametrize("path", sorted(ROOT.glob("datasets/*/dataset.toml")), ids=lambda path: path.parent.name)
def test_shipped_definitions_are_valid(path: Path) -> None:
    assert definition.parse(path, path.read_text()).name == path.parent.name

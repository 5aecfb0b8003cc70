"""One retrain, killed (SIGKILL) at each of its steps in turn, and run again every time: it ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from collect.console import Console
from train.loop import champion as champions
from train.loop.retrain import STATE, Request, retrain

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = {"epochs": 2, "image_size": 64, "batch_size": 8, "weights": "none", "device": "cpu"}

#: Runs `boxwright WORDS`; once a file or folder with the given words in its path stands in its place for the n-th time, it kills itself.
KILLED_AT = """
import os, signal, sys
words_in_path, count, words = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
def watched(real):
    def move(source, target, **more):
        global count
        real(source, target, **more)
        if words_in_path in str(target):
            count -= 1
            if count == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    return move
os.replace, os.rename = watched(os.replace), watched(os.rename)
import boxwright
sys.exit(boxwright.main(words))
"""

#: What has just been written when the kill comes, how often, and what that is in the story.
STEPS = [
    ("releases/v002", 1, "the release is made, but nobody knows of it"),
    ("retrain.json", 1, "the release is noted"),
    ("warm_start-", 1, "about to train"),
    ("last.pt", 1, "one epoch of two is trained"),
    ("last.pt", 1, "all is trained, nothing is judged"),
    ("detections-test.json", 1, "being judged"),
    ("retrain.json", 1, "the run is noted, nothing is compared"),
    ("gate.json", 1, "the verdict stands, nobody is crowned"),
    ("champion.json", 1, "crowned, but not at an end"),
]


def command(workspace, *more: str) -> list[str]:
    options = [word for key, value in OPTIONS.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    return ["retrain", "shapes", "--root", str(workspace.root), "--json", "--force", *options, *more]


@pytest.fixture
def shapes_set(make_dataset, add_shapes):
    dataset, _ = make_dataset("shapes", ["disc", "bar"], [])
    text = dataset.definition.read_text().replace("train = 0.7", "train = 0.5").replace("test = 0.15", "test = 0.35")
    dataset.definition.write_text(text)
    add_shapes(dataset, range(20))
    return dataset


@pytest.mark.slow
def test_killed_at_every_step(shapes_set, add_shapes, workspace):
    first = retrain(Request(workspace, "shapes", OPTIONS), Console(workspace, quiet=True))
    add_shapes(shapes_set, range(100, 106))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for path, count, story in STEPS:
        words = [sys.executable, "-c", KILLED_AT, path, str(count), *command(workspace)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, f"{story}: {done.stderr[-2000:]}"
    done = subprocess.run(
        [sys.executable, "-m", "boxwright", *command(workspace)], env=environment, capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout)
    assert (result["champion"], result["champion_before"]) == (result["run"], first["run"])
    assert champions.read(shapes_set).run == result["run"]
    assert json.loads((shapes_set.runs / result["run"] / "gate.json").read_text()) == result
    assert shapes_set.release_names() == ["v001", "v002"]
    assert {path.parent.name for path in shapes_set.runs.glob("*/metrics.json")} == {first["run"], result["run"]}
    assert not list(shapes_set.runs.glob("*.json")), "what an interrupted retrain keeps is gone"


@pytest.mark.parametrize("first", [True, False])
def test_killed_about_the_crowning(shapes_set, add_shapes, workspace, monkeypatch, first):
    """Before: the verdict is taken again. After: the new champion is not held against itself, and not taken for an older run."""
    quiet = Console(workspace, quiet=True)
    ask = Request(workspace, "shapes", {**OPTIONS, "epochs": 1}, force=True)
    before = "" if first else retrain(ask, quiet)["run"]
    add_shapes(shapes_set, range(100, 104))
    real = champions.crown

    def never(*_arguments, **_more):
        raise KeyboardInterrupt

    def barely(*arguments, **more):
        real(*arguments, **more)
        raise KeyboardInterrupt

    for crown in (never, barely):
        monkeypatch.setattr(champions, "crown", crown)
        with pytest.raises(KeyboardInterrupt):
            retrain(ask, quiet)
        assert (shapes_set.runs / STATE).is_file()
    monkeypatch.setattr(champions, "crown", real)
    result = retrain(ask, quiet)
    assert result["champion"] == result["run"] == champions.read(shapes_set).run
    assert (result["finding"] == "first") == first
    assert result.get("champion_before", "") == before
    assert not (shapes_set.runs / STATE).is_file()


def test_interrupted__what_changed_before_it_goes_on(shapes_set, add_shapes, workspace, monkeypatch, capsys):
    """Its run deleted, a class renamed, labels added: it says so, and ends; no run without a checkpoint stays."""
    told = Console(workspace)
    ask = Request(workspace, "shapes", {**OPTIONS, "epochs": 1})
    first = retrain(ask, told)["run"]
    add_shapes(shapes_set, range(100, 104))

    def killed(*_arguments, **_more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:  # before its first checkpoint: nothing but a config
        patched.setattr("train.fitting.checkpoint.save", killed)
        with pytest.raises(KeyboardInterrupt):
            retrain(ask, told)
    lost = _runs(shapes_set) - {first}
    assert len(lost) == 1
    with monkeypatch.context() as patched:  # before the verdict
        patched.setattr("train.loop.trial.gather", killed)
        with pytest.raises(KeyboardInterrupt):
            retrain(ask, told)
        run = json.loads((shapes_set.runs / STATE).read_text())["run"]
        assert _runs(shapes_set) == {first, run}
        shutil.rmtree(shapes_set.runs / run)
        text = shapes_set.definition.read_text().replace('name = "disc"', 'name = "plate"\nwas = ["disc"]')
        shapes_set.definition.write_text(text)
        capsys.readouterr()
        with pytest.raises(KeyboardInterrupt):
            retrain(ask, told)
        words = capsys.readouterr().err
        assert f"{run}, which an interrupted retrain had trained, is gone; it is trained anew" in words
        assert "going on with the retrain on v002; what changed since it was written is for the next retrain" in words
    result = retrain(ask, told)
    assert result["release"] == "v002" and set(result["classes"]) == {"disc", "bar"}, "judged under the names of its release"
    with monkeypatch.context() as patched:
        patched.setattr("train.loop.trial.gather", killed)
        with pytest.raises(KeyboardInterrupt):
            retrain(ask, told)
    assert json.loads((shapes_set.runs / STATE).read_text())["release"] == "v003"
    shutil.rmtree(shapes_set.releases / "v003")
    assert retrain(ask, told)["release"] == "v003"
    assert "v003, which an interrupted retrain was at work on, is gone; this one begins anew" in capsys.readouterr().err


def _runs(dataset) -> set[str]:
    return {path.parent.name for path in dataset.runs.glob("*/config.json")}

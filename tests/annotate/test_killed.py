"""SIGKILL at random moments of import, release and merge: nothing is half written, and the same command run again ends the same."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotate import manifest
from annotate.journal import Journal, verdict_event
from annotate.state import current
from annotate.verify import problems
from boxwright import main
from collect.workspace import Dataset, Workspace

_PROGRAM = """
import sys, boxwright
from annotate import intake, merge, release
from annotate.commands import importing
from annotate.formats import yolo
print("ready", flush=True)
sys.stdin.readline()
sys.exit(boxwright.main(sys.argv[1:]))
"""


def run_and_kill(root: Path, words: list[str], after_s: float) -> int:
    """Run a command with all that it needs imported already; kill it that long after it began."""
    env = {**os.environ, "BOXWRIGHT_ROOT": str(root)}
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=env,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        process.stdout.read()
        return process.wait()


def pictures(folder: Path, count: int) -> Path:
    """YOLO labels of noise."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    (folder / "data.yaml").write_text("names: [cat, dog]\n")
    for seed in range(count):
        noise = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "images" / f"{seed}.png")
        (folder / "labels" / f"{seed}.txt").write_text(f"{seed % 2} 0.5 0.5 0.25 0.{seed % 5 + 1}\n")
    return folder


def stands(dataset: Dataset) -> None:
    """Journal, images and releases are whole; nothing but a whole release bears a release's name."""
    if dataset.labels.exists():
        assert list(problems(dataset)) == []
    for folder in dataset.releases.glob("v*"):
        assert manifest.problems(folder) == []


def told(dataset: Dataset) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    with Journal(dataset.labels) as journal:
        return {sha: sorted((box.category, box.xywh) for box in entry.present()) for sha, entry in current(journal).items()}


@pytest.fixture
def in_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Dataset]:
    def place(name: str) -> Dataset:
        monkeypatch.setenv("BOXWRIGHT_ROOT", str(tmp_path / name))
        return Workspace.at(tmp_path / name).new_dataset("pets")

    return place


KILLS = int(os.environ.get("BOXWRIGHT_TEST_KILLS", "3"))


def test_import_killed(tmp_path: Path, in_root: Callable[[str], Dataset]) -> None:
    labels = pictures(tmp_path / "in", 120)
    words = ["import", "pets", str(labels), "--format", "yolo"]
    whole = in_root("whole")
    started = time.monotonic()
    assert main(words) == 0
    needed_s = time.monotonic() - started
    chance = random.Random(2)
    ends = set()
    for number in range(KILLS):
        dataset = in_root(f"killed{number}")
        ends.add(run_and_kill(tmp_path / f"killed{number}", words, chance.uniform(0, 1.1) * needed_s))
        stands(dataset)
        if dataset.labels.exists():
            assert told(dataset) in ({}, told(whole))
        assert main(words) == 0
        assert told(dataset) == told(whole)
        assert not list((dataset.images / ".unfinished").glob("*"))
        stands(dataset)
    assert -signal.SIGKILL in ends


def test_release_killed(tmp_path: Path, in_root: Callable[[str], Dataset]) -> None:
    dataset = in_root("whole")
    assert main(["import", "pets", str(pictures(tmp_path / "in", 120)), "--format", "yolo", "--license", "MIT"]) == 0
    fresh = tmp_path / "fresh"
    shutil.copytree(tmp_path / "whole", fresh)
    started = time.monotonic()
    assert main(["release", "pets"]) == 0
    needed_s = time.monotonic() - started
    chance = random.Random(3)
    for number in range(KILLS):
        root = tmp_path / f"killed{number}"
        shutil.copytree(fresh, root)
        run_and_kill(root, ["release", "pets"], chance.uniform(0, 1.1) * needed_s)
        killed = in_root(f"killed{number}")
        stands(killed)
        assert killed.release_names() in ([], ["v001"])
        assert main(["release", "pets"]) == 0
        assert killed.release_names() == ["v001"]
        assert [path.name for path in killed.releases.iterdir()] == ["v001"]
        same = [(folder / "v001" / "annotations.json").read_bytes() for folder in (killed.releases, dataset.releases)]
        assert same[0] == same[1]
        stands(killed)


def test_merge_killed(tmp_path: Path, in_root: Callable[[str], Dataset]) -> None:
    base = in_root("base")
    assert main(["import", "pets", str(pictures(tmp_path / "in", 40)), "--format", "yolo", "--license", "MIT"]) == 0
    shutil.copytree(tmp_path / "base", tmp_path / "theirs")
    in_root("theirs")
    assert main(["import", "pets", str(pictures(tmp_path / "more" / "x", 120)), "--format", "yolo", "--license", "MIT"]) == 0
    theirs = told(Workspace.at(tmp_path / "theirs").dataset("pets"))
    with Journal(base.labels) as journal:
        journal.append([verdict_event("reviewer:anna", next(iter(theirs)), "rejected")])
    words = ["merge", "pets", str(tmp_path / "theirs" / "datasets" / "pets")]
    chance = random.Random(4)
    for number in range(KILLS):
        root = tmp_path / f"killed{number}"
        shutil.copytree(tmp_path / "base", root)
        run_and_kill(root, words, chance.uniform(0, 1.0))
        ours = in_root(f"killed{number}")
        stands(ours)
        assert main(words) == 0
        assert told(ours) == theirs
        stands(ours)

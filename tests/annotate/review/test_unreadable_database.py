"""A database that mongod serves and FiftyOne cannot read: the review says what to delete, and is whole again after that."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pymongo
import pytest
from PIL import Image

from annotate.journal import Journal, Verdict, verdict_event
from annotate.review import mongod
from collect.workspace import Dataset, Workspace

pytestmark = pytest.mark.mongod
ROOT = Path(__file__).parents[3]
MakeBeach = Callable[[Sequence[str], tuple[int, int]], Dataset]
IMAGES = [f"{digit}" * 64 for digit in "123"]


@pytest.fixture
def dataset(make_beach: MakeBeach) -> Dataset:
    made = make_beach(IMAGES, (20, 10))
    for image in IMAGES:
        path = made.image_path(image, "jpg")
        path.parent.mkdir(parents=True)
        Image.new("RGB", (20, 10), "teal").save(path)
    with Journal(made.labels) as journal:
        journal.append([verdict_event("reviewer:ann", IMAGES[0], Verdict.ACCEPTED)])
    return made


def review(root: Path) -> tuple[int, dict[str, Any], str]:
    """Start a review and end it at the moment at which its address is there: its exit code, its first line, and what it said."""
    command = [sys.executable, "-m", "boxwright", "review", "beach", "--reviewer", "ann", "--root", str(root), "--no-open", "--json"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FIFTYONE_")} | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root, env=environment) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        try:
            if first:
                process.send_signal(signal.SIGTERM)
            _, words = process.communicate(timeout=120)
        finally:
            process.kill()
    return process.returncode, json.loads(first or "{}"), words


def of_a_newer_fiftyone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    with mongod.running(root) as database, pymongo.MongoClient(database.uri) as client:
        assert client["boxwright-ann"].config.update_one({}, {"$set": {"version": "99.0.0"}}).modified_count


def with_broken_samples(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What mongod notices only when it reads it, and then ends."""
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    with mongod.running(root) as database, pymongo.MongoClient(database.uri) as client:
        samples = client["boxwright-ann"]
        (name,) = [name for name in samples.list_collection_names() if name.startswith("samples.")]
        file = samples.command("collStats", name)["wiredTiger"]["uri"].rpartition(":")[2]
    path = root / ".boxwright" / "mongo" / "data" / f"{file}.wt"
    path.write_bytes(path.read_bytes()[:4096] + b"x" * (path.stat().st_size - 4096))


def test_a_workspace_that_was_moved_goes_on_and_a_copy_keeps_its_edits_to_itself(
    tmp_path: Path, workspace: Workspace, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert review(workspace.root)[0] == 0
    copy, elsewhere = tmp_path / "copy", tmp_path / "elsewhere"
    shutil.copytree(workspace.root, copy, ignore=shutil.ignore_patterns("copy"))
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    stroke = {"_cls": "Detection", "_id": bson.ObjectId(), "label": "gull", "bounding_box": [0.1, 0.1, 0.5, 0.5]}
    with mongod.running(copy) as database, pymongo.MongoClient(database.uri) as client:  # an edit that a kill left there
        (name,) = [name for name in client["boxwright-ann"].list_collection_names() if name.startswith("samples.")]
        change = {"$push": {"boxes.detections": stroke}, "$set": {"last_modified_at": datetime.now(UTC)}}
        assert client["boxwright-ann"][name].update_one({"sha256": IMAGES[1]}, change).modified_count
    code, told, words = review(copy)
    assert (code, told.get("images")) == (0, 3), words
    with Journal(dataset.labels) as ours, Journal(Workspace.at(copy).dataset("beach").labels) as theirs:
        assert [event.kind for event in ours.events()] == ["verdict"]
        assert [event.kind for event in theirs.events()] == ["verdict", "draw"]
    copy.rename(elsewhere)
    code, told, words = review(elsewhere)
    assert (code, told.get("images")) == (0, 3), words


def test_it_says_which_folder_to_delete_and_loses_nothing(
    tmp_path: Path, workspace: Workspace, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, whole = workspace.root, tmp_path / "whole"
    database = root / ".boxwright" / "mongo" / "data"
    code, told, words = review(root)
    assert (code, told["pending"]) == (0, 2) and (dataset.folder / "review-report.html").exists(), words
    with Journal(dataset.labels) as journal:
        head = journal.head()
    shutil.copytree(database, whole)
    for spoil in (of_a_newer_fiftyone, with_broken_samples):
        shutil.rmtree(database)
        shutil.copytree(whole, database)
        spoil(root, monkeypatch)
        code, told, words = review(root)
        assert (code, told) == (8, {}), words
        assert "Traceback" not in words
        found = re.search(r"end every review and delete (\S+): it is made anew from the journal", words)
        assert found and Path(found[1]) == database, words
        assert not mongod._alive(int((database.parent / "mongod.pid").read_text().split()[0])), "its mongod is stopped"
    shutil.rmtree(database)
    code, told, words = review(root)
    assert (code, told["images"], told["pending"]) == (0, 3, 2), words
    with Journal(dataset.labels) as journal:
        assert journal.head() == head
        assert journal.broken() is None

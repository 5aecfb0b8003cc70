"""A release as a folder in FiftyOne's own format, read back by FiftyOne. Each in a process of its own: FiftyOne knows one database."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from annotate.release import make_release

ROOT = Path(__file__).parent.parent.parent.parent
READ = """
import json, sys
from pathlib import Path
from annotate.review import mongod
from annotate.review.dataset import connect, disconnect
with mongod.running(Path(sys.argv[2])) as database:
    fo = connect(Path(sys.argv[2]), database.uri, "read")
    dataset = fo.Dataset.from_dir(sys.argv[1], dataset_type=fo.types.FiftyOneDataset)
    boxes = [d.bounding_box for sample in dataset for d in sample.ground_truth.detections]
    print(json.dumps({"samples": len(dataset), "boxes": boxes, "classes": dataset.default_classes}))
    disconnect()
"""


@pytest.mark.mongod
@pytest.mark.slow
def test_export__is_read_back_by_fiftyone(make_dataset: Callable, tmp_path: Path) -> None:
    small = make_dataset(images=4)
    make_release(small.dataset, small.definition)
    out = tmp_path / "out"
    words = [
        "export",
        "pets",
        "v001",
        "--format",
        "fiftyone",
        "--out",
        str(out),
        "--root",
        str(small.dataset.folder.parent.parent),
        "--json",
    ]
    done = subprocess.run([sys.executable, "-m", "boxwright", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read = subprocess.run([sys.executable, "-c", READ, out, tmp_path / "w"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    told = json.loads(read.stdout.splitlines()[-1])
    assert told["samples"] == 4
    assert told["classes"] == ["cat", "dog"]
    assert told["boxes"] == [[4.0 / 128, 8.5 / 96, 20.25 / 128, 30.0 / 96]] * 4

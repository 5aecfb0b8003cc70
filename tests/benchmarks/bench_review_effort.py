"""What proposals save a reviewer: a detector trained on a quarter of a real set proposes on the rest.

    python tests/benchmarks/bench_review_effort.py [--quick] [--sets raccoon,bccd,facemask-coco] [--keep DIR]

Nothing but the commands and the functions behind the keys: the set is imported for its true boxes; its images are imported
again without any; the simulated reviewer draws a random quarter; `release`, `train`, `propose`; the simulated reviewer goes
through the rest. Its seconds (published times, see `annotate.review.simulated`) stand against drawing every box of the
rest, the peer. Precision and recall are of the final journal against the truth, one to one at IoU .5 and of the same class;
`mean_iou` tells how well the boxes fit that were left as proposed. All of it twice, each in its own copy of the workspace: by our
reviewer, who keeps boxes from IoU .75 on, and by the protocol of the published times, which keeps them from .5 on; `keep_iou` in
dataset.toml is all that differs, and `propose` works out its threshold for it. `--quick` trains a tenth as long.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from annotate.boxes import iou_matrix  # noqa: E402
from annotate.coco import write_document  # noqa: E402
from annotate.journal import Journal  # noqa: E402
from annotate.review.agreement import match  # noqa: E402
from annotate.review.simulated import Costs, Effort, Truth, simulate  # noqa: E402
from annotate.state import current  # noqa: E402
from collect import definition  # noqa: E402
from collect.ledger import Ledger  # noqa: E402
from collect.workspace import Dataset, Workspace  # noqa: E402

DATA = Path(os.environ.get("BOXWRIGHT_TEST_DATA") or ROOT.parent / "shared" / "data")
NAME = "set"


#: How exact the reviewer is: ours, and the annotators of the study that the 1.6 s come from.
PROTOCOLS = {"ours": 0.75, "published": 0.5}


@dataclass(frozen=True)
class Case:
    """One set: the words of its imports, how long the quarter is trained and on which recipe, the share that is aimed at."""

    imports: tuple[tuple[str, ...], ...]
    train_cpu_s: int
    recipe: tuple[str, ...]
    aim: float


CASES = {
    "raccoon": Case(
        (("raccoon/annotations", "--format", "voc", "--images", "raccoon/images"),),
        900,
        ("--image-size", "320", "--epochs", "150", "--eval-every", "25"),
        0.4,
    ),
    "bccd": Case(
        (("bccd", "--format", "voc"),),
        900,
        ("--image-size", "416", "--epochs", "90", "--eval-every", "30", "--turn", "0.75"),
        0.4,
    ),
    "facemask-coco": Case(
        tuple(
            (f"facemask-coco/annotations/custom_{split}.json", "--format", "coco", "--images", f"facemask-coco/{split}2017")
            for split in ("train", "val")
        ),
        900,
        (
            "--image-size",
            "640",
            "--crop",
            "384",
            "--epochs",
            "40",
            "--eval-every",
            "20",
            "--zoom-out",
            "0.5",
            "--zoom-in",
            "1.6",
            "--sampling",
            "repeat-factor",
        ),
        0.6,
    ),
}


def boxwright(root: Path, *words: str) -> dict[str, Any]:
    """Run a command as a person would; returns its JSON document."""
    command = [sys.executable, "-m", "boxwright", *words, "--root", str(root), "--json", "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return dict(json.loads(done.stdout.splitlines()[-1]))


def truths_of(dataset: Dataset) -> list[Truth]:
    """The images of a dataset with the boxes that its journal has."""
    with Ledger(dataset.ledger) as ledger, Journal(dataset.labels) as journal:
        labels = current(journal)
        return [
            Truth(record.sha256, record.width, record.height, tuple((box.category, box.xywh) for box in labels[record.sha256].present()))
            for record in ledger.images()
        ]


def blank_copy(root: Path, source: Dataset, truths: list[Truth]) -> Dataset:
    """The same images and classes in a workspace of their own, without a box and waiting for review; no test split."""
    names = definition.load(source).class_names
    images = [
        {"id": number, "file_name": str(next(source.images.rglob(f"{truth.image}.*"))), "width": truth.width, "height": truth.height}
        for number, truth in enumerate(truths, 1)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    path = root / "blank.json"
    path.parent.mkdir(parents=True)
    write_document(path, {"images": images, "annotations": [], "categories": categories})
    boxwright(root, "import", NAME, str(path), "--format", "coco", "--images", str(source.images), "--unreviewed", "--license", "CC0-1.0")
    dataset = Workspace.at(root).dataset(NAME)
    text = dataset.definition.read_text()
    for old, new in (("train = 0.7\n", "train = 0.8\n"), ("val = 0.15\n", "val = 0.2\n"), ("test = 0.15\n", "test = 0.0\n")):
        assert old in text
        text = text.replace(old, new)
    dataset.definition.write_text(text)
    return dataset


def review(dataset: Dataset, truths: list[Truth]) -> Effort:
    with Journal(dataset.labels) as journal:
        effort = simulate(journal, definition.load(dataset), truths)
        journal.seal()
    return effort


def by_protocol(root: Path, run: str, keep_iou: float, rest: list[Truth]) -> dict[str, Any]:
    """Proposals and the review of the rest by a reviewer so exact, in a copy of the workspace."""
    dataset = Workspace.at(root).dataset(NAME)
    dataset.definition.write_text(dataset.definition.read_text().replace("[annotate]\n", f"[annotate]\nkeep_iou = {keep_iou}\n"))
    proposed = boxwright(root, "propose", NAME, "--from", f"run:{run}")
    effort = review(dataset, rest)
    drawing_s = Costs().draw_s * sum(len(truth.boxes) for truth in rest)
    return {
        "keep_iou": keep_iou, **{key: proposed[key] for key in ("threshold", "threshold_reason", "proposals")},
        "rest": vars(effort), "share": effort.seconds / drawing_s, **judged(dataset, rest),
    }  # fmt: skip


def judged(dataset: Dataset, truths: list[Truth]) -> dict[str, float]:
    """Precision, recall and mean IoU of the journal's boxes on the images of `truths`."""
    with Journal(dataset.labels) as journal:
        labels = current(journal)
    right = said = true = 0
    overlaps: list[float] = []
    for truth in truths:
        boxes = labels[truth.image].present()
        said, true = said + len(boxes), true + len(truth.boxes)
        for mine, theirs in match(boxes, [_box(row) for row in truth.boxes]):  # type: ignore[list-item]
            if mine is not None and theirs is not None and mine.category == theirs.category:
                right += 1
                overlaps.append(float(iou_matrix(np.array([mine.xywh]), np.array([theirs.xywh]))[0, 0]))
    return {"precision": right / max(said, 1), "recall": right / max(true, 1), "mean_iou": float(np.mean(overlaps))}


@dataclass(frozen=True)
class _TrueBox:
    category: str
    xywh: tuple[float, float, float, float]


def _box(row: tuple[str, tuple[float, float, float, float]]) -> _TrueBox:
    return _TrueBox(*row)


def measure(name: str, folder: Path, quick: bool) -> dict[str, Any]:
    case = CASES[name]
    for words in case.imports:
        placed = [str(DATA / word) if "/" in word or word == name else word for word in words]
        boxwright(folder / "truth", "import", NAME, *placed, "--license", "CC0-1.0")
    source = Workspace.at(folder / "truth").dataset(NAME)
    truths = truths_of(source)
    dataset = blank_copy(folder / "work", source, truths)
    random.Random(0).shuffle(truths)
    quarter, rest = truths[: round(len(truths) / 4)], truths[round(len(truths) / 4) :]
    drawn = review(dataset, quarter)
    boxwright(folder / "work", "release", NAME, "--allow-unreviewed")
    budget = case.train_cpu_s // (10 if quick else 1)
    trained = boxwright(folder / "work", "train", NAME, "--time-budget", str(budget), "--budget-clock", "cpu", *case.recipe)
    protocols = {}
    for protocol, keep_iou in PROTOCOLS.items():
        shutil.copytree(folder / "work", folder / protocol)
        protocols[protocol] = by_protocol(folder / protocol, trained["run"], keep_iou, rest)
    return {
        "images": len(truths), "quarter": vars(drawn), "train_cpu_s": budget, "run": trained["run"],
        "val": {key: trained["metrics"]["val"][key] for key in ("AP", "AP50", "AP75")},
        "best_f1_at": trained["metrics"]["threshold"], "aim": case.aim, **protocols,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sets", default=",".join(CASES))
    parser.add_argument("--keep", default="", help="leave the workspaces here")
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.sets.split(","):
            if not (DATA / name).is_dir():
                sys.stderr.write(f"{name}: not there under {DATA}\n")
                continue
            results[name] = measure(name, Path(arguments.keep or temporary) / name, arguments.quick)
            sys.stderr.write(f"{name}: {json.dumps(results[name])}\n")
    sys.stdout.write(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

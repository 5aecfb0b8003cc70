"""`boxwright queue`: which images to look at next, and why; and which classes starve."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections import Counter
from typing import Any

from annotate.journal import Journal, Verdict
from annotate.state import Labels, current
from collect import definition
from collect.console import Console
from collect.definition import Definition
from collect.errors import UsageError
from collect.files import write_atomic
from collect.ledger import Ledger
from collect.records import ImageRecord
from collect.workspace import Dataset
from train.loop import champion, starving
from train.loop.propose import undecided

_SHOWN = 15


class Queue:
    """Orders the images that wait for a verdict; writes `queue.json`, which the review reads."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a dataset")
        parser.add_argument(
            "--run", default="", metavar="RUN", help="whose doubts count (default: the champion, else the proposals there are)"
        )
        parser.add_argument("--device", default="auto")
        parser.add_argument("--top", type=int, default=0, metavar="N", help="keep the first N (default: all)")
        parser.add_argument("--suggest", action="store_true", help="say which classes and queries starve, as a diff of dataset.toml")
        parser.add_argument("--apply", action="store_true", help="with --suggest: write that diff into dataset.toml")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        if arguments.top < 0:
            raise UsageError(f"--top {arguments.top}: at least 1, or 0 for all")
        if arguments.apply and not arguments.suggest:
            raise UsageError(f"--apply writes what --suggest found: `boxwright queue {arguments.name} --suggest --apply`")
        dataset = console.workspace.dataset(arguments.name)
        recipe = definition.load(dataset)
        with Ledger(dataset.ledger) as ledger, Journal(dataset.labels) as journal:
            records, queries = list(ledger.images()), ledger.query_rows()
            waiting, labels = undecided(records, journal), current(journal)
            if not arguments.suggest:
                ledger.require_images(dataset.name)
        if arguments.suggest:
            return _suggest(dataset, recipe, _stock(dataset, recipe, records, labels, queries), console, apply=arguments.apply)
        run = arguments.run or _champion_run(dataset)
        run_path = console.workspace.run_path(run, dataset.name) if run else None
        ranked = []
        if waiting:
            from train.loop.glances import Scene, look  # loads torch: after what can be told without

            seen = look(Scene(dataset, recipe, records, labels), waiting, run_path, arguments.device, console)
            ranked = [entry.to_json() for entry in seen][: arguments.top or None]
        if not console.dry_run:
            write_atomic(dataset.folder / "queue.json", json.dumps(ranked, ensure_ascii=False, indent=1) + "\n")
        _tell(dataset, ranked, run, len(waiting), console)
        return {"images": len(ranked), "run": run, "path": str(dataset.folder / "queue.json"), "queue": ranked}


def _tell(dataset: Dataset, ranked: list[dict[str, Any]], run: str, num_waiting: int, console: Console) -> None:
    if not num_waiting:
        console.out(
            f"nothing waits: every kept image of {dataset.name} has its verdict; `boxwright audit {dataset.name}` looks for errors in them"
        )
        return
    shown = ranked[:_SHOWN]
    rows = [(place, entry["image"][:12], float(entry["score"]), entry["reason"]) for place, entry in enumerate(shown, 1)]
    part = f", the first {len(shown)}" if len(shown) < num_waiting else ""
    console.table(("", "image", "score", "why"), rows, title=f"{num_waiting:,} images wait{part}")
    whose = (
        f"ordered by what {run} sees in them" if run else "ordered without a model, for there is no champion yet; --run RUN takes another"
    )
    console.out(f"{whose}. `boxwright review {dataset.name}` shows them in this order")


def _champion_run(dataset: Dataset) -> str:
    now = champion.read(dataset)
    return f"{dataset.name}/{now.run}" if now else ""


def _stock(
    dataset: Dataset, recipe: Definition, records: list[ImageRecord], labels: Labels, queries: list[dict[str, Any]]
) -> starving.Stock:
    boxes: Counter[str] = Counter()
    for entry in (labels[record.sha256] for record in records if record.sha256 in labels):
        if entry.verdict != Verdict.REJECTED:
            boxes.update(found.name for box in entry.present() if (found := recipe.current(box.category)))
    images = Counter(found.name for record in records if (found := recipe.current(record.class_name)))
    named = [{**row, "class_name": kind.name} for row in queries if (kind := recipe.current(row["class_name"]))]
    return starving.Stock(boxes, images, _aps(dataset), named)


def _aps(dataset: Dataset) -> dict[str, float]:
    """The champion's AP per class, as its gate found it."""
    now = champion.read(dataset)
    path = dataset.runs / now.run / "gate.json" if now else None
    if path is None or not path.is_file():
        return {}
    gate = json.loads(path.read_bytes())
    return {**{name: row["challenger_ap"] for name, row in gate.get("classes", {}).items()}, **gate.get("only_challenger", {})}


def _suggest(dataset: Dataset, recipe: Definition, stock: starving.Stock, console: Console, *, apply: bool) -> dict[str, Any]:
    hungers, dry = starving.hungry(recipe, stock), starving.dry_queries(stock.queries)
    applied = apply and not console.dry_run
    diff = starving.change(dataset, hungers, apply=applied)
    if not any(stock.boxes.values()):
        console.out(f"nothing is labelled yet: which classes starve shows after a review (`boxwright review {dataset.name}`)")
    for hunger in hungers:
        shown = f", AP {hunger.ap:.3f}" if hunger.ap is not None else ""
        wants = f" of {hunger.quota:,}; `boxwright collect {dataset.name}` asks for more" if hunger.images < hunger.quota else ""
        console.out(f"{hunger.name} starves: {hunger.boxes:,} boxes{shown}; images collected for it: {hunger.images:,}{wants}")
    if any(stock.boxes.values()) and not hungers:
        console.out("no class starves: none has under half of the median class's boxes")
    for row in dry:
        console.out(f"the query '{row['query']}' ({row['class']}) brought nothing from {row['source']}")
    console.out(diff or "dataset.toml needs no change")
    if diff and not applied:
        console.out("`--apply` writes this")
    if diff and applied:
        console.out(f"written into dataset.toml; `boxwright collect {dataset.name}` asks for it")
    return {"starving": [hunger.to_json() for hunger in hungers], "dry_queries": dry, "diff": diff, "applied": bool(diff) and applied}


QUEUE = Queue()

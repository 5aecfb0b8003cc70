"""`boxwright status`: what became of every URL; images, labels, releases, champion."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections import Counter
from typing import Any

from annotate.journal import Journal, Verdict
from annotate.state import current
from collect import definition
from collect.console import Console
from collect.definition import Definition
from collect.ledger import Ledger
from collect.records import State
from collect.report import explain
from collect.workspace import Dataset


class Status:
    """The account of a dataset, whole."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a dataset")
        parser.add_argument("--why", action="store_true", help="explain every loss by reason, with examples")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        dataset = console.workspace.dataset(arguments.name)
        described = definition.load(dataset)
        result = _account(dataset, described)
        _show(console, dataset.name, result)
        if arguments.why:
            with Ledger(dataset.ledger) as ledger:
                result["why"] = explain(ledger)
            _show_losses(console, result)
        return result


def _account(dataset: Dataset, described: Definition) -> dict[str, Any]:
    with Ledger(dataset.ledger) as ledger:
        counts = ledger.counts()
        images = {state.value: ledger.num_images(state) for state in (State.KEPT, State.QUARANTINED, State.REVOKED)}
        collected: Counter[str] = Counter()
        for name in {name for entry in described.classes for name in (entry.name, *entry.was)}:
            collected[described.present_name(name)] += ledger.num_images(State.KEPT, name)
    labels = _labels(dataset, described)
    return {
        "states": counts.states,
        "reasons": counts.reasons,
        "images": images,
        "reviewed": labels["verdicts"],
        "boxes": labels["boxes"],
        "classes": {
            entry.name: {
                "collected": collected[entry.name],
                "quota": entry.quota,
                "images": labels["images_of"][entry.name],
                "boxes": labels["boxes_of"][entry.name],
            }
            for entry in described.classes
        },
        "releases": dataset.release_names(),
        "runs": sorted(path.parent.name for path in dataset.runs.glob("*/metrics.json")),
        "champion": json.loads(dataset.champion.read_text()) if dataset.champion.is_file() else None,
    }


def _show(console: Console, name: str, result: dict[str, Any]) -> None:
    if result["states"]:
        console.table(("URLs", "count"), list(result["states"].items()), title=name)
    rows = [(label, its["collected"], its["quota"] or "–", its["images"], its["boxes"]) for label, its in result["classes"].items()]
    # An imported image was collected for no class: without the labelled ones beside it, 0 of a quota would read as a loss.
    console.table(("class", "collected", "quota", "images with it", "boxes"), rows, title="" if result["states"] else name)
    if result["reviewed"]:
        console.table(("review", "images"), list(result["reviewed"].items()))
    champion = result["champion"]
    console.out(
        f"{result['images'][State.KEPT.value]:,} images, {result['boxes']:,} boxes; releases: {', '.join(result['releases']) or 'none'}; "
        f"trained runs: {len(result['runs']) or 'none'}; champion: {champion['run'] if champion else 'none'}"
    )
    console.out(f"next: {_next(name, result)}")


def _show_losses(console: Console, result: dict[str, Any]) -> None:
    if not result["why"]:
        never = "no URL was ever asked for: the images were imported, or nothing was collected yet"
        console.out("no URL was lost" if result["states"] else never)
    for loss in result["why"]:
        console.out(f"\n{loss['state']}({loss['reason']}): {loss['count']:,} – {loss['sentence']}")
        for example in loss["examples"]:
            words = "; ".join(filter(None, (example["detail"], f"like {example['original']}" if example["original"] else "")))
            console.out(f"    {example['url']}" + (f"  ({words})" if words else ""))


def _next(name: str, result: dict[str, Any]) -> str:
    """The step that the loop stands at, as a command."""
    verdicts, releases = result["reviewed"], result["releases"]
    if not verdicts:
        return f"`boxwright collect {name}`, or `boxwright import {name} PATH --format …`"
    if waiting := verdicts.get(Verdict.PENDING, 0) + verdicts.get(Verdict.NEEDS_BOXES, 0):
        return f"`boxwright review {name}`, where {waiting:,} images wait"
    if result["champion"] or result["runs"]:
        return f"more images (`boxwright collect {name}`) or fewer errors (`boxwright audit {name}`), then `boxwright retrain {name}`"
    return f"`boxwright train {name}`" if releases else f"`boxwright release {name}`"


def _labels(dataset: Dataset, described: Definition) -> dict[str, Any]:
    verdicts: Counter[str] = Counter()
    images_of: Counter[str] = Counter()
    boxes_of: Counter[str] = Counter()
    boxes = 0
    with Ledger(dataset.ledger) as ledger, Journal(dataset.labels) as journal:
        state = current(journal)
        # Only those that were labelled are looked at one by one: a quarter of a million whole records take five seconds.
        kept = ledger.rows("SELECT sha256 FROM images WHERE state = 'KEPT'") if state else []
        labelled = [state[sha256] for (sha256,) in kept if sha256 in state]
        for entry in labelled:
            verdicts[entry.verdict] += 1
            if entry.verdict == Verdict.REJECTED:  # its boxes go into no release
                continue
            found = Counter(kind.name for box in entry.present() if (kind := described.current(box.category)))
            boxes += len(entry.present())
            boxes_of.update(found)
            images_of.update(found.keys())
        verdicts[Verdict.PENDING] += ledger.num_images() - len(labelled)
    shown = {verdict: number for verdict, number in verdicts.items() if number}
    return {"verdicts": shown, "boxes": boxes, "images_of": images_of, "boxes_of": boxes_of}


STATUS = Status()

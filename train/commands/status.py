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
        with Ledger(dataset.ledger) as ledger:
            counts = ledger.counts()
            images = {state.value: ledger.num_images(state) for state in (State.KEPT, State.QUARANTINED, State.REVOKED)}
            kept = [(entry.name, ledger.num_images(State.KEPT, entry.name), entry.quota or "–") for entry in described.classes]
            losses = explain(ledger) if arguments.why else []
        labels = _labels(dataset)
        champion = json.loads(dataset.champion.read_text()) if dataset.champion.is_file() else None
        result = {
            "states": counts.states,
            "reasons": counts.reasons,
            "images": images,
            "reviewed": labels["verdicts"],
            "boxes": labels["boxes"],
            "releases": dataset.release_names(),
            "champion": champion,
        }
        console.table(("URLs", "count"), list(counts.states.items()), title=dataset.name)
        console.table(("class", "images kept", "quota"), kept)
        console.table(("review", "images"), list(labels["verdicts"].items()))
        console.out(
            f"{images['KEPT']:,} images, {labels['boxes']:,} boxes; releases: {', '.join(result['releases']) or 'none'}; "
            f"champion: {champion['run'] if champion else 'none'}"
        )
        if arguments.why:
            result["why"] = losses
            for loss in losses:
                console.out(f"\n{loss['state']}({loss['reason']}): {loss['count']:,} – {loss['sentence']}")
                for example in loss["examples"]:
                    words = "; ".join(filter(None, (example["detail"], f"like {example['original']}" if example["original"] else "")))
                    console.out(f"    {example['url']}" + (f"  ({words})" if words else ""))
        return result


def _labels(dataset: Dataset) -> dict[str, Any]:
    verdicts: Counter[str] = Counter()
    boxes = 0
    with Ledger(dataset.ledger) as ledger, Journal(dataset.labels) as journal:
        state = current(journal)
        # Only those that were labelled are looked at one by one: a quarter of a million whole records take five seconds.
        kept = ledger.rows("SELECT sha256 FROM images WHERE state = 'KEPT'") if state else []
        labelled = [state[sha256] for (sha256,) in kept if sha256 in state]
        for entry in labelled:
            verdicts[entry.verdict] += 1
            boxes += len(entry.present())
        verdicts[Verdict.PENDING] += ledger.num_images() - len(labelled)
    return {"verdicts": {verdict: number for verdict, number in verdicts.items() if number}, "boxes": boxes}


STATUS = Status()

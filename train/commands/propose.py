"""`boxwright propose`: let a detector propose boxes for the review."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from annotate.journal import Journal
from collect import definition
from collect.console import Console
from collect.errors import UsageError
from collect.ledger import Ledger
from collect.workspace import Dataset
from train.loop.propose import Proposer, Request, Tally, named, open_proposer, propose, undecided
from train.loop.proposers import check_threshold
from train.serving.suppression import add_class_overlap, check_class_overlap


class Propose:
    """Writes a model's boxes into the journal as undecided."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a dataset")
        parser.add_argument(
            "--from",
            dest="source",
            metavar="WHO",
            help="opencv-face, run:RUN (run:champion), zero-shot:MODEL (a hub name or a folder), or sources: the boxes that Open Images"
            " brought with its images; default: [annotate] proposer",
        )
        parser.add_argument("--weights", default="", metavar="PATH", help="where the model's weights lie")
        parser.add_argument(
            "--threshold",
            type=float,
            metavar="S",
            help="least score of a proposal (default: of a run, what costs a reviewer least on val; else the model's own)",
        )
        parser.add_argument("--class", dest="category", default="", metavar="NAME", help="propose only this class")
        add_class_overlap(parser)
        parser.add_argument("--tiles", action="store_true", help="look at overlapping tiles as well, for small objects")
        parser.add_argument("--device", default="", help="cpu or cuda (default: what there is)")
        parser.add_argument("--limit", type=int, default=0, metavar="N", help="at most N images")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        if arguments.limit < 0:
            raise UsageError(f"--limit {arguments.limit}: at least 1, or 0 for all")
        dataset = console.workspace.dataset(arguments.name)
        recipe = definition.load(dataset)
        source = arguments.source or recipe.annotate.proposer
        if not source:
            raise UsageError("say who proposes: --from opencv-face, --from run:RUN, --from zero-shot:MODEL or --from sources")
        request = _request(arguments, console, dataset, recipe)
        named(source, request)
        with Ledger(dataset.ledger) as ledger, Journal(dataset.labels) as journal:
            ledger.require_images(dataset.name)
            proposer = open_proposer(source, request)
            console.say(f"{proposer.name} starts at {proposer.threshold:.2f}{f': {proposer.reason}' if proposer.reason else ''}")
            records = undecided(ledger.images(), journal)[: arguments.limit or None]
            if console.dry_run:
                console.out(f"{proposer.name} would look at {len(records)} images")
                return {"images": len(records), "proposals": 0}
            tally = Tally()
            with console.progress("proposing", len(records)) as advance:
                for latest in propose(proposer, dataset, records, journal, arguments.class_overlap):
                    tally = latest
                    advance(1)
        return _report(arguments.name, proposer, tally, console)


def _request(arguments: Namespace, console: Console, dataset: Dataset, recipe: definition.Definition) -> Request:
    return Request(
        console.workspace,
        dataset,
        recipe,
        weights=arguments.weights,
        threshold=check_threshold(arguments.threshold),
        category=arguments.category,
        device=arguments.device,
        tiles=arguments.tiles,
        class_overlap=check_class_overlap(arguments.class_overlap),
    )


def _report(name: str, proposer: Proposer, tally: Tally, console: Console) -> dict[str, Any]:
    for sha256, reason in tally.failures.items():
        console.say(f"{sha256[:12]}: {reason}")
    replaced = f", {tally.replaced} earlier ones replaced" if tally.replaced else ""
    if not tally.images:
        console.out(f"nothing waits: every kept image of {name} has its verdict, so {proposer.name} had nothing to look at")
    else:
        console.out(
            f"{proposer.name}: {tally.proposals} proposals on {tally.images} images{replaced}; `boxwright review {name}` shows them"
        )
    return {
        "proposer": proposer.name,
        "threshold": proposer.threshold,
        "threshold_reason": proposer.reason,
        "images": tally.images,
        "proposals": tally.proposals,
        "replaced": tally.replaced,
        "classes": dict(tally.by_class),
        "failures": tally.failures,
    }


PROPOSE = Propose()

"""`boxwright retrain`: release, warm start, gate: a new champion only on evidence."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from collect.console import Console
from collect.ledger import Ledger
from train.commands.train import add_settings, given_settings
from train.fitting.plan import foreseen
from train.loop.gate import Finding


class Retrain:
    """Makes the new release, trains from the champion, and lets the gate decide."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a dataset")
        parser.add_argument("--allow-unreviewed", action="store_true", help="release pending images that have boxes or proposals, too")
        parser.add_argument("--force", action="store_true", help="promote whatever the gate says; recorded in gate.json and champion.json")
        parser.add_argument("--cold", action="store_true", help="begin from pretrained weights, not from the champion")
        add_settings(parser, "--release")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        dataset = console.workspace.dataset(arguments.name)
        options = given_settings(arguments)
        foreseen(dataset, options)
        with Ledger(dataset.ledger) as ledger:
            ledger.require_images(dataset.name)
        from train.loop.retrain import Request, foresee, retrain  # loads torch: after what can be refused without

        request = Request(
            console.workspace,
            arguments.name,
            options,
            unreviewed=arguments.allow_unreviewed,
            force=arguments.force,
            cold=arguments.cold,
        )
        if console.dry_run:
            release, run = foresee(request, console)
            console.out(f"would train on {release} and compare with {run or 'nothing: it becomes the first champion'}")
            return {"release": release, "champion": run or None}
        result = retrain(request, console)
        console.out(result["reason"])
        console.out(f"champion: {result['champion']}; {dataset.runs / result['run'] / 'retrain.md'} tells more")
        console.out(f"next: {next_step(dataset.name, result)}")
        return result


def next_step(name: str, result: dict[str, Any]) -> str:
    """What a person may do after a verdict."""
    if result["verdict"] == "promoted":
        return f"`boxwright propose {name} --from run:champion` draws first on new images; `boxwright detect {name}/champion PATH` uses it"
    if result["finding"] == Finding.NOT_SHOWN:
        return (
            f"label more (`boxwright queue {name}`), or train longer; where a model that is not worse will do, "
            "[train] epsilon in dataset.toml says by how much, and --force is recorded"
        )
    return f"look at what it finds no more in its report.html and at its labels (`boxwright audit {name}`), or train longer"


RETRAIN = Retrain()

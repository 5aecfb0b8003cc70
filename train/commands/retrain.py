"""`boxwright retrain`: release, warm start, gate: a new champion only on evidence."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from collect.console import Console
from train.commands.train import add_settings, given_settings
from train.loop.retrain import Request, foresee, retrain


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
        request = Request(
            console.workspace,
            arguments.name,
            given_settings(arguments),
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
        return result


RETRAIN = Retrain()

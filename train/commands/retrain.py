"""`boxwright retrain`: release, warm start, gate: a new champion only on evidence."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from annotate.release import Options as ReleaseOptions
from annotate.release import make_release
from collect import definition
from collect.console import Console
from train.commands.train import add_settings, given_settings
from train.loop import champion
from train.loop.retrain import Request, retrain


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
        if console.dry_run:
            made = make_release(dataset, definition.load(dataset), ReleaseOptions(arguments.allow_unreviewed, dry_run=True))
            now = champion.read(dataset)
            best = None if now else champion.best_finished_run(dataset)
            other = f"{best.path.name}, the best run so far" if best else "nothing: it becomes the first champion"
            console.out(f"would train on {made.version} and compare with {now.run if now else other}")
            return {"release": made.version, "champion": now.run if now else None}
        options = given_settings(arguments)
        request = Request(
            console.workspace, arguments.name, options, unreviewed=arguments.allow_unreviewed, force=arguments.force, cold=arguments.cold
        )
        result = retrain(request, console)
        console.out(result["reason"])
        console.out(f"champion: {result['champion']}; {dataset.runs / result['run'] / 'retrain.md'} tells more")
        return result


RETRAIN = Retrain()

"""`boxwright init`: a new, commented dataset.toml."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from collect import definition
from collect.console import Console


class Init:
    """Writes `datasets/NAME/dataset.toml`."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the dataset's name, which is its folder's")
        parser.add_argument(
            "--class",
            action="append",
            required=True,
            dest="classes",
            metavar="NAME",
            help="once per class, in order of their ids",
        )

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        dataset = console.workspace.new_dataset(arguments.name)
        text = definition.template(arguments.name, list(enumerate(arguments.classes, 1)))
        if console.dry_run:
            definition.parse(dataset.definition, text)
            console.out(text)
        else:
            definition.create(dataset, text)
            console.out(f"wrote {dataset.definition}; say in it what counts as what, then `boxwright collect {arguments.name}`")
        return {"path": str(dataset.definition)}


INIT = Init()

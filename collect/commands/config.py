"""`boxwright config`: the definition as it is understood."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import Any

from collect import definition
from collect.console import Console


class Config:
    """Shows a definition with all its defaults."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a dataset")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        document = asdict(definition.load(console.workspace.dataset(arguments.name)))
        rows = [(key, value) for key, value in document.items() if not isinstance(value, dict | tuple)]
        rows += [(f"class {entry['id']}", entry["name"]) for entry in document["classes"]]
        rows += [
            (f"{table}.{key}", value) for table, values in document.items() if isinstance(values, dict) for key, value in values.items()
        ]
        console.table(("key", "value"), [(key, str(value)) for key, value in rows], title=arguments.name)
        return document


CONFIG = Config()

"""`boxwright config`: the definition as it is understood."""

from __future__ import annotations

import json
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
        rows += [
            (f"class {entry['id']}.{key}", value) for entry in document["classes"] for key, value in entry.items() if value and key != "id"
        ]
        rows += [
            (f"{table}.{key}", value) for table, values in document.items() if isinstance(values, dict) for key, value in values.items()
        ]
        console.table(("key", "value"), [(key, _as_toml(value)) for key, value in rows], title=arguments.name)
        return document


def _as_toml(value: Any) -> str:
    """A value as one would write it into the file.

    >>> print(_as_toml(("CC-BY", "CC0-1.0")), _as_toml(True), _as_toml({"openverse": "http://127.0.0.1"}))
    ["CC-BY", "CC0-1.0"] true { openverse = "http://127.0.0.1" }
    """
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_as_toml(entry)}" for key, entry in value.items()) + " }" if value else "{}"
    return json.dumps(value, ensure_ascii=False)


CONFIG = Config()

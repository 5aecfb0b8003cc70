"""TOML tables read into frozen dataclasses, every error with its line: unknown keys, wrong types, missing keys, numbers out of bounds."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from collect.errors import UsageError


class TableReader:
    """One document being checked; `path` is only named in errors.

    Args:
        path: where the text stands.
        text: all of it, to find the lines of keys in.
        bounds: (table, key) -> the least and the most that a number may be.
    """

    def __init__(self, path: Path, text: str, bounds: Mapping[tuple[str, str], tuple[float, float]]) -> None:
        self.path, self.lines, self.bounds = path, text.splitlines(), bounds

    def line_of(self, pattern: str, nth: int = 0) -> int:
        """The number of the nth line that matches, from 1; of the last one where there are fewer, 1 where there is none."""
        hits = [number for number, line in enumerate(self.lines, 1) if re.match(pattern, line)]
        return hits[min(nth, len(hits) - 1)] if hits else 1

    def key_line(self, table: str, key: str, nth: int = 0) -> int:
        """The line of a key in the nth table of that name, or of the table where the key does not stand."""
        start = self.line_of(rf"\s*\[+\s*{re.escape(table)}\s*\]+", nth) if table else 1
        for number in range(start, len(self.lines) + 1):
            if re.match(rf"\s*(\[+\s*)?[\"']?{re.escape(key)}[\"']?\s*[=\].]", self.lines[number - 1]):
                return number
        return start

    def error(self, line: int, message: str) -> UsageError:
        """An error that names file and line."""
        return UsageError(f"{self.path}:{line}: {message}")

    def reject_unknown(self, table: str, given: dict[str, Any], valid: set[str], nth: int = 0) -> None:
        """See that all keys are known; names the nearest."""
        for key in given:
            if key not in valid:
                near = difflib.get_close_matches(key, valid, n=1, cutoff=0.4)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                where = f" in [{table}]" if table else ""
                raise self.error(
                    self.key_line(table, key, nth),
                    f"unknown key '{key}'{where}{hint} Valid: {', '.join(sorted(valid))}",
                )

    def build(self, kind: type, table: str, given: dict[str, Any], nth: int = 0) -> Any:
        """A frozen dataclass from a TOML table: unknown keys, wrong types and missing keys are errors."""
        hints = get_type_hints(kind)
        self.reject_unknown(table, given, set(hints), nth)
        for entry in fields(kind):
            if entry.name not in given and entry.default is MISSING and entry.default_factory is MISSING:
                line = self.line_of(rf"\s*\[+\s*{re.escape(table)}\s*\]+", nth)
                raise self.error(line, f"[{table}] has no '{entry.name}'; add `{entry.name} = …`")
        values = {key: self.value(hints[key], table, key, value, nth) for key, value in given.items()}
        return kind(**values)

    def value(self, hint: Any, table: str, key: str, value: Any, nth: int) -> Any:
        """A value of the type that `hint` names, its numbers within bounds."""
        origin = get_origin(hint)
        if origin is tuple and isinstance(value, list) and all(isinstance(item, get_args(hint)[0]) for item in value):
            return tuple(value)
        if origin is dict and isinstance(value, dict):
            return self.table(get_args(hint)[1], table, key, value, nth)
        if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
            return self.bounded(table, key, float(value), nth)
        if hint is int and type(value) is int:
            return self.bounded(table, key, value, nth)
        if hint in {str, bool} and type(value) is hint:
            return value
        raise self.wrong(hint, table, key, value, nth)

    def bounded(self, table: str, key: str, value: float, nth: int) -> float:
        """A number, unless it is out of its bounds."""
        least, most = self.bounds.get((table, key), (-math.inf, math.inf))
        if not least <= value <= most:
            wanted = f"from {least:g} to {most:g}" if most < math.inf else f"at least {least:g}"
            raise self.error(self.key_line(table, key, nth), f"'{key}' must be {wanted}, not {value:g}")
        return value

    def table(self, inner: Any, table: str, key: str, value: dict[str, Any], nth: int) -> dict[str, Any]:
        """A table of texts, or a table of such tables, whose numbers and truths are written as a query string has them."""
        if inner is str:
            if all(isinstance(item, str) for item in value.values()):
                return value
            raise self.wrong(dict, table, key, value, nth)
        parameters: dict[str, dict[str, str]] = {}
        for name, entries in value.items():
            if not isinstance(entries, dict):
                raise self.error(self.key_line(table, key, nth), f"'{key}.{name}' must be a table: write [{table}.{key}.{name}]")
            for entry, item in entries.items():
                if not isinstance(item, str | int | float):
                    raise self.wrong(str, f"{table}.{key}.{name}", entry, item, nth)
            parameters[name] = {entry: str(item).lower() if isinstance(item, bool) else str(item) for entry, item in entries.items()}
        return parameters

    def wrong(self, hint: Any, table: str, key: str, value: Any, nth: int) -> UsageError:
        """What is wrong with the type of a value."""
        wanted = {int: "a whole number", float: "a number", str: "a text in quotes", bool: "true or false"}.get(
            hint, "a list of texts" if get_origin(hint) is tuple else "a table of texts"
        )
        return self.error(self.key_line(table, key, nth), f"'{key}' must be {wanted}, not {value!r}")

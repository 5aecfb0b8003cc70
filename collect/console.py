"""What a verb gets to talk to the person or script that runs it: results on stdout, progress and words on stderr."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from collect.workspace import Workspace

Item = TypeVar("Item")


class Verb(Protocol):
    """A verb's implementation, named in `boxwright.VERBS`; one instance per verb, without state."""

    def arguments(self, parser: ArgumentParser) -> None:
        """Add the verb's own arguments to its parser."""

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any] | None:
        """Do it. Returns the result document, or None where the verb printed its own lines."""


@dataclass(frozen=True)
class Console:
    """Where a verb's words go. `as_json` = one JSON document on stdout; `dry_run` = write and fetch nothing."""

    workspace: Workspace
    as_json: bool = False
    dry_run: bool = False
    quiet: bool = False

    def say(self, text: str) -> None:
        """A line for a person, on stderr; silent under `--quiet`."""
        if not self.quiet:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def out(self, text: str) -> None:
        """A line of the result, on stdout; silent under `--json`, where the document is the result."""
        if not self.as_json:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def document(self, result: dict[str, Any]) -> None:
        """The result document: on stdout under `--json`, else nothing (the verb has said it in words)."""
        if self.as_json:
            sys.stdout.write(json.dumps(result, ensure_ascii=False, default=str) + "\n")
            sys.stdout.flush()

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
        """A table on stdout for a person; numbers right, texts left."""
        if self.as_json:
            return
        from rich.console import Console as RichConsole
        from rich.table import Table

        table = Table(title=title or None, title_justify="left", header_style="bold")
        body = [list(row) for row in rows]
        for place, heading in enumerate(headings):
            numeric = bool(body) and all(isinstance(row[place], int | float) or row[place] in {"", "–"} for row in body)
            table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
        for row in body:
            table.add_row(*(_cell(value) for value in row))
        RichConsole(file=sys.stdout).print(table)

    def track(self, items: Iterable[Item], doing: str, total: int | None = None) -> Iterator[Item]:
        """Iterate with a progress bar on stderr when that is a terminal."""
        with self.progress(doing, total if total is not None else (len(items) if isinstance(items, Sequence) else None)) as advance:
            for item in items:
                yield item
                advance(1)

    @contextmanager
    def progress(self, doing: str, total: int | None = None) -> Iterator[Any]:
        """A progress bar on stderr; yields `advance(count)`. Nothing is drawn where stderr is not a terminal."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda _count=1: None
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=RichConsole(file=sys.stderr), transient=True) as progress:
            task = progress.add_task(doing, total=total)
            yield lambda count=1: progress.advance(task, count)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)

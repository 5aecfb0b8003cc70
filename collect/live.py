"""The live table of a collection: per source and class what was found, allowed, fetched, kept, and how long it may take.

On a terminal it is redrawn in place; else a plain line comes every few seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console as RichConsole
from rich.live import Live
from rich.table import Table

from collect.definition import Definition
from collect.ledger import Ledger
from collect.ledger_rows import Counts
from collect.records import State

_LINE_EVERY_S = 5.0
_DRAW_EVERY_S = 0.5
#: How far a URL has come, at least, in each state. A refused or lost URL counts for nothing beyond "found".
_PASSED = {
    State.ALLOWED: 1, State.LEASED: 1, State.RETRY: 1, State.GONE: 1,
    State.FETCHED: 2, State.INVALID: 2,
    State.VALID: 3, State.DUPLICATE: 3,
    State.UNIQUE: 4, State.QUARANTINED: 4, State.REVOKED: 4,
    State.KEPT: 5,
}  # fmt: skip
_STEPS = ("found", "allowed", "fetched", "valid", "unique", "kept")


@dataclass(frozen=True)
class Row:
    """One source and class: how many URLs reached each step, `steps` in the order of the table."""

    source: str
    class_name: str
    steps: tuple[int, ...]


def table_rows(counts: Counts) -> list[Row]:
    """How far the URLs of each source and class have come."""
    rows = []
    for source, class_name in sorted({key[:2] for key in counts.by_source}):
        states = [
            (State(state), number) for (its, label, state), number in counts.by_source.items() if (its, label) == (source, class_name)
        ]
        steps = tuple(sum(number for state, number in states if _PASSED.get(state, 0) >= step) for step in range(len(_STEPS)))
        rows.append(Row(source, class_name, steps))
    return rows


class _Watch:
    """Reads the ledger now and then, on a connection of its own."""

    def __init__(self, ledger: Ledger, definition: Definition) -> None:
        self._ledger = ledger
        self._quotas = {entry.name: entry.quota for entry in definition.classes}
        self._began = time.monotonic()
        self._before: dict[tuple[str, str], int] | None = None
        self.pause_s = _DRAW_EVERY_S

    def table(self) -> Table:
        """The whole table as it stands."""
        rows, elapsed = self._rows(), time.monotonic() - self._began
        table = Table(header_style="bold", box=None, pad_edge=False)
        for name in ("source", "class", *_STEPS, "quota", "kept/s", "time left"):
            table.add_column(name, justify="left" if name in {"source", "class"} else "right", overflow="ellipsis")
        kept: Counter[str] = Counter()
        gained: Counter[str] = Counter()
        for row in rows:
            kept[row.class_name] += row.steps[-1]
            gained[row.class_name] += self._gain(row)
        for row in rows:
            rate, quota = self._gain(row) / max(elapsed, 0.1), self._quotas.get(row.class_name, 0)
            missing, speed = max(quota - kept[row.class_name], 0), gained[row.class_name] / max(elapsed, 0.1)
            left = _duration(missing / speed) if speed and missing else ("–" if missing else "done")
            cells = (*(f"{number:,}" for number in row.steps), f"{quota:,}" if quota else "–", f"{rate:.1f}", left if quota else "–")
            table.add_row(row.source, row.class_name, *cells)
        return table

    def line(self) -> str:
        """The same in one line, summed over sources and classes."""
        rows = self._rows()
        totals = [sum(row.steps[step] for row in rows) for step in range(len(_STEPS))]
        words = ", ".join(f"{name} {number:,}" for name, number in zip(_STEPS, totals, strict=True))
        return f"{words}, {time.monotonic() - self._began:.0f} s"

    def _gain(self, row: Row) -> int:
        """Images kept since this watch began."""
        return row.steps[-1] - (self._before or {}).get((row.source, row.class_name), 0)

    def _rows(self) -> list[Row]:
        began = time.monotonic()
        rows = table_rows(self._ledger.counts())
        self.pause_s = max(_DRAW_EVERY_S, 20 * (time.monotonic() - began))  # a large ledger is read less often
        if self._before is None:
            self._before = {(row.source, row.class_name): row.steps[-1] for row in rows}
        return rows


@contextmanager
def live_table(ledger: Path, definition: Definition, *, quiet: bool) -> Iterator[None]:
    """Show how a collection goes, on stderr, until the block ends."""
    if quiet:
        yield
        return
    stop = threading.Event()
    show = _draw if sys.stderr.isatty() else _write_lines
    thread = threading.Thread(target=show, args=(ledger, definition, stop), name="live-table", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _draw(path: Path, definition: Definition, stop: threading.Event) -> None:
    with Ledger(path) as ledger:
        watch = _Watch(ledger, definition)
        with Live(watch.table(), console=RichConsole(file=sys.stderr), auto_refresh=False) as live:
            while not stop.wait(watch.pause_s):
                live.update(watch.table(), refresh=True)
            live.update(watch.table(), refresh=True)


def _write_lines(path: Path, definition: Definition, stop: threading.Event) -> None:
    with Ledger(path) as ledger:
        watch = _Watch(ledger, definition)
        watch.line()
        while not stop.wait(max(_LINE_EVERY_S, watch.pause_s)):
            sys.stderr.write(watch.line() + "\n")
            sys.stderr.flush()


def _duration(seconds: float) -> str:
    """A time left, in words.

    >>> _duration(42), _duration(600), _duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

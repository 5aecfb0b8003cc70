"""The live table of a collection: per source and class what was found, allowed, fetched, kept, and how long it may take.

On a terminal it is redrawn in place; else a plain line comes every few seconds.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
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
_RATE_OVER_S = 10.0
_LONGEST_NAME = 24
#: How far a URL has come, at least, in each state. A refused or lost URL counts for nothing beyond "found".
_PASSED = {
    State.ALLOWED: 1, State.LEASED: 1, State.RETRY: 1, State.GONE: 1,
    State.FETCHED: 2, State.INVALID: 2,
    State.VALID: 3, State.DUPLICATE: 3,
    State.UNIQUE: 4, State.QUARANTINED: 4, State.REVOKED: 4,
    State.KEPT: 5,
}  # fmt: skip
STEPS = ("found", "allowed", "fetched", "valid", "unique", "kept")


@dataclass(frozen=True)
class Row:
    """One source and class: how many URLs reached each step, `steps` in the order of the table."""

    source: str
    class_name: str
    steps: tuple[int, ...]


def table_rows(counts: Counts, definition: Definition) -> list[Row]:
    """How far the URLs of each source and class have come; classes by their present names."""
    states: defaultdict[tuple[str, str], Counter[State]] = defaultdict(Counter)
    for (source, class_name, state), number in counts.by_source.items():
        states[source, definition.present_name(class_name)][State(state)] += number
    return [
        Row(*key, tuple(sum(number for state, number in its.items() if _PASSED.get(state, 0) >= step) for step in range(len(STEPS))))
        for key, its in sorted(states.items())
    ]


def total(rows: Iterable[Row], class_name: str | None = None) -> tuple[int, ...]:
    """The steps of several rows together, of those of one class or of all.

    >>> total([Row("s", "cat", (9, 8, 7, 6, 5, 4)), Row("s", "dog", (1, 1, 1, 1, 1, 0))])
    (10, 9, 8, 7, 6, 4)
    """
    wanted = [row.steps for row in rows if class_name in {None, row.class_name}]
    return tuple(sum(steps[place] for steps in wanted) for place in range(len(STEPS)))


@dataclass(frozen=True)
class _Moment:
    """How many images each source and class had kept at a moment (monotonic seconds)."""

    at: float
    kept: Counter[tuple[str, str]]


class _Watch:
    """Reads the ledger now and then, on a connection of its own."""

    def __init__(self, ledger: Ledger, definition: Definition) -> None:
        self._ledger, self._definition = ledger, definition
        self._quotas = {entry.name: entry.quota for entry in definition.classes}
        self._began = time.monotonic()
        self._seen: deque[_Moment] = deque()  # the first, then those of the last seconds
        self.pause_s = _DRAW_EVERY_S

    def table(self, *, at_the_end: bool = False) -> Table:
        """The whole table as it stands; rates are those of the last seconds, or at the end those of the whole."""
        rows = self._rows()
        first, now = self._seen[0], self._seen[-1]
        earlier = first if at_the_end or now.at - first.at <= _RATE_OVER_S else self._seen[1]
        rates = {place: number / max(now.at - earlier.at, 0.1) for place, number in (now.kept - earlier.kept).items()}
        table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for name in ("source", "class", *STEPS, "quota", "kept/s", "time left"):
            words = name in {"source", "class"}  # where a terminal is narrow, names are cut and no number is
            table.add_column(name, justify="left" if words else "right", overflow="ellipsis", no_wrap=not words)
        longest_s = 0.0
        for row in rows:
            quota = self._quotas.get(row.class_name, 0)
            missing = max(quota - total(rows, row.class_name)[-1], 0)
            speed = sum(rate for (_source, class_name), rate in rates.items() if class_name == row.class_name)
            left_s = missing / speed if speed and not at_the_end else math.inf if missing else 0.0
            longest_s = max(longest_s, left_s)
            rate = rates.get((row.source, row.class_name), 0.0)
            table.add_row(short_name(row.source), row.class_name, *self._cells(row.steps, quota, rate, left_s))
        if len(rows) > 1:
            table.add_section()
            table.add_row("all", "", *self._cells(total(rows), sum(self._quotas.values()), sum(rates.values()), longest_s), style="bold")
        return table

    def line(self) -> str:
        """The same in one line, summed over sources and classes."""
        words = ", ".join(f"{name} {number:,}" for name, number in zip(STEPS, total(self._rows()), strict=True))
        return f"{words}, {time.monotonic() - self._began:.0f} s"

    def _cells(self, steps: tuple[int, ...], quota: int, rate: float, left_s: float) -> tuple[str, ...]:
        left = "–" if not quota or math.isinf(left_s) else _duration(left_s) if left_s else "done"
        return (*(f"{number:,}" for number in steps), f"{quota:,}" if quota else "–", f"{rate:.1f}", left)

    def _rows(self) -> list[Row]:
        began = time.monotonic()
        rows = table_rows(self._ledger.counts(), self._definition)
        self.pause_s = max(_DRAW_EVERY_S, 20 * (time.monotonic() - began))  # a large ledger is read less often
        self._seen.append(_Moment(began, Counter({(row.source, row.class_name): row.steps[-1] for row in rows})))
        while len(self._seen) > 3 and self._seen[2].at < began - _RATE_OVER_S:
            del self._seen[1]
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
            live.update(watch.table(at_the_end=True), refresh=True)


def _write_lines(path: Path, definition: Definition, stop: threading.Event) -> None:
    with Ledger(path) as ledger:
        watch = _Watch(ledger, definition)
        watch.line()
        while not stop.wait(max(_LINE_EVERY_S, watch.pause_s)):
            sys.stderr.write(watch.line() + "\n")
            sys.stderr.flush()


def short_name(source: str) -> str:
    """A source's name for the table: of a long path the end tells more.

    >>> short_name("urls:/home/somebody/lists/of/pictures.csv")
    'urls:…ts/of/pictures.csv'
    """
    kind, colon, rest = source.partition(":")
    return source if len(source) <= _LONGEST_NAME else f"{kind}{colon}…{rest[len(kind) + 2 - _LONGEST_NAME :]}"


def _duration(seconds: float) -> str:
    """A time left, in words.

    >>> _duration(42), _duration(600), _duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

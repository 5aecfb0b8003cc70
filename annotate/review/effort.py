"""What a review cost: the time from image shown to verdict, and what was done to boxes in it.

All of it is folded from the journal. A box counts once per verdict: one that was drawn and then moved is drawn, a proposal
that was moved five times is one correction. One that stood there already, imported say, and still does at an acceptance, is
confirmed. What a verdict said counts no more once that is undone; the time that it took does.
"""

from __future__ import annotations

import html
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from annotate.journal import Journal, Kind, Status, Verdict
from collect.files import write_atomic
from collect.workspace import Dataset

_ACTS = {Kind.DRAW: "drawn", Kind.EDIT: "corrected", Kind.ACCEPT: "untouched", Kind.DELETE: "thrown out"}
CONFIRMED = "confirmed"


@dataclass
class Spent:
    """One reviewer's work. `seconds` holds the time of every verdict that was timed, by verdict."""

    verdicts: dict[str, int] = field(default_factory=dict)
    acts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    timed_boxes: int = 0

    def total_s(self) -> float:
        """Seconds of all timed verdicts."""
        return sum(map(sum, self.seconds.values()))

    def boxes(self) -> int:
        """Boxes that left this reviewer's hands as boxes of the dataset."""
        return sum(self.acts.get(name, 0) for name in ("drawn", "corrected", "untouched", "confirmed"))

    def summary(self) -> dict[str, Any]:
        """The figures of a report; None where nothing was timed or proposed."""
        total_s = self.total_s()
        kept = self.acts.get("untouched", 0) + self.acts.get("confirmed", 0)
        offered = kept + self.acts.get("corrected", 0) + self.acts.get("thrown out", 0)
        every = [value for values in self.seconds.values() for value in values]
        return {
            "verdicts": dict(self.verdicts), "acts": dict(self.acts), "boxes": self.boxes(), "hours": round(total_s / 3600, 3),
            "seconds_per_verdict": round(statistics.median(every), 2) if every else None,
            "seconds_by_verdict": {name: round(statistics.median(values), 2) for name, values in self.seconds.items()},
            "boxes_per_minute": round(60 * self.timed_boxes / total_s, 2) if total_s else None,
            "share_untouched": round(kept / offered, 4) if offered else None,
        }  # fmt: skip


@dataclass
class Efforts:
    """The work of all reviewers."""

    by_reviewer: dict[str, Spent] = field(default_factory=dict)

    def as_document(self) -> dict[str, Any]:
        """For `--json`: reviewer -> summary."""
        return {name: spent.summary() for name, spent in sorted(self.by_reviewer.items())}


def effort(journal: Journal, *, until: int | None = None) -> Efforts:
    """Fold what reviewers did, up to event `until` (that of a release) where given."""
    result = Efforts()
    open_acts: dict[tuple[str, str], dict[str, str]] = {}
    standing: dict[str, set[str]] = {}
    undone = _undone(journal, until)
    for event in journal.events(until=until):
        counts = event.seq not in undone and event.kind != Kind.UNDO
        if event.box and counts:
            boxes = standing.setdefault(event.image, set())
            (boxes.add if event.status == Status.PRESENT else boxes.discard)(event.box)
        name = event.actor.removeprefix("reviewer:")
        if name == event.actor:
            continue
        key = (event.actor, event.image)
        if event.box and counts:
            _note(open_acts.setdefault(key, {}), event.box, event.kind)
        elif event.kind == Kind.VERDICT:
            spent = result.by_reviewer.setdefault(name, Spent())
            seconds = event.details.get("seconds")
            if seconds is not None:
                spent.seconds.setdefault(event.status, []).append(seconds)
            if counts:
                acts = open_acts.pop(key, {})
                if event.status == Verdict.ACCEPTED:
                    acts |= dict.fromkeys(standing.get(event.image, set()) - acts.keys(), CONFIRMED)
                _close(spent, acts, event.status, timed=seconds is not None)
    return result


def _undone(journal: Journal, until: int | None) -> set[int]:
    """The numbers of the events that were taken back; whoever takes back an undo lets stand what that took back."""
    undone: set[int] = set()
    for event in reversed(list(journal.events(until=until, kind=Kind.UNDO))):
        if event.seq not in undone:
            undone.update(event.details.get("undoes", ()))
    return undone


def release_hours(dataset: Dataset, journal: Journal) -> list[tuple[str, float]]:
    """For each release the hours of timed work that all its labels took, oldest first."""
    told = []
    for version in dataset.release_names():
        manifest = json.loads((dataset.release_path(version) / "manifest.json").read_bytes())
        until = manifest.get("journal", {}).get("event")
        spent = effort(journal, until=until).by_reviewer.values() if until is not None else ()
        told.append((version, sum(each.total_s() for each in spent) / 3600))
    return told


def _note(acts: dict[str, str], box: str, kind: str) -> None:
    """What became of a box so far: what was drawn stays drawn, unless it went again."""
    if kind == Kind.DELETE and acts.get(box) == Kind.DRAW:
        del acts[box]
    elif kind == Kind.DELETE or acts.get(box) not in {Kind.DRAW, Kind.EDIT}:
        acts[box] = kind


def _close(spent: Spent, acts: dict[str, str], verdict: str, *, timed: bool) -> None:
    spent.verdicts[verdict] = spent.verdicts.get(verdict, 0) + 1
    for kind in acts.values():
        name = CONFIRMED if kind == CONFIRMED else _ACTS.get(Kind(kind))
        if name:
            spent.acts[name] = spent.acts.get(name, 0) + 1
            spent.timed_boxes += timed and name != "thrown out"


def write_report(path: Path, name: str, efforts: Efforts, releases: Sequence[tuple[str, float]] = ()) -> None:
    """Write what a review cost, and every release (see :func:`release_hours`), as one HTML page that needs nothing else."""
    summaries = efforts.as_document()
    hours = sum(row["hours"] for row in summaries.values())
    boxes = sum(row["boxes"] for row in summaries.values())
    cells = [
        ("boxes", "boxes"), ("boxes_per_minute", "boxes a minute"), ("share_untouched", "share left untouched"),
        ("seconds_per_verdict", "seconds a verdict (median)"), ("hours", "time"),
    ]  # fmt: skip
    head = "".join(f"<th class=n>{label}</th>" for _, label in cells)
    rows = "".join(
        f"<tr><td>{html.escape(reviewer)}</td><td>{_list(row['verdicts'], row['seconds_by_verdict'])}</td><td>{_list(row['acts'])}</td>"
        + "".join(f"<td class=n>{_cell(key, row[key])}</td>" for key, _ in cells)
        + "</tr>"
        for reviewer, row in summaries.items()
    )
    costs = "".join(f"<tr><td>{html.escape(version)}</td><td class=n>{_time(cost)}</td></tr>" for version, cost in releases)
    by_release = f"<h2>Releases</h2><table><tr><th>release</th><th class=n>work in it</th></tr>{costs}</table>" if costs else ""
    per_box = f", {3600 * hours / boxes:.1f} s a box" if boxes else ""
    write_atomic(
        path,
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Review of {html.escape(name)}</title><style>:root{{color-scheme:light dark}}"
        "body{font:15px/1.5 system-ui,sans-serif;margin:3em auto;max-width:70em;padding:0 1em}.wide{overflow-x:auto}"
        "table{border-collapse:collapse}td,th{padding:.4em .9em;border-bottom:1px solid #8884;text-align:left;vertical-align:top}"
        "td{white-space:nowrap}th{font-weight:600;opacity:.7}th.n,td.n{text-align:right;font-variant-numeric:tabular-nums}</style>"
        f"<h1>Review of {html.escape(name)}</h1><p>{boxes:,} boxes in {_time(hours)} of timed work{per_box}."
        " Time runs from an image shown to its verdict; pauses over five minutes are left out.</p>"
        f"<div class=wide><table><tr><th>reviewer</th><th>verdicts</th><th>boxes by act</th>{head}</tr>{rows}</table></div>{by_release}\n",
    )


def _list(counts: dict[str, int], seconds: Mapping[str, float] = MappingProxyType({})) -> str:
    """Counts by name, each with its median of seconds where that is known."""
    lines = [
        f"{count} {html.escape(name.replace('_', ' '))}" + (f", {seconds[name]:.1f} s each" if name in seconds else "")
        for name, count in counts.items()
    ]
    return "<br>".join(lines) or "–"


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    if key == "hours":
        return _time(value)
    return f"{100 * value:.0f} %" if key == "share_untouched" else f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _time(hours: float) -> str:
    """Hours in words that a person reads.

    >>> _time(0), _time(.02), _time(.5), _time(12.34)
    ('0 min', '1.2 min', '30 min', '12.3 h')
    """
    minutes = 60 * hours
    return f"{hours:.1f} h" if minutes >= 90 else f"{minutes:.2g} min"

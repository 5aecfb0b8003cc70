"""Back to `collect`: which classes and queries starve, as a change of dataset.toml that a person accepts.

A class starves where it has under half of the median class's boxes (or none). For it a quota that is met is raised in
proportion to what it lacks (one that is not met asks for more already, and would grow each time it is looked at), and queries
are added that are not in the file yet: its synonyms, and those that the planner found by itself and that brought images. A
query that brought nothing over several pages is reported, not removed.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from collect import definition as definitions
from collect.definition import Definition, ObjectClass
from collect.files import write_atomic
from collect.workspace import Dataset

STARVES_BELOW = 0.5
MOST_TIMES = 4.0
MOST_QUERIES = 3
DRY_PAGES = 2


@dataclass(frozen=True)
class Hunger:
    """What one class lacks. `ap` is the champion's on it, None where unknown."""

    name: str
    boxes: int
    images: int
    ap: float | None
    quota: int
    new_quota: int
    new_queries: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "class": self.name, "boxes": self.boxes, "images": self.images, "ap": self.ap, "quota": self.quota,
            "new_quota": self.new_quota, "new_queries": list(self.new_queries),
        }  # fmt: skip


@dataclass(frozen=True)
class Stock:
    """What there is: boxes and kept images by class name, the champion's AP by class name, the ledger's query rows."""

    boxes: Mapping[str, int]
    images: Mapping[str, int]
    aps: Mapping[str, float]
    queries: Sequence[Mapping[str, Any]]


def hungry(definition: Definition, stock: Stock) -> list[Hunger]:
    """The classes that starve, the hungriest first; none where nothing is labelled at all."""
    if not any(stock.boxes.values()):
        return []
    counts = [stock.boxes.get(entry.name, 0) for entry in definition.classes]
    wanted = float(np.median(counts)) if len(counts) > 2 else float(max(counts, default=0))
    found = [
        _hunger(entry, stock, wanted)
        for entry, count in zip(definition.classes, counts, strict=True)
        if count < STARVES_BELOW * wanted or not count
    ]
    return sorted(found, key=lambda hunger: (hunger.boxes, hunger.name))


def _hunger(entry: ObjectClass, stock: Stock, wanted: float) -> Hunger:
    boxes, images = stock.boxes.get(entry.name, 0), stock.images.get(entry.name, 0)
    times = min(MOST_TIMES, wanted / max(boxes, 1)) if wanted else 1.0
    quota = ceil(images * max(times, 1.0)) if 0 < entry.quota <= images else entry.quota
    return Hunger(entry.name, boxes, images, stock.aps.get(entry.name), entry.quota, quota, _new_queries(entry, stock.queries))


def _new_queries(entry: ObjectClass, rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    grown = sorted(
        (row for row in rows if row["class_name"] == entry.name and row["origin"] and row["found"]),
        key=lambda row: (-row["found"] / max(row["pages"], 1), row["query"]),
    )
    known = {query.lower() for query in entry.queries}
    offered = [*entry.synonyms, *(str(row["query"]) for row in grown)]
    return tuple(dict.fromkeys(query for query in offered if query.lower() not in known))[:MOST_QUERIES]


def dry_queries(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Queries that brought nothing over several pages, or in all that there are."""
    return [
        {"class": row["class_name"], "query": row["query"], "source": row["source"], "pages": row["pages"]}
        for row in rows
        if not row["found"] and (row["pages"] >= DRY_PAGES or row["dry"])
    ]


def rewritten(text: str, hungers: Sequence[Hunger]) -> str:
    """The text of dataset.toml with new quotas and queries; comments and everything else stay as they are."""
    for hunger in hungers:
        text = _change_block(text, hunger)
    return text


def _change_block(text: str, hunger: Hunger) -> str:
    blocks = re.split(r"(?m)^(?=\s*\[)", text)
    name = re.compile(rf"(?m)^\s*name\s*=\s*[\"']{re.escape(hunger.name)}[\"']")
    for place, block in enumerate(blocks):
        if re.match(r"\s*\[\[\s*class\s*\]\]", block) and name.search(block):
            blocks[place] = _change_queries(_change_quota(block, hunger), hunger)
    return "".join(blocks)


def _change_quota(block: str, hunger: Hunger) -> str:
    if hunger.new_quota <= hunger.quota:
        return block
    return re.sub(r"(?m)^(\s*quota\s*=\s*)\d+", rf"\g<1>{hunger.new_quota}", block, count=1)


def _change_queries(block: str, hunger: Hunger) -> str:
    if not hunger.new_queries:
        return block
    added = ", ".join(json.dumps(query, ensure_ascii=False) for query in hunger.new_queries)
    found = re.search(r"(?ms)^(\s*queries\s*=\s*\[)(.*?)(,?\s*)\]", block)
    if found is None:
        return re.sub(r"(?m)^(\s*name\s*=.*\n)", lambda line: f"{line[1]}queries = [{added}]\n", block, count=1)
    inside = f"{found[2]}, {added}" if found[2].strip() else added
    return f"{block[: found.start()]}{found[1]}{inside}]{block[found.end() :]}"


def change(dataset: Dataset, hungers: Sequence[Hunger], *, apply: bool) -> str:
    """The unified diff of dataset.toml, "" where nothing would change; written only with `apply`.

    Raises:
        UsageError: the changed file would not be a valid definition; nothing is written.
    """
    before = dataset.definition.read_text(encoding="utf-8")
    after = rewritten(before, hungers)
    definitions.parse(dataset.definition, after)
    if apply and after != before:
        write_atomic(dataset.definition, after)
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), "dataset.toml", "dataset.toml (proposed)"
    )
    return "".join(lines)

"""How far reviewers agree: on the images that two of them saw without knowing of each other, and on gold images.

Boxes match one to one at IoU ≥ .5, whatever their class, best overlap first. F1 counts a matched pair of one class as
right. Cohen's kappa (1960) is over the classes of all matched and unmatched boxes, an unmatched one standing against
"no box". The second opinion lies in a journal of its own (`opinions/REVIEWER.sqlite`) and enters no release.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from annotate.boxes import iou_matrix
from annotate.journal import Journal, Verdict
from annotate.state import Box, ImageLabels, Labels, current
from collect.definition import Definition
from collect.workspace import Dataset

MATCH_IOU = 0.5
NO_BOX = "no box"


@dataclass
class Tally:
    """Pairs of classes that two reviewers gave the same object; `NO_BOX` where one has none."""

    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    images: int = 0
    same_verdict: int = 0

    def f1(self, category: str | None = None) -> float:
        """Twice the agreed boxes over all boxes of both; 1.0 where neither has any."""
        agreed = sum(n for (a, b), n in self.pairs.items() if a == b and category in {None, a})
        boxes = sum(
            n * ((a != NO_BOX and category in {None, a}) + (b != NO_BOX and category in {None, b})) for (a, b), n in self.pairs.items()
        )
        return 2 * agreed / boxes if boxes else 1.0

    def kappa(self) -> float:
        """Cohen's kappa; 1.0 where there is nothing to differ about."""
        total = sum(self.pairs.values())
        if not total:
            return 1.0
        observed = sum(n for (a, b), n in self.pairs.items() if a == b) / total
        mine, theirs = Counter[str](), Counter[str]()
        for (a, b), n in self.pairs.items():
            mine[a] += n
            theirs[b] += n
        expected = sum(mine[name] * theirs[name] for name in mine) / total**2
        return 1.0 if expected == 1.0 else (observed - expected) / (1 - expected)


def match(mine: Sequence[Box], theirs: Sequence[Box]) -> list[tuple[Box | None, Box | None]]:
    """Boxes of two reviewers in pairs, one-to-one at IoU ≥ .5; None where the other has no box there."""
    pairs: list[tuple[Box | None, Box | None]] = []
    left, right = set(range(len(mine))), set(range(len(theirs)))
    if mine and theirs:
        iou_NM = iou_matrix(np.array([box.xywh for box in mine]), np.array([box.xywh for box in theirs]))
        for flat in np.argsort(-iou_NM, axis=None, kind="stable").tolist():
            row, column = divmod(flat, len(theirs))
            if iou_NM[row, column] < MATCH_IOU:
                break
            if row in left and column in right:
                pairs.append((mine[row], theirs[column]))
                left.remove(row)
                right.remove(column)
    pairs += [(mine[row], None) for row in sorted(left)]
    return pairs + [(None, theirs[column]) for column in sorted(right)]


def opinions(dataset: Dataset) -> dict[str, Labels]:
    """The second opinions of every reviewer who gave some: reviewer -> labels."""
    found: dict[str, Labels] = {}
    for path in sorted((dataset.folder / "opinions").glob("*.sqlite")):
        with Journal(path) as journal:
            labels = current(journal)
        for image, entry in labels.items():
            if entry.verdict_event and entry.verdict != Verdict.PENDING:
                found.setdefault(entry.reviewer.partition(":")[2], {})[image] = entry
    return found


def agreement(dataset: Dataset, definition: Definition, labels: Labels) -> dict[str, Any]:
    """Agreement per pair of reviewers and per class, and the images they differ on, worst first.

    Returns:
        `pairs` (`reviewer`, `other`, `kind` gold or second opinion, `images`, `f1`, `kappa`, `same_verdict`, `per_class`)
        and `disagreements` (`image`, `reviewer`, `other`, `score` in [0, 1] with 1 = nothing in common, `reason`).
    """
    tallies: dict[tuple[str, str, str], Tally] = {}
    queue: list[dict[str, Any]] = []
    gold = gold_images(definition)
    for reviewer, seen in opinions(dataset).items():
        for image, second in seen.items():
            first = labels.get(image)
            if first is None or first.verdict == Verdict.PENDING:
                continue
            other, kind = _name(first.reviewer), "gold" if image in gold else "second opinion"
            tally = tallies.setdefault((reviewer, other, kind), Tally())
            pairs = _count(tally, definition, second, first)
            if pairs or second.verdict != first.verdict:
                queue.append(_disagreement(image, reviewer, other, pairs, second, first))
    return {
        "pairs": [_row(definition, key, tally) for key, tally in sorted(tallies.items())],
        "disagreements": sorted(queue, key=lambda row: (-row["score"], row["image"])),
    }


def gold_images(definition: Definition) -> frozenset[str]:
    """The sha256 of the images whose boxes measure a reviewer (`[annotate] gold`)."""
    return frozenset(definition.annotate.gold)


def _name(actor: str) -> str:
    kind, _, name = actor.partition(":")
    return name if kind == "reviewer" else actor


def _standing(entry: ImageLabels) -> list[Box]:
    return entry.present() if entry.verdict != Verdict.REJECTED else []


def _count(tally: Tally, definition: Definition, second: ImageLabels, first: ImageLabels) -> list[tuple[str, str]]:
    """Add one image to a tally; returns the pairs of classes on which the two differ."""
    tally.images += 1
    tally.same_verdict += second.verdict == first.verdict
    pairs = [(_class(definition, a), _class(definition, b)) for a, b in match(_standing(second), _standing(first))]
    tally.pairs.update(pairs)
    return [pair for pair in pairs if pair[0] != pair[1]]


def _class(definition: Definition, box: Box | None) -> str:
    if box is None:
        return NO_BOX
    entry = definition.current(box.category)
    return entry.name if entry else box.category


def _disagreement(
    image: str, reviewer: str, other: str, pairs: Iterable[tuple[str, str]], second: ImageLabels, first: ImageLabels
) -> dict[str, Any]:
    differing = list(pairs)
    boxes = max(len(_standing(second)), len(_standing(first)), len(differing), 1)
    if second.verdict != first.verdict:
        reason, score = f"reviewers disagree: {second.verdict} or {first.verdict}?", 1.0
    else:
        mine, theirs = differing[0]
        reason, score = f"reviewers disagree: {mine} or {theirs}?", len(differing) / boxes
    return {"image": image, "reviewer": reviewer, "other": other, "score": round(score, 4), "reason": reason}


def _row(definition: Definition, key: tuple[str, str, str], tally: Tally) -> dict[str, Any]:
    reviewer, other, kind = key
    per_class = {name: round(tally.f1(name), 4) for name in definition.class_names if any(name in pair for pair in tally.pairs)}
    return {
        "reviewer": reviewer, "other": other, "kind": kind, "images": tally.images, "f1": round(tally.f1(), 4),
        "kappa": round(tally.kappa(), 4), "same_verdict": round(tally.same_verdict / tally.images, 4), "per_class": per_class,
    }  # fmt: skip

"""A reviewer with known boxes and published times, for the demo and for benchmarks.

It goes through the same functions as a person's keys and buttons (:mod:`annotate.review.verdicts`). The times per box:
drawing 7 s (Papadopoulos et al., "Extreme clicking for efficient object annotation", ICCV 2017), looking at a proposal and
saying yes or no 1.6 s (Papadopoulos et al., "We don't need no bounding-boxes", CVPR 2016), correcting a proposal 4 s (our
assumption: between the two).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from annotate.boxes import iou_matrix
from annotate.journal import Journal, new_box_id
from annotate.review.verdicts import Desk, ShownBox, Xywh, accept, shown
from annotate.state import of_image
from collect.definition import AnnotatePolicy, Definition

#: A class name and `(x, y, w, h)` in pixels of the upright image.
Labelled: TypeAlias = tuple[str, Xywh]


@dataclass(frozen=True)
class Costs:
    """Seconds that each act on a box costs a person, and how exact that person is.

    A proposal of the right class that overlaps the truth by `keep_iou` is left as it is; one that does by `correct_iou` is
    corrected, any other thrown out. The study of the 1.6 s let boxes pass from .5 on, we ask for more.
    """

    draw_s: float = 7.0
    correct_s: float = 4.0
    verify_s: float = 1.6
    keep_iou: float = AnnotatePolicy.keep_iou
    correct_iou: float = 0.5


@dataclass(frozen=True)
class Truth:
    """An image (sha256, size in pixels) with its true boxes."""

    image: str
    width: int
    height: int
    boxes: tuple[Labelled, ...]


@dataclass(frozen=True)
class Effort:
    """What a review cost: acts by kind, images judged, and the seconds they take a person."""

    images: int = 0
    draws: int = 0
    corrections: int = 0
    accepts: int = 0
    deletions: int = 0
    seconds: float = 0.0

    def __add__(self, other: Effort) -> Effort:
        return Effort(
            self.images + other.images, self.draws + other.draws, self.corrections + other.corrections,
            self.accepts + other.accepts, self.deletions + other.deletions, self.seconds + other.seconds,
        )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What is done about the boxes seen on an image. `keeps` and `corrections` go from a seen box to its true one.

    `missing` are the true boxes to draw; what is seen and neither kept nor corrected is thrown out.
    """

    keeps: dict[int, int]
    corrections: dict[int, int]
    missing: tuple[int, ...]
    effort: Effort


def simulate(
    journal: Journal, definition: Definition, truths: Iterable[Truth], reviewer: str = "simulated", costs: Costs | None = None
) -> Effort:
    """Review every image of `truths` and accept it: keep good proposals, correct near ones, drop false ones, draw the rest.

    `costs` None = the published times, and boxes as exact as the definition's `keep_iou` asks.
    """
    desk = Desk(journal, definition, reviewer)
    total = Effort()
    for truth in truths:
        total += _review(desk, truth, costs or Costs(keep_iou=definition.annotate.keep_iou))
    return total


def _review(desk: Desk, truth: Truth, costs: Costs) -> Effort:
    before = shown(desk.definition, truth.image, (truth.width, truth.height), of_image(desk.journal, truth.image))
    todo = plan([(box.category, box.xywh) for box in before.boxes], truth.boxes, costs)
    boxes = [before.boxes[place] for place in todo.keeps]
    for place, row in todo.corrections.items():
        category, xywh = truth.boxes[row]
        boxes.append(replace(before.boxes[place], category=category, xywh=xywh))
    boxes += [ShownBox(new_box_id(), *truth.boxes[row]) for row in todo.missing]
    accept(desk, replace(before, boxes=tuple(boxes)), seconds=todo.effort.seconds)
    return todo.effort


def plan(seen: Sequence[Labelled], true: Sequence[Labelled], costs: Costs) -> Plan:
    """What to do about the boxes seen on one image, and what it costs: best overlap first, each true box used once.

    >>> plan([("owl", (0, 0, 9, 9))], [("owl", (0, 0, 9, 9)), ("owl", (20, 0, 9, 9))], Costs()).effort.seconds
    8.6
    """
    keeps, corrections = _match(seen, true, costs)
    found = {*keeps.values(), *corrections.values()}
    missing = tuple(row for row in range(len(true)) if row not in found)
    deletions = len(seen) - len(keeps) - len(corrections)
    seconds = costs.draw_s * len(missing) + costs.correct_s * len(corrections) + costs.verify_s * (len(keeps) + deletions)
    return Plan(keeps, corrections, missing, Effort(1, len(missing), len(corrections), len(keeps), deletions, seconds))


def _match(seen: Sequence[Labelled], true: Sequence[Labelled], costs: Costs) -> tuple[dict[int, int], dict[int, int]]:
    if not seen or not true:
        return {}, {}
    mine, theirs = (np.array([xywh for _, xywh in boxes], dtype=np.float64) for boxes in (seen, true))
    iou_NM = iou_matrix(mine, theirs)
    same_NM = np.array([category for category, _ in seen])[:, None] == np.array([category for category, _ in true])
    keeps = _greedy(np.where(same_NM, iou_NM, 0.0), costs.keep_iou)
    rest_NM = iou_NM.copy()
    rest_NM[list(keeps), :] = 0.0
    rest_NM[:, list(keeps.values())] = 0.0
    return keeps, _greedy(rest_NM, costs.correct_iou)


def _greedy(score_NM: np.ndarray[tuple[int, ...], np.dtype[np.float64]], least: float) -> dict[int, int]:
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for flat in np.argsort(-score_NM, axis=None, kind="stable").tolist():
        row, column = divmod(flat, score_NM.shape[1])
        if score_NM[row, column] < least:
            break
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return pairs

"""The state of all labels: a fold over the journal in which the last event for a box, or a verdict, wins."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from annotate.journal import Journal, Kind, Status, Verdict


@dataclass(slots=True)
class Box:
    """A box as the journal has it now. `xywh` in pixels of the upright image; `event` is the seq of its last event.

    `proposed_by` is the actor that brought it (a model or an import; "" for a box drawn by hand), `reviewed_by` the
    person who last touched it, "" where nobody did.
    """

    id: str
    status: str
    category: str
    x: float
    y: float
    w: float
    h: float
    score: float | None
    detail: str
    proposed_by: str
    reviewed_by: str
    reviewed_at: str
    event: int

    @property
    def xywh(self) -> tuple[float, float, float, float]:
        return self.x, self.y, self.w, self.h

    @property
    def details(self) -> dict[str, Any]:
        return dict(json.loads(self.detail)) if self.detail else {}


@dataclass(slots=True)
class ImageLabels:
    """What is said of one image: boxes by id (those that are gone included) and the last verdict."""

    boxes: dict[str, Box] = field(default_factory=dict)
    verdict: str = Verdict.PENDING
    reviewer: str = ""
    reviewed_at: str = ""
    verdict_event: int = 0

    def present(self) -> list[Box]:
        """The dataset's boxes, in the order in which they came."""
        return [box for box in self.boxes.values() if box.status == Status.PRESENT]

    def proposed(self) -> list[Box]:
        """Proposals nobody has decided on yet."""
        return [box for box in self.boxes.values() if box.status == Status.PROPOSED]


Labels = dict[str, ImageLabels]


def fold(rows: Iterable[tuple[Any, ...]], labels: Labels | None = None) -> Labels:
    """Fold raw journal rows (see :meth:`Journal.rows`) into a state; goes on from `labels` when given."""
    state: Labels = {} if labels is None else labels
    get_image = state.get
    # The database gives every row its own copy of the same few words; one of each is a third of the memory.
    once: dict[str, str] = {}
    same = once.setdefault
    for (
        seq,
        _uid,
        a_time,
        an_actor,
        kind,
        image,
        box_id,
        a_status,
        a_category,
        x,
        y,
        w,
        h,
        score,
        detail,
        _previous,
        _hash,
    ) in rows:
        status, category = same(a_status, a_status), same(a_category, a_category)
        actor, time = same(an_actor, an_actor), same(a_time, a_time)
        entry = get_image(image)
        if entry is None:
            entry = state[image] = ImageLabels()
        if not box_id:
            entry.verdict, entry.reviewer, entry.reviewed_at, entry.verdict_event = status, actor, time, seq
            if kind == Kind.UNDO and (told := json.loads(detail) if detail else {}).get("reviewed_by"):
                # What stands again was said then: whoever takes back a later verdict has not looked once more.
                entry.reviewer, entry.reviewed_at = told["reviewed_by"], told["reviewed_at"]
            continue
        box = entry.boxes.get(box_id)
        by_person = actor.startswith("reviewer:")
        if box is None:
            brought = "" if kind == Kind.DRAW else actor
            who, when = (actor, time) if by_person else ("", "")
            entry.boxes[box_id] = Box(box_id, status, category, x, y, w, h, score, detail, brought, who, when, seq)
            continue
        box.status, box.category, box.x, box.y, box.w, box.h = status, category, x, y, w, h
        box.detail, box.event = detail, seq
        if score is not None:
            box.score = score
        if kind == Kind.UNDO:
            told = json.loads(detail) if detail else {}
            box.reviewed_by, box.reviewed_at = told.get("reviewed_by", ""), told.get("reviewed_at", "")
        elif by_person:
            box.reviewed_by, box.reviewed_at = actor, time
    return state


def current(journal: Journal, *, until: int | None = None) -> Labels:
    """The state of all images now, or as it was after event `until`."""
    return fold(journal.rows(until=until))


def of_image(journal: Journal, image: str) -> ImageLabels:
    """The state of one image now; quick whatever the journal's size."""
    return fold(journal.rows(image=image)).get(image, ImageLabels())


def boxes_of_release(entry: ImageLabels, *, unreviewed: bool = False) -> Iterator[Box]:
    """The boxes that a release shows for an image: those present; with `unreviewed` also undecided proposals."""
    for box in entry.boxes.values():
        if box.status == Status.PRESENT or (unreviewed and box.status == Status.PROPOSED and entry.verdict == Verdict.PENDING):
            yield box

"""From what an import says to journal events: new boxes, and corrections of boxes that we once exported.

A label file that carries our box ids is a copy of a release that somebody worked on elsewhere, so it is merged three ways:
base (the release), theirs (the file), ours (the journal now). Only one side changed: that side counts. Both changed, and
differently: a conflict, which is listed, and ours stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from annotate.formats.format import Done, LabelledBox, LabelSet
from annotate.incoming import Incoming, same_box
from annotate.journal import Event, Kind, Status, Verdict, box_event, new_box_id, verdict_event
from annotate.state import Box, ImageLabels

XYWH = tuple[float, float, float, float]


@dataclass(frozen=True)
class Base:
    """The boxes of the release that a label file was exported from: image sha256 -> box id -> (category, xywh)."""

    boxes: dict[str, dict[str, tuple[str, XYWH]]] = field(default_factory=dict)


def events_of(incoming: Incoming, ours: ImageLabels, base: Base, actor: str, found: LabelSet, *, unreviewed: bool) -> Iterator[Event]:
    """The events that bring one image to what the import says; none where it says nothing new."""
    image = incoming.picture.sha256
    released = base.boxes.get(image, {})
    seen: set[str] = set()
    new = 0
    for theirs in incoming.boxes:
        mine = ours.boxes.get(theirs.box) if theirs.box and theirs.box not in seen else None
        if mine is not None:
            seen.add(mine.id)
            yield from _corrected(incoming, mine, theirs, released.get(mine.id), actor, found)
        elif not _is_there(theirs, ours, seen):
            new += 1
            box = new_box_id()
            yield box_event(Kind.IMPORT, actor, image, box, Status.PRESENT, theirs.category, theirs.xywh, theirs.score, **_details(theirs))
    if any(box.box for box in incoming.boxes) or released:
        for number in released.keys() - seen - {box.box for box in incoming.boxes}:
            yield from _deleted(incoming, ours.boxes.get(number), released[number], actor, found)
    if incoming.certain and not unreviewed and _wants_verdict(ours, bool(new)):
        yield verdict_event(actor, image, Verdict.ACCEPTED)


def _wants_verdict(ours: ImageLabels, brought: bool) -> bool:
    return ours.verdict == Verdict.PENDING or (ours.verdict == Verdict.NEEDS_BOXES and brought)


def _is_there(theirs: LabelledBox, ours: ImageLabels, seen: set[str]) -> bool:
    """Whether the journal has this box already, from an earlier import of the same; each of ours counts once."""
    for mine in ours.present():
        if mine.id not in seen and same_box(theirs, mine.category, mine.xywh):
            seen.add(mine.id)
            return True
    return False


def _corrected(
    incoming: Incoming, mine: Box, theirs: LabelledBox, base: tuple[str, XYWH] | None, actor: str, found: LabelSet
) -> Iterator[Event]:
    gone = mine.status == Status.GONE
    if not gone and same_box(theirs, mine.category, mine.xywh):
        return
    if base is not None and same_box(theirs, *base):
        return  # they left it as it was: whatever we did since stays
    ours_moved = gone or (base is not None and not _same(base, (mine.category, mine.xywh)))
    if ours_moved:
        word = f"box {mine.id} was {'deleted' if gone else 'changed'} here and changed there since the release; ours was kept"
        found.complain(incoming.label_file, incoming.id, word, Done.SKIPPED)
        return
    # What the file does not say about the box (its score, who proposed it) stays as it was.
    details = {**mine.details, **_details(theirs)}
    yield box_event(Kind.EDIT, actor, incoming.picture.sha256, mine.id, Status.PRESENT, theirs.category, theirs.xywh, mine.score, **details)


def _deleted(incoming: Incoming, mine: Box | None, base: tuple[str, XYWH], actor: str, found: LabelSet) -> Iterator[Event]:
    if mine is None or mine.status == Status.GONE:
        return
    if not _same(base, (mine.category, mine.xywh)):
        word = f"box {mine.id} was changed here and deleted there since the release; ours was kept"
        found.complain(incoming.label_file, incoming.id, word, Done.SKIPPED)
        return
    yield box_event(Kind.DELETE, actor, incoming.picture.sha256, mine.id, Status.GONE, mine.category, mine.xywh, mine.score, **mine.details)


def _same(one: tuple[str, XYWH], two: tuple[str, XYWH]) -> bool:
    return same_box(LabelledBox(one[0], *one[1]), *two)


def _details(box: LabelledBox) -> dict[str, Any]:
    return {
        "attributes": box.attributes or None,
        "iscrowd": 1 if box.iscrowd else None,
        "segmentation": box.segmentation or None,
        "area": box.area,
    }

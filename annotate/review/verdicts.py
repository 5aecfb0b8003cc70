"""What a reviewer can say about an image: plain functions over a journal.

Buttons, keys, the command line and the simulated reviewer all call these, and nothing else writes what a person said.
Boxes come as they stand in front of the person (:class:`Shown`); what changed is found by holding their ids against the
journal, and everything one call has to say is one append, durable when the call returns.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from annotate.boxes import clip_xywh
from annotate.journal import Event, Journal, Kind, Status, Verdict, box_event, new_box_id, verdict_event
from annotate.state import Box, ImageLabels, fold
from annotate.undo import inverse
from collect.definition import Definition
from collect.errors import UsageError

#: Boxes closer than this in every number are the same: relative coordinates and back cost some bits.
SAME_PX = 0.01
GUARD = "guard"
Xywh = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class ShownBox:
    """A box in front of a person: `xywh` in pixels of the upright image, `attributes` those that are switched on."""

    id: str
    category: str
    xywh: Xywh
    attributes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Shown:
    """An image (sha256, size in pixels, upright) with its boxes as they stand in front of a person.

    `prefilled` says that undecided proposals were among the boxes, so one that is missing now was thrown out.
    """

    image: str
    width: int
    height: int
    boxes: tuple[ShownBox, ...] = ()
    prefilled: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A box that did not get into the journal, and why."""

    box: str
    why: str


@dataclass(frozen=True)
class Outcome:
    """What a call did: the events as written, boxes it refused, and what the person should be told besides."""

    image: str
    verdict: str = ""
    events: tuple[Event, ...] = ()
    refused: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Events by kind."""
        return dict(Counter(event.kind for event in self.events))


@dataclass(frozen=True)
class Desk:
    """One reviewer at one journal.

    `since` is the event at which what the person sees was made: what others wrote later is not in front of them, so
    that its absence there is no deletion. None = the person sees the present state.
    """

    journal: Journal
    definition: Definition
    reviewer: str
    since: int | None = None
    own: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        if not self.reviewer.strip():
            raise UsageError("a reviewer needs a name; give one with --reviewer NAME")
        object.__setattr__(self, "own", frozenset({self.actor, GUARD}))

    @property
    def actor(self) -> str:
        return f"reviewer:{self.reviewer}"

    def seen(self, image: str) -> ImageLabels:
        """The state of an image as far as this person has seen it."""
        rows = self.journal.rows(image=image)
        if self.since is not None:
            since, own = self.since, self.own
            rows = (row for row in rows if row[0] <= since or row[3] in own)
        return fold(rows).get(image, ImageLabels())

    def others(self, image: str) -> list[str]:
        """Who else wrote about an image since this person's view of it was made."""
        if self.since is None:
            return []
        return sorted({event.actor for event in self.journal.events(image=image, after=self.since)} - self.own)


def offers_proposals(entry: ImageLabels) -> bool:
    """Whether a reviewer gets the image's undecided proposals as boxes.

    Yes until it is accepted, unless it has boxes that no person touched (imported ones), which they would only double.
    What a person drew or corrected before a restart stands beside the proposals that are still to be decided.
    """
    return entry.verdict != Verdict.ACCEPTED and bool(entry.proposed()) and all(box.reviewed_by for box in entry.present())


def shown(definition: Definition, image: str, size_wh: tuple[int, int], entry: ImageLabels) -> Shown:
    """What a person who opens the image gets to see."""
    prefilled = offers_proposals(entry)
    seen = tuple(ShownBox(box.id, box.category, box.xywh, attributes_of(definition, box)) for box in boxes_shown(entry))
    return Shown(image, *size_wh, seen, prefilled)


def boxes_shown(entry: ImageLabels) -> list[Box]:
    """The boxes in front of a person who opens the image, in the order in which they came."""
    wanted = {Status.PRESENT, Status.PROPOSED} if offers_proposals(entry) else {Status.PRESENT}
    return [box for box in entry.boxes.values() if box.status in wanted]


def attributes_of(definition: Definition, box: Box) -> frozenset[str]:
    """The attributes of the definition that are on; COCO's `iscrowd` is the attribute `crowd`."""
    if not box.detail:
        return frozenset()
    details = box.details
    names = {name for name, value in details.get("attributes", {}).items() if value is True}
    return frozenset((names | ({"crowd"} if details.get("iscrowd") else set())) & set(definition.annotate.attributes))


# The verdicts


def save(desk: Desk, now: Shown) -> Outcome:
    """Bring the journal up to the boxes as they stand; gives no verdict. What cannot be taken is refused, not raised."""
    events, refused = _changes(desk, now, desk.seen(now.image))
    return _done(desk, now.image, "", events, refused)


def accept(desk: Desk, now: Shown, *, seconds: float | None = None) -> Outcome:
    """The boxes as they stand are right: proposals among them become boxes, the image is accepted.

    `seconds` is the time from shown to verdict, where known.

    Raises:
        UsageError: a box has a class that the definition lacks; nothing is written.
    """
    before = desk.seen(now.image)
    events, refused = _changes(desk, now, before)
    for refusal in refused:
        if "no class" in refusal.why:
            raise UsageError(f"{refusal.why}; relabel that box, then accept again")
    touched = {event.box for event in events}
    for box in now.boxes:
        known = before.boxes.get(box.id)
        if known is not None and known.status == Status.PROPOSED and box.id not in touched:
            events.append(_restated(Kind.ACCEPT, desk.actor, now.image, known, Status.PRESENT))
    return _judged(desk, now.image, Verdict.ACCEPTED, events, refused, seconds)


def reject(desk: Desk, now: Shown, *, seconds: float | None = None) -> Outcome:
    """The image does not belong into the dataset. Its boxes stay as they are, in case of an undo."""
    events, refused = _changes(desk, now, desk.seen(now.image))
    return _judged(desk, now.image, Verdict.REJECTED, events, refused, seconds)


def needs_boxes(desk: Desk, now: Shown, *, seconds: float | None = None) -> Outcome:
    """Boxes are missing or wrong, and somebody else shall mend them: the image goes back."""
    events, refused = _changes(desk, now, desk.seen(now.image))
    return _judged(desk, now.image, Verdict.NEEDS_BOXES, events, refused, seconds)


def mark_negative(desk: Desk, now: Shown, *, seconds: float | None = None) -> Outcome:
    """Nothing of any class is on the image: all its boxes go, and it is accepted as a negative."""
    before = desk.seen(now.image)
    standing = [box for box in before.boxes.values() if box.status != Status.GONE]
    events = [_restated(Kind.DELETE, desk.actor, now.image, box, Status.GONE) for box in standing]
    return _judged(desk, now.image, Verdict.ACCEPTED, events, [], seconds)


def accept_above(desk: Desk, now: Shown, score: float) -> Outcome:
    """Proposals that score at least `score` become boxes; the image is accepted when none is left undecided."""
    before = desk.seen(now.image)
    events, refused = _changes(desk, now, before)
    touched = {event.box for event in events}
    undecided = [box for box in before.proposed() if box.id not in touched]
    sure = [box for box in undecided if (box.score or 0.0) >= score]
    events += [_restated(Kind.ACCEPT, desk.actor, now.image, box, Status.PRESENT) for box in sure]
    if sure and len(sure) == len(undecided):
        return _judged(desk, now.image, Verdict.ACCEPTED, events, refused, None)
    return _done(desk, now.image, "", events, refused)


def relabel_all(desk: Desk, now: Shown, category: str) -> Outcome:
    """Every box of the image gets one class.

    Raises:
        UsageError: the definition has no such class.
    """
    name = desk.definition.class_named(category).name
    return save(desk, replace(now, boxes=tuple(replace(box, category=name) for box in now.boxes)))


def draw(desk: Desk, now: Shown, category: str, xywh: Xywh, attributes: frozenset[str] = frozenset()) -> tuple[Outcome, Shown]:
    """Add a box; returns what was written and what is shown now.

    Raises:
        UsageError: no such class, or the box is a sliver or outside the image.
    """
    return _one(desk, now, ShownBox(new_box_id(), category, xywh, attributes))


def edit(desk: Desk, now: Shown, box_id: str, *, category: str | None = None, xywh: Xywh | None = None) -> tuple[Outcome, Shown]:
    """Move or relabel a box; returns what was written and what is shown now.

    Raises:
        UsageError: no such box or class, or the box would become a sliver.
    """
    old = next((box for box in now.boxes if box.id == box_id), None)
    if old is None:
        raise UsageError(f"image {now.image[:12]} shows no box {box_id}")
    return _one(desk, now, replace(old, category=category or old.category, xywh=xywh or old.xywh))


def delete(desk: Desk, now: Shown, box_id: str) -> tuple[Outcome, Shown]:
    """Take a box away; returns what was written and what is shown now."""
    after = replace(now, boxes=tuple(box for box in now.boxes if box.id != box_id))
    return save(desk, after), after


def undo(desk: Desk, image: str) -> Outcome:
    """Take back this reviewer's last verdict on an image, and the acceptances or deletions that were part of it.

    Raises:
        UsageError: there is none, or somebody else has judged the image since.
    """
    history = list(desk.journal.events(image=image))
    verdicts = [event for event in history if not event.box]
    last = verdicts[-1] if verdicts else None
    if last is None or last.kind != Kind.VERDICT:
        raise UsageError(f"there is no verdict on image {image[:12]} to undo")
    if last.actor != desk.actor:
        raise UsageError(f"{last.actor} has judged image {image[:12]} since; only they can undo it")
    parts = [event for event in history if event.box and event.actor == last.actor and event.time == last.time and event.seq < last.seq]
    count = last.details.get("boxes", 0)
    together = [*(parts[-count:] if count else []), last]
    latest = {event.box: event.seq for event in history}
    inverses = [
        inverse([earlier for earlier in history if earlier.box == event.box and earlier.seq < event.seq], [event], desk.actor)
        for event in reversed(together)
        if latest[event.box] == event.seq
    ]
    return _done(desk, image, inverses[0].status, inverses, [])


# What changed


def _changes(desk: Desk, now: Shown, before: ImageLabels) -> tuple[list[Event], list[Refusal]]:
    """The events that lead from what was seen to the boxes as they stand, in the order in which these are shown."""
    events: list[Event] = []
    refused: list[Refusal] = []
    for box in now.boxes:
        known = before.boxes.get(box.id)
        change = _change(desk, now, box, known)
        if isinstance(change, Refusal):
            refused.append(change)
        elif change is not None:
            events.append(change)
    standing = {Status.PRESENT, Status.PROPOSED} if now.prefilled else {Status.PRESENT}
    there = {box.id for box in now.boxes}
    gone = [box for box in before.boxes.values() if box.status in standing and box.id not in there]
    events += [_restated(Kind.DELETE, desk.actor, now.image, box, Status.GONE) for box in gone]
    return events, refused


def _change(desk: Desk, now: Shown, box: ShownBox, known: Box | None) -> Event | Refusal | None:
    """The event for one box: None where nothing changed, a refusal where it cannot be taken."""
    definition = desk.definition
    there = known is not None and known.status != Status.GONE
    if known is not None and there and _same(definition, box, box.xywh, known):
        return None
    entry = definition.current(box.category)
    if entry is None:
        return Refusal(box.id, f"{definition.name} has no class '{box.category}' (its classes: {', '.join(definition.class_names)})")
    xywh = clip_xywh(box.xywh, (now.width, now.height))
    if known is not None and there and _same(definition, box, xywh, known):
        return None
    smallest = definition.annotate.min_box_px
    if min(xywh[2:]) < max(smallest, SAME_PX):
        return Refusal(box.id, f"a {entry.name} box of {xywh[2]:.1f}×{xywh[3]:.1f} px inside the image is under {smallest:g} px; left out")
    kind = Kind.DRAW if known is None else (Kind.EDIT if there else Kind.RESTORE)
    detail = _detail(definition, box, known, xywh)
    return box_event(kind, desk.actor, now.image, box.id, Status.PRESENT, entry.name, xywh, **detail)


def _same(definition: Definition, box: ShownBox, xywh: Xywh, known: Box) -> bool:
    near = all(abs(a - b) < SAME_PX for a, b in zip(xywh, known.xywh, strict=True))
    return near and box.category == known.category and box.attributes == attributes_of(definition, known)


def _detail(definition: Definition, box: ShownBox, known: Box | None, xywh: Xywh) -> dict[str, Any]:
    """The box's further properties: attributes a person can switch, and all others as they were.

    A mask and its area fall away when the box was moved: they would no longer fit.
    """
    detail = known.details if known is not None else {}
    if known is not None and any(abs(a - b) >= SAME_PX for a, b in zip(xywh, known.xywh, strict=True)):
        detail = {key: value for key, value in detail.items() if key not in {"segmentation", "area"}}
    switches = set(definition.annotate.attributes)
    kept = {name: value for name, value in detail.get("attributes", {}).items() if name not in switches}
    attributes = kept | dict.fromkeys(sorted(box.attributes - {"crowd"}), True)
    crowd = 1 if "crowd" in box.attributes else (None if "crowd" in switches else detail.get("iscrowd"))
    return {**detail, "attributes": attributes or None, "iscrowd": crowd}


def _restated(kind: Kind, actor: str, image: str, box: Box, status: Status) -> Event:
    """An event that moves a box to another status and leaves the rest as it is."""
    return Event(kind, actor, image, box.id, status, box.category, *box.xywh, detail=box.detail)


def _one(desk: Desk, now: Shown, box: ShownBox) -> tuple[Outcome, Shown]:
    others = [other for other in now.boxes if other.id != box.id]
    place = next((n for n, other in enumerate(now.boxes) if other.id == box.id), len(others))
    after = replace(now, boxes=(*others[:place], box, *others[place:]))
    change = _change(desk, now, box, desk.seen(now.image).boxes.get(box.id))
    if isinstance(change, Refusal):
        raise UsageError(change.why)
    return save(desk, after), after


def _judged(desk: Desk, image: str, verdict: Verdict, events: list[Event], refused: list[Refusal], seconds: float | None) -> Outcome:
    timed = None if seconds is None else round(seconds, 2)
    # How many box events belong to this verdict: undo takes back exactly these.
    verdict_given = verdict_event(desk.actor, image, verdict, seconds=timed, boxes=len(events) or None)
    return _done(desk, image, verdict, [*events, verdict_given], refused)


def _done(desk: Desk, image: str, verdict: str, events: list[Event], refused: list[Refusal]) -> Outcome:
    written = desk.journal.append(events) if events else []
    notes = [f"{who} has changed this image too; both are kept, look at it again after a restart" for who in desk.others(image)]
    return Outcome(image, verdict, tuple(written), tuple(refused), tuple(notes))

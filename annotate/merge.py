"""Three-way merge of two journals that grew apart: two reviewers, two machines.

What both journals hold (the same event uids) is the base. Where only they touched a box or a verdict, their events are
appended to ours, with their author and time. Where both did and ended at the same state, likewise. Where both did and
disagree, that is a conflict: nothing is written for it and it is listed, until the person says whose word holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from annotate.journal import Event, Journal, Kind

Key = tuple[str, str]
Take = Literal["ours", "theirs", ""]


@dataclass(frozen=True)
class Conflict:
    """One box (or verdict, where `box` is "") on which both sides disagree; `base` is None where it is new to both."""

    image: str
    box: str
    base: Event | None
    ours: Event
    theirs: Event

    def to_json(self) -> dict[str, Any]:
        return {"image": self.image, "box": self.box} | {
            side: None if event is None else _spoken(event)
            for side, event in (("base", self.base), ("ours", self.ours), ("theirs", self.theirs))
        }


@dataclass(frozen=True)
class Merged:
    """What a merge did: events taken over, conflicts left open."""

    appended: int
    conflicts: tuple[Conflict, ...]


def merge(ours: Journal, theirs: Journal, *, take: Take = "", dry_run: bool = False) -> Merged:
    """Merge `theirs` into `ours`; merging again changes nothing.

    `take` settles conflicts: their events are taken over either way, and with "ours" our state is then written again.

    Raises:
        BusyError: another process wrote to ours meanwhile; nothing was merged.
    """
    head, _ = ours.head()
    shared = ours.uids() & theirs.uids()
    base, our_last, _ = _sides(ours.events(until=head), shared)
    _, their_last, their_new = _sides(theirs.events(), shared)
    conflicts, accepted, answers = [], [], []
    for key, events in their_new.items():
        mine, other = our_last.get(key), their_last[key]
        if mine is None or _same(mine, other):
            accepted += events
            continue
        conflict = Conflict(*key, base.get(key), mine, other)
        conflicts.append(conflict)
        if take:
            accepted += events
        if take == "ours":
            answers.append(replace(mine, kind=Kind.RESTORE if mine.box else Kind.VERDICT, uid="", time="", seq=0, previous=0, hash=b""))
    fresh = [*sorted(accepted, key=lambda event: event.seq), *answers]
    if fresh and not dry_run:
        ours.append((replace(event, seq=0, previous=0, hash=b"") for event in fresh), head=head)
    return Merged(len(fresh), () if take else tuple(conflicts))


def _sides(events: Iterable[Event], shared: set[str]) -> tuple[dict[Key, Event], dict[Key, Event], dict[Key, list[Event]]]:
    """The last shared event, the last own event, and all own events, by box."""
    base: dict[Key, Event] = {}
    last: dict[Key, Event] = {}
    own: dict[Key, list[Event]] = {}
    for event in events:
        key = (event.image, event.box)
        if event.uid in shared:
            base[key] = event
        else:
            last[key] = event
            own.setdefault(key, []).append(event)
    return base, last, own


def _same(one: Event, other: Event) -> bool:
    """Whether two events leave the same state. A box that is gone is gone, wherever it was."""
    if one.status != other.status:
        return False
    gone = one.box and one.status == "gone"
    return bool(gone) or (one.category, one.xywh, _meaning(one)) == (other.category, other.xywh, _meaning(other))


def _meaning(event: Event) -> dict[str, Any]:
    told = {"undoes", "reviewed_by", "reviewed_at", "seconds"}
    return {key: value for key, value in event.details.items() if key not in told} if event.box else {}


def _spoken(event: Event) -> dict[str, Any]:
    return {"actor": event.actor, "time": event.time, "status": event.status, "category": event.category, "bbox": list(event.xywh)}

"""Undo by appending: the inverse of label events, so that what was undone stays in the journal and can be undone itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from annotate.journal import Event, Journal, Kind, Status, Verdict

Wanted = Callable[[Event], bool]


@dataclass(frozen=True)
class Undone:
    """What an undo did: the inverse events written, and the events that later ones by others stand upon."""

    appended: tuple[Event, ...]
    superseded: tuple[Event, ...]


def undo(journal: Journal, wanted: Wanted, *, actor: str = "undo", images: Iterable[str] | None = None, dry_run: bool = False) -> Undone:
    """Append the inverse of all events that `wanted` picks.

    Per box (and per verdict) the last unbroken run of picked events is taken back to the state before it. A picked event
    that others built upon is left alone and reported.

    Raises:
        BusyError: another process wrote meanwhile; nothing was undone.
    """
    head, _ = journal.head()
    histories: dict[tuple[str, str], list[Event]] = {}
    scopes = [None] if images is None else list(images)
    for scope in scopes:
        for event in journal.events(image=scope, until=head):
            histories.setdefault((event.image, event.box), []).append(event)
    inverses, superseded = [], []
    for history in histories.values():
        keep = len(history)
        while keep and wanted(history[keep - 1]) and history[keep - 1].kind != Kind.UNDO:
            keep -= 1
        superseded += [event for event in history[:keep] if wanted(event) and event.kind != Kind.UNDO and not _undone(event, history)]
        if keep < len(history):
            inverses.append(inverse(history[:keep], history[keep:], actor))
    return Undone(tuple(inverses) if dry_run else tuple(journal.append(inverses, head=head)), tuple(superseded))


def _undone(event: Event, history: list[Event]) -> bool:
    return any(event.seq in later.details.get("undoes", ()) for later in history if later.kind == Kind.UNDO)


def inverse(kept: Sequence[Event], taken_back: Sequence[Event], actor: str) -> Event:
    """The event that takes back the last events of one box (or verdict): it writes the state at the end of `kept` again."""
    last = taken_back[-1]
    undoes = {"undoes": [event.seq for event in taken_back]}
    if not kept:
        status = Status.GONE if last.box else Verdict.PENDING
        state = replace(last, status=status, score=None, detail=json.dumps(undoes))
    else:
        by = next((event for event in reversed(kept) if event.actor.startswith("reviewer:")), None)
        reviewed = {"reviewed_by": by.actor if by else "", "reviewed_at": by.time if by else ""}
        earlier = {key: value for key, value in kept[-1].details.items() if key not in {"undoes", *reviewed}}
        state = replace(kept[-1], detail=json.dumps({**earlier, **undoes, **reviewed}, sort_keys=True))
    return replace(state, kind=Kind.UNDO, actor=actor, time="", uid="", seq=0, previous=0, hash=b"")

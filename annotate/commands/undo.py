"""`boxwright undo`: append the inverse of label events."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from typing import Any

from annotate.journal import Event, Journal
from annotate.undo import undo
from collect.console import Console
from collect.errors import UsageError


class UndoVerb:
    """Takes back what was said since a time or event, or by one reviewer."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a dataset")
        parser.add_argument(
            "--since", metavar="TIME|EVENT", help="a time such as 2026-11-22T14:00 (UTC), or an event's number; that one included"
        )
        parser.add_argument("--reviewer", metavar="R", help="only what this reviewer said")
        parser.add_argument("--actor", metavar="A", help="only what this actor said, such as import:coco or model:fcos")
        parser.add_argument("--image", metavar="SHA256", help="only this image; a prefix is enough")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        if not (arguments.since or arguments.reviewer or arguments.actor):
            raise UsageError("say what to undo: --since TIME|EVENT, --reviewer R or --actor A")
        dataset = console.workspace.dataset(arguments.name)
        actor = f"reviewer:{arguments.reviewer}" if arguments.reviewer else arguments.actor
        with Journal(dataset.labels) as journal:
            head, _ = journal.head()
            first = _first(arguments.since, head)

            def wanted(event: Event) -> bool:
                after = event.seq >= first if isinstance(first, int) else event.time >= first
                return after and (not actor or event.actor == actor) and event.image.startswith(arguments.image or "")

            if actor:
                _known(journal, actor)
            undone = undo(journal, wanted, dry_run=console.dry_run)
            if not console.dry_run:
                journal.seal()
        verb = "would undo" if console.dry_run else "undid"
        console.out(
            f"{verb} what stood in {len(undone.appended)} boxes and verdicts; {len(undone.superseded)} events have later ones upon them"
        )
        if undone.superseded:
            console.out("  those are left alone, for what was said later stands upon them; --json lists them")
        return {"undone": len(undone.appended), "superseded": [event.seq for event in undone.superseded]}


def _known(journal: Journal, actor: str) -> None:
    actors = sorted({event.actor for event in journal.events()})
    if actor not in actors:
        raise UsageError(f"'{actor}' said nothing in this journal; there are: {', '.join(actors) or 'none'}")


def _first(since: str | None, head: int) -> int | str:
    """The number of the first event, or the time as the journal writes it, with which it compares as text.

    Raises:
        UsageError: no such event, or no time. "14:00" would else come before every event, and all would be undone.
    """
    if since is None:
        return 1
    if not since.isdigit():
        try:
            told = datetime.fromisoformat(since)
        except ValueError:
            raise UsageError(f"--since {since}: neither an event's number nor a time such as 2026-11-22T14:00 (UTC)") from None
        return (told.astimezone(UTC) if told.tzinfo else told).strftime("%Y-%m-%dT%H:%M:%S.%f")
    if not 1 <= int(since) <= head:
        raise UsageError(f"there is no event {since}; the journal holds events 1 to {head}")
    return int(since)


UNDO = UndoVerb()

"""`boxwright undo`: append the inverse of label events."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
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

            undone = undo(journal, wanted, dry_run=console.dry_run)
            if not console.dry_run:
                journal.seal()
        verb = "would undo" if console.dry_run else "undid"
        console.out(
            f"{verb} what stood in {len(undone.appended)} boxes and verdicts; {len(undone.superseded)} events have later ones upon them"
        )
        return {"undone": len(undone.appended), "superseded": [event.seq for event in undone.superseded]}


def _first(since: str | None, head: int) -> int | str:
    if since is None:
        return 1
    if not since.isdigit():
        return since
    if not 1 <= int(since) <= head:
        raise UsageError(f"there is no event {since}; the journal holds events 1 to {head}")
    return int(since)


UNDO = UndoVerb()

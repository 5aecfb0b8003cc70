"""`boxwright merge`: merge the labels of another copy of a dataset, three ways."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from annotate.journal import Event, Journal, Status
from annotate.merge import Merged, merge
from collect import blobs
from collect.console import Console
from collect.errors import NotFoundError, RefusedError
from collect.ledger import Ledger
from collect.records import State
from collect.workspace import Dataset

_SHOWN = 20


class MergeVerb:
    """Takes over what the other copy has and this one lacks; real conflicts are listed, never guessed."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the dataset to merge into")
        parser.add_argument("other", help="the other copy: its folder, its labels.sqlite, or the name of a dataset here")
        parser.add_argument("--take", choices=("ours", "theirs"), default="", help="settle conflicts for one side")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        dataset = console.workspace.dataset(arguments.name)
        other = _other(arguments.other, console)
        with Journal(dataset.labels) as ours, Journal(other.labels) as theirs:
            images = 0 if console.dry_run else _take_images(dataset, other)
            merged = merge(ours, theirs, take=arguments.take, dry_run=console.dry_run)
            if not console.dry_run:
                ours.seal()
        result = {"events": merged.appended, "images": images, "conflicts": [conflict.to_json() for conflict in merged.conflicts]}
        if console.dry_run:
            console.out(f"would take over {merged.appended:,} events from {other.folder}, and the images that are only there")
        else:
            console.out(f"took over {merged.appended:,} events and {images:,} images from {other.folder}")
        if merged.conflicts:
            console.document(result)
            raise RefusedError(_conflicts(merged))
        return result


def _other(word: str, console: Console) -> Dataset:
    path = Path(word)
    folder = path.parent if path.name == "labels.sqlite" else path if (path / "labels.sqlite").is_file() else None
    if folder is None:
        if word not in console.workspace.dataset_names():
            raise NotFoundError(f"'{word}' is neither a folder with a labels.sqlite nor a dataset here")
        return console.workspace.dataset(word)
    if not (folder / "labels.sqlite").is_file():
        raise NotFoundError(f"there is no {folder / 'labels.sqlite'}")
    return Dataset(folder.name, folder, folder)


def _take_images(dataset: Dataset, other: Dataset) -> int:
    """Copy the images that only the other copy has, bytes first."""
    if not other.ledger.is_file():
        return 0
    with Ledger(dataset.ledger) as mine, Ledger(other.ledger) as theirs:
        known = {record.sha256 for record in mine.images(State.KEPT, State.QUARANTINED, State.REVOKED)}
        fresh = [record for record in theirs.images(State.KEPT, State.QUARANTINED, State.REVOKED) if record.sha256 not in known]
        for record in fresh:
            source = other.image_path(record.sha256, record.extension)
            blobs.store(dataset, record.sha256, record.extension, source.read_bytes())
        mine.add_images(fresh)
    return len(fresh)


def _conflicts(merged: Merged) -> str:
    lines = [
        f"  {c.image[:12]} {'box ' + c.box if c.box else 'verdict'}: was {_said(c.base)}; ours {_said(c.ours)}; theirs {_said(c.theirs)}"
        for c in merged.conflicts[:_SHOWN]
    ]
    lines += [f"  … and {len(merged.conflicts) - _SHOWN} more; --json lists them"] if len(merged.conflicts) > _SHOWN else []
    number = "1 conflict" if len(merged.conflicts) == 1 else f"{len(merged.conflicts)} conflicts"
    return (
        f"{number}; all else is merged. Settle them in a review and merge again, or take one side with --take ours|theirs:\n"
        + "\n".join(lines)
    )


def _said(event: Event | None) -> str:
    """What one side says of a box or an image, and who says it."""
    if event is None:
        return "not there"
    by = event.actor.removeprefix("reviewer:")
    if not event.box or event.status == Status.GONE:
        return f"{'deleted' if event.box else event.status} by {by}"
    x, y, w, h = event.xywh
    proposed = "proposed " if event.status == Status.PROPOSED else ""
    return f"{proposed}{event.category} {w:g}×{h:g} at {x:g},{y:g} by {by}"


MERGE = MergeVerb()

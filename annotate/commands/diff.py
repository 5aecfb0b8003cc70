"""`boxwright diff`: what changed between two releases."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from annotate import manifest
from annotate.coco import CocoFile
from annotate.contact_sheet import Mark, Tile, legend, page, sheet, table
from annotate.diff import BOX_KINDS, BoxChange, Diff, diff
from collect.console import Console
from collect.files import write_atomic
from collect.ledger import Ledger
from collect.records import State
from collect.workspace import Dataset

_MOST_TILES = 48
_OLD, _NEW = "#d9480f", "#2b8a3e"


class DiffVerb:
    """Counts, per class, and a contact sheet of what changed."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a dataset")
        parser.add_argument("old", help="a release, such as v001")
        parser.add_argument("new", help="a later release")
        parser.add_argument("--html", metavar="FILE", type=Path, help="also write a contact sheet of the changes")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        dataset = console.workspace.dataset(arguments.name)
        old, new = (CocoFile.open(manifest.labels(dataset.release_path(version))) for version in (arguments.old, arguments.new))
        with Ledger(dataset.ledger) as ledger:
            revoked = frozenset(record.sha256 for record in ledger.images(State.REVOKED))
        changes = diff(old, new, revoked, listed=console.as_json or arguments.html is not None)
        title = f"{dataset.name}: {arguments.old} → {arguments.new}"
        if changes.empty:
            console.out(f"{title}: nothing changed")
        else:
            console.table(("", "count"), [(_words(name), count) for name, count in changes.counts().items() if count], title=title)
        rows = _per_class(changes)
        if rows:
            console.table(("boxes of class", *map(_short, BOX_KINDS)), rows)
        result = {**changes.counts(), "per_class": changes.per_class(), "changes": _listing(changes)}
        if arguments.html and not console.dry_run:
            write_atomic(arguments.html, _html(dataset, title, changes, (old, new)))
            console.out(f"wrote {arguments.html}")
            result["html"] = str(arguments.html)
        return result


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _short(kind: str) -> str:
    return kind.partition("_")[2]


def _per_class(changes: Diff) -> list[tuple[object, ...]]:
    return [(name, *(counts.get(kind, 0) for kind in BOX_KINDS)) for name, counts in changes.per_class().items()]


def _listing(changes: Diff) -> dict[str, Any]:
    boxes = {kind: [_spoken(change, changes) for change in found] for kind, found in changes.boxes.items()}
    return {**changes.images, **boxes}


def _spoken(change: BoxChange, changes: Diff) -> dict[str, Any]:
    told: dict[str, Any] = {"image": change.sha256}
    for side, annotation in (("old", change.old), ("new", change.new)):
        if annotation:
            told[side] = {"id": annotation["id"], "bbox": annotation["bbox"], "category": changes.categories[annotation["category_id"]]}
    if change.old and change.new:
        told["iou"] = round(change.iou, 6)
    return told


def _html(dataset: Dataset, title: str, changes: Diff, files: tuple[CocoFile, CocoFile]) -> str:
    images = {image["sha256"]: image for file in files for image in file.images()}
    path_of = {sha256: dataset.images / image["file_name"] for sha256, image in images.items()}
    name_of = {sha256: image.get("original_name") or image.get("title") or sha256[:12] for sha256, image in images.items()}
    sections = [table(("what", "count"), [(_words(name), count) for name, count in changes.counts().items() if count])]
    rows = _per_class(changes)
    if rows:
        sections.append(table(("boxes of class", *map(_short, BOX_KINDS)), rows))
    if any(changes.boxes.values()):
        sections.append(legend({"before": _OLD, "after": _NEW}))
    for kind, found in changes.boxes.items():
        tiles = [
            Tile(path_of[sha256], f"{name_of[sha256]}: {_caption(group, changes)}", _marks(group, changes), close_up=True)
            for sha256, group in _by_image(found)[:_MOST_TILES]
        ]
        sections.append(sheet(_heading(_words(kind), len(found), len(_by_image(found))), tiles))
    for kind, shas in changes.images.items():
        tiles = [Tile(path_of[sha256], name_of[sha256]) for sha256 in shas[:_MOST_TILES]]
        sections.append(sheet(_heading(_words(kind), len(shas), len(shas)), tiles))
    return page(title, [section for section in sections if section])


def _heading(words: str, count: int, images: int) -> str:
    shown = f"; the first {_MOST_TILES} of {images} images" if images > _MOST_TILES else ""
    return f"{words.capitalize()} ({count}{shown})"


def _by_image(found: list[BoxChange]) -> list[tuple[str, list[BoxChange]]]:
    by_sha = attrgetter("sha256")
    return [(sha256, list(group)) for sha256, group in groupby(sorted(found, key=by_sha), by_sha)]


def _caption(group: list[BoxChange], changes: Diff) -> str:
    return "; ".join(dict.fromkeys(_said(change, changes) for change in group))


def _said(change: BoxChange, changes: Diff) -> str:
    names = [changes.categories[side["category_id"]] for side in (change.old, change.new) if side]
    moved = f", IoU {change.iou:.2f}" if change.old and change.new and change.old["bbox"] != change.new["bbox"] else ""
    return f"{' → '.join(dict.fromkeys(names))}{moved}"


def _marks(group: list[BoxChange], changes: Diff) -> tuple[Mark, ...]:
    """The old box and the new one, or only one where both are at the same place."""
    marks: list[Mark] = []
    for change in group:
        for side, colour in ((change.old, _OLD), (change.new, _NEW)):
            same_place = side is change.old and change.new is not None and side is not None and side["bbox"] == change.new["bbox"]
            if side and not same_place:
                marks.append(Mark(side["bbox"], colour, changes.categories[side["category_id"]]))
    return tuple(marks)


DIFF = DiffVerb()

"""`boxwright diff`: what changed between two releases."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from annotate.coco import Document, read_document
from annotate.contact_sheet import Mark, Tile, page, sheet, table
from annotate.diff import BoxChange, Diff, diff
from collect.console import Console
from collect.files import write_atomic
from collect.ledger import Ledger
from collect.records import State
from collect.workspace import Dataset

_KINDS = {
    "boxes_added": "Boxes added",
    "boxes_removed": "Boxes removed",
    "boxes_moved": "Boxes moved",
    "boxes_relabelled": "Boxes relabelled",
}
_MOST_TILES = 48


class DiffVerb:
    """Counts, per class, and a contact sheet of what changed."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a dataset")
        parser.add_argument("old", help="a release, such as v001")
        parser.add_argument("new", help="a later release")
        parser.add_argument("--html", metavar="FILE", type=Path, help="also write a contact sheet of the changes")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        dataset = console.workspace.dataset(arguments.name)
        old, new = (read_document(dataset.release_path(version) / "annotations.json") for version in (arguments.old, arguments.new))
        with Ledger(dataset.ledger) as ledger:
            revoked = frozenset(record.sha256 for record in ledger.images(State.REVOKED))
        changes = diff(old, new, revoked)
        title = f"{dataset.name}: {arguments.old} → {arguments.new}"
        console.table(("", "count"), [(name.replace("_", " "), count) for name, count in changes.counts().items()], title=title)
        rows = [(name, *(counts.get(kind, 0) for kind in _KINDS)) for name, counts in changes.per_class().items()]
        if rows:
            console.table(("class", "added", "removed", "moved", "relabelled"), rows)
        result = {**changes.counts(), "per_class": changes.per_class(), "changes": _listing(changes)}
        if arguments.html and not console.dry_run:
            write_atomic(arguments.html, _html(dataset, title, changes, (old, new)))
            console.out(f"wrote {arguments.html}")
            result["html"] = str(arguments.html)
        return result


def _listing(changes: Diff) -> dict[str, Any]:
    boxes = {kind: [_spoken(change, changes) for change in getattr(changes, kind)] for kind in _KINDS}
    images = {kind: getattr(changes, kind) for kind in ("images_added", "images_removed", "images_revoked", "images_moved")}
    return {**images, **boxes}


def _spoken(change: BoxChange, changes: Diff) -> dict[str, Any]:
    told: dict[str, Any] = {"image": change.sha256}
    for side, annotation in (("old", change.old), ("new", change.new)):
        if annotation:
            told[side] = {"id": annotation["id"], "bbox": annotation["bbox"], "category": changes.categories[annotation["category_id"]]}
    if change.old and change.new:
        told["iou"] = round(change.iou, 6)
    return told


def _html(dataset: Dataset, title: str, changes: Diff, documents: tuple[Document, Document]) -> str:
    path_of = {image["sha256"]: dataset.images / image["file_name"] for document in documents for image in document["images"]}
    sections = [table(("what", "count"), [(name.replace("_", " "), count) for name, count in changes.counts().items()])]
    for kind, heading in _KINDS.items():
        found: list[BoxChange] = getattr(changes, kind)
        tiles = [Tile(path_of[change.sha256], _caption(change, changes), _marks(change, changes)) for change in found[:_MOST_TILES]]
        sections.append(sheet(f"{heading} ({len(found)})", tiles))
    for heading, shas in (("Images added", changes.images_added), ("Images removed", changes.images_removed + changes.images_revoked)):
        sections.append(sheet(f"{heading} ({len(shas)})", [Tile(path_of[sha], sha[:12]) for sha in shas[:_MOST_TILES]]))
    return page(title, sections)


def _caption(change: BoxChange, changes: Diff) -> str:
    names = [changes.categories[side["category_id"]] for side in (change.old, change.new) if side]
    moved = f", IoU {change.iou:.2f}" if change.old and change.new else ""
    return f"{change.sha256[:12]}: {' → '.join(dict.fromkeys(names))}{moved}"


def _marks(change: BoxChange, changes: Diff) -> tuple[Mark, ...]:
    sides = ((change.old, "#d9480f", "old"), (change.new, "#2b8a3e", "new"))
    return tuple(Mark(a["bbox"], colour, f"{word}: {changes.categories[a['category_id']]}") for a, colour, word in sides if a)


DIFF = DiffVerb()

"""What changed between two releases: images by content, boxes by their id."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from annotate.boxes import iou_matrix
from annotate.coco import Document

Annotation = dict[str, Any]


@dataclass(frozen=True)
class BoxChange:
    """One box that differs. `old` or `new` is None where it was added or removed; `iou` compares old and new geometry."""

    sha256: str
    old: Annotation | None
    new: Annotation | None
    iou: float = 0.0


@dataclass
class Diff:
    """Everything that differs, images by sha256."""

    images_added: list[str] = field(default_factory=list)
    images_removed: list[str] = field(default_factory=list)
    images_revoked: list[str] = field(default_factory=list)
    images_moved: list[str] = field(default_factory=list)
    boxes_added: list[BoxChange] = field(default_factory=list)
    boxes_removed: list[BoxChange] = field(default_factory=list)
    boxes_moved: list[BoxChange] = field(default_factory=list)
    boxes_relabelled: list[BoxChange] = field(default_factory=list)
    categories: dict[int, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not any(value for name, value in vars(self).items() if name != "categories")

    def counts(self) -> dict[str, int]:
        return {name: len(value) for name, value in vars(self).items() if name != "categories"}

    def per_class(self) -> dict[str, dict[str, int]]:
        """`{class: {boxes_added: n, …}}`; a relabelled box counts under its new class."""
        table: dict[str, Counter[str]] = defaultdict(Counter)
        for kind in ("boxes_added", "boxes_removed", "boxes_moved", "boxes_relabelled"):
            for change in getattr(self, kind):
                annotation = change.new or change.old
                table[self.categories.get(annotation["category_id"], "?")][kind] += 1
        return {name: dict(counts) for name, counts in sorted(table.items())}


def diff(old: Document, new: Document, revoked: frozenset[str] = frozenset()) -> Diff:
    """Compare two COCO documents of releases; `revoked` are the sha256 of images withdrawn since."""
    result = Diff(categories={c["id"]: c["name"] for c in (*old["categories"], *new["categories"])})
    before = {image["sha256"]: image for image in old["images"]}
    after = {image["sha256"]: image for image in new["images"]}
    result.images_added = sorted(after.keys() - before.keys())
    gone = before.keys() - after.keys()
    result.images_revoked = sorted(gone & revoked)
    result.images_removed = sorted(gone - revoked)
    result.images_moved = sorted(sha for sha in before.keys() & after.keys() if before[sha].get("split") != after[sha].get("split"))
    old_boxes, new_boxes = _by_image(old), _by_image(new)
    for sha in sorted(before.keys() | after.keys()):
        _compare(result, sha, old_boxes.get(sha, []), new_boxes.get(sha, []))
    return result


def _by_image(document: Document) -> dict[str, list[Annotation]]:
    sha_of = {image["id"]: image["sha256"] for image in document["images"]}
    boxes: dict[str, list[Annotation]] = defaultdict(list)
    for annotation in document["annotations"]:
        boxes[sha_of[annotation["image_id"]]].append(annotation)
    return boxes


def _compare(result: Diff, sha: str, old: list[Annotation], new: list[Annotation]) -> None:
    if old == new:
        return
    pairs, only_old, only_new = _pair(old, new)
    result.boxes_removed += [BoxChange(sha, annotation, None) for annotation in only_old]
    result.boxes_added += [BoxChange(sha, None, annotation) for annotation in only_new]
    for a, b in pairs:
        overlap = 1.0 if a["bbox"] == b["bbox"] else float(iou_matrix(np.array([a["bbox"]]), np.array([b["bbox"]]))[0, 0])
        change = BoxChange(sha, a, b, overlap)
        if a["category_id"] != b["category_id"]:
            result.boxes_relabelled.append(change)
        if a["bbox"] != b["bbox"]:
            result.boxes_moved.append(change)


def _pair(old: list[Annotation], new: list[Annotation]) -> tuple[list[tuple[Annotation, Annotation]], list[Annotation], list[Annotation]]:
    by_id = {annotation.get("box") or f"#{annotation['id']}": annotation for annotation in new}
    pairs, only_old = [], []
    for annotation in old:
        other = by_id.pop(annotation.get("box") or f"#{annotation['id']}", None)
        if other is None:
            only_old.append(annotation)
        else:
            pairs.append((annotation, other))
    only_new = list(by_id.values())
    return pairs, only_old, only_new


def markdown(result: Diff, title: str, notes: list[str]) -> str:
    """changes.md: counts, the classes concerned, and notes such as images held out."""
    lines = [f"# {title}", ""]
    lines += [f"- {name.replace('_', ' ')}: {count}" for name, count in result.counts().items() if count] or ["- nothing changed"]
    table = result.per_class()
    if table:
        kinds = ["boxes_added", "boxes_removed", "boxes_moved", "boxes_relabelled"]
        lines += ["", "| class | added | removed | moved | relabelled |", "|---|---|---|---|---|"]
        lines += [f"| {name} | " + " | ".join(str(counts.get(kind, 0)) for kind in kinds) + " |" for name, counts in table.items()]
    if result.images_revoked:
        lines += ["", "Revoked, and so left out: " + ", ".join(f"`{sha[:12]}`" for sha in result.images_revoked)]
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"

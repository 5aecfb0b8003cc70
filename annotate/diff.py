"""What changed between two releases: images by content, boxes by their id, which a release never gives to another box."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from annotate.boxes import iou_matrix
from annotate.coco import CocoFile, Content, Entry

#: The kinds of changes of boxes and of images, in the order in which they are shown.
BOX_KINDS = ("boxes_added", "boxes_removed", "boxes_moved", "boxes_relabelled", "boxes_edited")
IMAGE_KINDS = ("images_added", "images_removed", "images_revoked", "images_moved", "images_recredited")
#: What makes a box another one besides its place and class.
_FACTS = ("iscrowd", "segmentation", "attributes", "area")
_CREDIT = ("author", "title", "source_url", "page_url")


@dataclass(frozen=True)
class BoxChange:
    """One box that differs. `old` or `new` is None where it was added or removed; `iou` compares old and new geometry."""

    sha256: str
    old: Entry | None
    new: Entry | None
    iou: float = 0.0


@dataclass
class Diff:
    """Everything that differs. `images` holds sha256s by kind; `boxes` changes by kind, empty where only the tally was asked for.

    `tally` counts the boxes by kind and class; a relabelled box counts under its new class.
    """

    images: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in IMAGE_KINDS})
    boxes: dict[str, list[BoxChange]] = field(default_factory=lambda: {kind: [] for kind in BOX_KINDS})
    tally: dict[str, Counter[int]] = field(default_factory=lambda: {kind: Counter() for kind in BOX_KINDS})
    categories: dict[int, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not any(self.counts().values())

    def counts(self) -> dict[str, int]:
        images = {kind: len(found) for kind, found in self.images.items()}
        return images | {kind: counter.total() for kind, counter in self.tally.items()}

    def per_class(self) -> dict[str, dict[str, int]]:
        """`{class: {boxes_added: n, …}}`."""
        table: dict[str, dict[str, int]] = defaultdict(dict)
        for kind, counter in self.tally.items():
            for category_id, count in counter.items():
                table[self.categories[category_id]][kind] = count
        return dict(sorted(table.items()))


def diff(old: Content, new: Content, revoked: frozenset[str] = frozenset(), *, listed: bool = True) -> Diff:
    """Compare two releases, both in the order of their ids; `revoked` are the sha256 of images withdrawn since.

    `listed=False` counts the boxes without keeping them.
    """
    result = Diff(categories={c["id"]: c["name"] for c in (*old.head["categories"], *new.head["categories"])})
    sha_of = _compare_images(result, old, new, revoked)
    for before, after in _unequal(old, new):
        for kind, change in _changes(before, after, sha_of):
            result.tally[kind][(change.new or change.old or {})["category_id"]] += 1
            if listed:
                result.boxes[kind].append(change)
    return result


def _unequal(old: Content, new: Content) -> Iterator[tuple[Entry | None, Entry | None]]:
    """The boxes side by side, from files without most of those that are equal: what a box says depends on its own line alone."""
    if not (isinstance(old, CocoFile) and isinstance(new, CocoFile)):
        yield from _paired(old.annotations(), new.annotations())
        return
    for before, after in old.unequal(new, "annotations"):
        yield from _paired(iter(before), iter(after))


def _compare_images(result: Diff, old: Content, new: Content, revoked: frozenset[str]) -> dict[int, str]:
    """Note what became of the images; returns the sha256 of every image id."""
    sha_of: dict[int, str] = {}
    facts: list[dict[str, tuple[str, tuple[object, ...]]]] = []
    for content in (old, new):
        licences = {licence["id"]: licence["name"] for licence in content.head.get("licenses", [])}
        known = {}
        for image in content.images():
            sha_of[image["id"]] = image["sha256"]
            credit = (licences.get(image.get("license")), *(image.get(key) for key in _CREDIT))
            known[image["sha256"]] = (image.get("split", ""), credit)
        facts.append(known)
    before, after = facts
    gone, both = before.keys() - after.keys(), before.keys() & after.keys()
    result.images |= {
        "images_added": sorted(after.keys() - before.keys()),
        "images_removed": sorted(gone - revoked),
        "images_revoked": sorted(gone & revoked),
        "images_moved": sorted(sha for sha in both if before[sha][0] != after[sha][0]),
        "images_recredited": sorted(sha for sha in both if before[sha][1] != after[sha][1]),
    }
    return sha_of


def _paired(old: Iterator[Entry], new: Iterator[Entry]) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Entries of the same id side by side, None where one side has none; both sides are sorted by id."""
    before, after = next(old, None), next(new, None)
    while before or after:
        if before is None or (after is not None and after["id"] < before["id"]):
            yield None, after
            after = next(new, None)
        elif after is None or before["id"] < after["id"]:
            yield before, None
            before = next(old, None)
        else:
            yield before, after
            before, after = next(old, None), next(new, None)


def _changes(old: Entry | None, new: Entry | None, sha_of: dict[int, str]) -> Iterator[tuple[str, BoxChange]]:
    if old is None or new is None:
        kind = "boxes_added" if old is None else "boxes_removed"
        yield kind, BoxChange(sha_of[(new or old or {})["image_id"]], old, new)
        return
    if old == new:  # most are, and this is much quicker than asking for each fact
        return
    kinds = []
    if old["category_id"] != new["category_id"]:
        kinds.append("boxes_relabelled")
    if old["bbox"] != new["bbox"]:
        kinds.append("boxes_moved")
    elif any(old.get(fact) != new.get(fact) for fact in _FACTS):
        kinds.append("boxes_edited")
    if kinds:
        overlap = 1.0 if old["bbox"] == new["bbox"] else float(iou_matrix(np.array([old["bbox"]]), np.array([new["bbox"]]))[0, 0])
        for kind in kinds:
            yield kind, BoxChange(sha_of[new["image_id"]], old, new, overlap)


def markdown(result: Diff, title: str, notes: list[str]) -> str:
    """changes.md: counts, the classes concerned, and notes such as images held out."""
    lines = [f"# {title}", ""]
    lines += [f"- {name.replace('_', ' ')}: {count}" for name, count in result.counts().items() if count] or ["- nothing changed"]
    table = result.per_class()
    if table:
        lines += [
            "",
            "| class | " + " | ".join(kind.removeprefix("boxes_") for kind in BOX_KINDS) + " |",
            "|---" * (len(BOX_KINDS) + 1) + "|",
        ]
        lines += [f"| {name} | " + " | ".join(str(counts.get(kind, 0)) for kind in BOX_KINDS) + " |" for name, counts in table.items()]
    if result.images["images_revoked"]:
        lines += ["", "Revoked, and so left out: " + ", ".join(f"`{sha[:12]}`" for sha in result.images["images_revoked"])]
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"

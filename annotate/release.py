"""A release: the journal folded at one point, with every licence, every box's origin, and splits that cannot leak.

Written into a hidden folder and renamed when complete, so a release is whole or not there. What a release contains:
images that a person accepted (or, where asked, all that have boxes or proposals), their boxes, and nothing whose licence
the definition does not allow.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from annotate import manifest, splits
from annotate.attribution import attribution
from annotate.coco import writing
from annotate.diff import Diff, diff, markdown
from annotate.document import Draft, draft
from annotate.free import just_freed
from annotate.journal import Journal, Verdict
from annotate.parent import Parent
from annotate.state import ImageLabels, Labels, boxes_of_release, current
from annotate.validate import Strict
from collect.clock import now
from collect.definition import Definition, ObjectClass
from collect.errors import RefusedError, UsageError
from collect.files import exclusive, fsync_folder, sha256_file, storage_errors, write_atomic
from collect.images.duplicates import clusters
from collect.ledger import Ledger
from collect.licenses import allows
from collect.records import ImageRecord, State
from collect.version import VERSION
from collect.workspace import Dataset

_NO_LABELS = ImageLabels()


@dataclass(frozen=True)
class Options:
    """`unreviewed` takes in pending images that have boxes or proposals; `dry_run` writes nothing."""

    unreviewed: bool = False
    dry_run: bool = False


@dataclass
class Release:
    """What a release holds. `left_out` counts images by reason; `version` is that of the parent when nothing changed.

    `images` counts by split, `boxes` by class and split, `sizes` boxes by size and split.
    """

    version: str
    path: Path
    changed: bool
    images: dict[str, int]
    boxes: dict[str, dict[str, int]]
    sizes: dict[str, dict[str, int]]
    assignment: splits.Assignment
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def num_images(self) -> int:
        return sum(self.images.values())

    @property
    def num_boxes(self) -> int:
        return sum(sum(counts.values()) for counts in self.boxes.values())


def make_release(
    dataset: Dataset, definition: Definition, options: Options = Options(), check: Callable[[Release], None] | None = None
) -> Release:
    """Write the next release of a dataset; where nothing changed since the last one, return that one.

    `check` sees the release before it is written; what it raises leaves nothing behind.

    Raises:
        UsageError: there is nothing to release; says what to do first.
        RefusedError: an image's licence is not allowed, an image's file is gone, or a class id was given to another class.
        BusyError: another release is being written.
    """
    with exclusive(dataset.locks / "release", f"write a release of {dataset.name}"), Ledger(dataset.ledger) as ledger:
        with Journal(dataset.labels) as journal:
            head, head_hash = journal.head()
            labels = current(journal, until=head)
            if not options.dry_run:
                journal.seal()
        parent = Parent.of(dataset)
        _check_categories(definition, parent)
        left_out: Counter[str] = Counter()
        records = _select(ledger, labels, options, left_out)
        _check_usable(dataset, definition, records)
        assignment = _split(records, labels, definition, parent, options)
        left_out["held out of a split, they would leak"] = len(assignment.held_out)
        records = [record for record in records if record.sha256 in assignment.split_of]
        ids = parent.ids()
        drawn = draft(definition, records, labels, assignment.split_of, ids, unreviewed=options.unreviewed)
        changes = _compared(dataset, parent, drawn, ledger)
        changed = not parent.version or not changes.empty or drawn.head["categories"] != parent.content.head["categories"]
        version = parent.following if changed else parent.version
        images, boxes = drawn.images_per_split(), drawn.boxes_per_class()
        release = Release(
            version, dataset.releases / version, changed, {split: images[split] for split in splits.SPLITS},
            {name: dict(counts) for name, counts in boxes.items()}, {size: dict(counts) for size, counts in drawn.boxes_per_size().items()},
            assignment, dict(+left_out), _notes(drawn, boxes, left_out, assignment),
        )  # fmt: skip
        release.notes += _empty_splits(images, definition, records) + _freed(records, parent)
        if check:
            check(release)
        if changed and not options.dry_run:
            about = _about(dataset, definition, release, parent, {"event": head, "hash": head_hash})
            about["next_image_id"], about["next_annotation_id"] = ids.images.following, ids.annotations.following
            about["images"] = {record.sha256: record.num_bytes for record in records}
            about["retired"] = parent.retired(drawn)
            texts = {
                "ATTRIBUTION.md": attribution(dataset.name, version, records),
                "changes.md": markdown(changes, f"{dataset.name} {version}: changes since {parent.version or 'nothing'}", release.notes),
            }
            _write(release, drawn, texts, about)
        return release


def _compared(dataset: Dataset, parent: Parent, drawn: Draft, ledger: Ledger) -> Diff:
    """What changed since the parent; everything in the draft is validated on the way."""
    revoked = frozenset(record.sha256 for record in ledger.images(State.REVOKED))
    strict = Strict(drawn, f"the next release of {dataset.name}")
    changes = diff(parent.content, strict, revoked, listed=False)
    strict.finish()
    return changes


def _check_categories(definition: Definition, parent: Parent) -> None:
    for category in parent.content.head["categories"]:
        for entry in definition.classes:
            if entry.id == category["id"] and category["name"] not in {entry.name, *entry.was}:
                raise RefusedError(
                    f"class id {entry.id} is '{category['name']}' in {parent.version} and '{entry.name}' in dataset.toml; ids are fixed for"
                    f" ever: give '{entry.name}' a new id, or add `was = [\"{category['name']}\"]` if it is the same class renamed"
                )


def _select(ledger: Ledger, labels: Labels, options: Options, left_out: Counter[str]) -> list[ImageRecord]:
    """The images a release may hold, by sha256."""
    chosen = []
    for record in ledger.images(State.KEPT):
        entry = labels.get(record.sha256, _NO_LABELS)
        pending = entry.verdict == Verdict.PENDING
        if entry.verdict == Verdict.ACCEPTED or (options.unreviewed and pending and any(boxes_of_release(entry, unreviewed=True))):
            chosen.append(record)
        else:
            left_out["not reviewed yet" if pending else entry.verdict.replace("_", " ")] += 1
    left_out["quarantined: licence unknown"] = ledger.num_images(State.QUARANTINED)
    left_out["revoked"] = ledger.num_images(State.REVOKED)
    if not chosen and not +left_out:
        raise UsageError("there is no image to release, the dataset is empty; `boxwright collect` or `boxwright import` brings some")
    if not chosen:
        raise UsageError(
            f"there is no reviewed image to release ({', '.join(f'{count} {why}' for why, count in (+left_out).items())})"
            "; review some with `boxwright review`, or take unreviewed boxes too with --allow-unreviewed"
        )
    return chosen


def _check_usable(dataset: Dataset, definition: Definition, records: list[ImageRecord]) -> None:
    bad = [record for record in records if not allows(definition.collect.licenses, record.licence.spdx)]
    if bad:
        raise RefusedError(
            f"{len(bad)} images carry a licence that [collect] licenses of dataset.toml does not allow; allow it, or reject them: "
            + _listed([f"{record.sha256[:12]} ({record.licence.spdx or 'unknown'})" for record in bad])
        )
    gone = [record for record in records if not _there(dataset, record)]
    if gone:
        raise RefusedError(
            f"the files of {len(gone)} images are missing or cut; restore them or reject the images: "
            + _listed([str(dataset.image_path(record.sha256, record.extension)) for record in gone])
        )


def _there(dataset: Dataset, record: ImageRecord) -> bool:
    try:
        return dataset.image_path(record.sha256, record.extension).stat().st_size == record.num_bytes
    except OSError:
        return False


def _listed(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _split(records: list[ImageRecord], labels: Labels, definition: Definition, parent: Parent, options: Options) -> splits.Assignment:
    class_of = cache(definition.current)
    signatures = [str(record.extra.get("signature", "")) for record in records]
    near = clusters([record.phash for record in records], signatures, definition.collect.near_duplicate_bits)
    members = [
        splits.Member(
            sha256=record.sha256,
            links=_links(record, near_cluster, definition),
            decided=("" if just_freed(record, parent) else parent.split_of.get(record.sha256)) or record.split,
            strata=_strata(labels.get(record.sha256, _NO_LABELS), class_of, options),
        )
        for record, near_cluster in zip(records, near, strict=True)
    ]
    return splits.assign(members, definition.split)


def _links(record: ImageRecord, near_cluster: int, definition: Definition) -> tuple[Hashable, ...]:
    links: list[Hashable] = [("near", int(near_cluster))]
    if record.page_url:
        links.append(("page", record.page_url))
    if record.group:
        links.append(("group", record.group))
    if "author" in definition.split.group_by and record.licence.creator:
        links.append(("author", record.licence.creator.lower()))
    if "domain" in definition.split.group_by and record.domain:
        links.append(("domain", record.domain))
    return tuple(links)


def _strata(labels: ImageLabels, class_of: Callable[[str], ObjectClass | None], options: Options) -> dict[Hashable, int]:
    strata: Counter[Hashable] = Counter()
    for box in boxes_of_release(labels, unreviewed=options.unreviewed):
        category = class_of(box.category)
        if category:
            strata[category.name, splits.size_name(box.w * box.h)] += 1
    return dict(strata) or {("", ""): 1}


def _empty_splits(images: Counter[str], definition: Definition, records: Sequence[ImageRecord]) -> list[str]:
    shares = {"train": definition.split.train, "val": definition.split.val, "test": definition.split.test}
    kept = f"images keep the split that they were imported with, until `boxwright splits {definition.name} --free SPLIT`"
    why = kept if any(record.split for record in records) else "there are too few images"
    return [
        f"{split} has no image, though [split] gives it {shares[split]:.0%}: {why}"
        for split in shares
        if shares[split] and not images[split]
    ]


def _notes(drawn: Draft, boxes: dict[str, Counter[str]], left_out: Counter[str], assignment: splits.Assignment) -> list[str]:
    notes = [f"left out: {count} image{'s' * (count != 1)}, {why}" for why, count in (+left_out).items()]
    notes += [
        f"left out: {count} box{'es' * (count != 1)} of class '{name}', which dataset.toml does not have; if it was renamed, "
        f'write `was = ["{name}"]` into the [[class]] it became'
        for name, count in sorted(drawn.unknown.items())
    ]
    notes += [f"held out `{sha[:12]}`: {why}" for sha, why in sorted(assignment.held_out.items())]
    notes += [f"class '{name}' has no box in this release" for name, counts in boxes.items() if not counts]
    return notes


def _freed(records: Sequence[ImageRecord], parent: Parent) -> list[str]:
    count = sum(just_freed(record, parent) for record in records)
    return (
        [f"{count} images were freed of the split that they had: numbers of releases up to {parent.version} do not compare"]
        if count
        else []
    )


def _about(dataset: Dataset, definition: Definition, release: Release, parent: Parent, journal: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "version": release.version,
        "parent": {"version": parent.version, "sha256": parent.about["sha256"]} if parent.version else None,
        "created_at": now(),
        "tool": f"boxwright {VERSION}",
        "journal": journal,
        "definition_sha256": sha256_file(dataset.definition),
        "split_policy": asdict(definition.split),
        "counts": {"images": release.num_images, "annotations": release.num_boxes, "splits": release.images},
    }


def _write(release: Release, drawn: Draft, texts: dict[str, str], about: dict[str, Any]) -> None:
    folder = release.path.with_name(f".{release.version}.{os.getpid()}.tmp")
    with storage_errors():
        for left in release.path.parent.glob(".v*.tmp"):  # by a release that was killed
            shutil.rmtree(left, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        _write_coco(folder, drawn, release.version)
        for name, text in texts.items():
            write_atomic(folder / name, text)
        manifest.write(folder, about)
        with storage_errors():
            folder.rename(release.path)
            fsync_folder(release.path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_coco(folder: Path, drawn: Draft, version: str) -> None:
    """annotations.json and its cuts by split, all in one pass."""
    head = {**drawn.head, "info": {**drawn.head["info"], "version": version}}
    split_of = {number: split for number, _, split in drawn.rows}
    with ExitStack() as stack:
        whole, *parts = (stack.enter_context(writing(folder / f"{name}.json", head)) for name in ("annotations", *splits.SPLITS))
        part_of = dict(zip(splits.SPLITS, parts, strict=True))
        for image in drawn.images():
            line = orjson.dumps(image)
            whole.image(line)
            part_of[image["split"]].image(line)
        for annotation in drawn.annotations():
            line = orjson.dumps(annotation)
            whole.annotation(line)
            part_of[split_of[annotation["image_id"]]].annotation(line)

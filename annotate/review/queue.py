"""Which images a reviewer sees, in which order, and why: cards for the App.

Order: the file `queue.json` of the dataset (written by `boxwright queue`: a list of `{image, score, reason}`) with the
suspects of `audit.json` (`{image, box, kind, score}`), the pairs of `lookalikes.json` and pictures of flagged quality mixed in
by score; then what nobody looked at; judged images last. Near-duplicates, and images that look alike, stand side by side.
Shares: every image belongs to one reviewer, and a share of `[annotate] overlap` to a second one besides, by rendezvous hashing,
so that a new reviewer takes over some images of each and moves no other. Own images come first; those of others follow, so that
nothing waits for somebody who left.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotate.coco import read
from annotate.journal import Event, Journal, Kind, Verdict
from annotate.review import lookalikes
from annotate.review.agreement import gold_images
from annotate.review.dataset import Card, Mark
from annotate.review.reasons import Why, all_whys, asks_again, standing
from annotate.review.session import GOLD, OWN, SECOND, opinions_path
from annotate.state import ImageLabels, Labels, current
from collect.clock import now
from collect.definition import Definition
from collect.errors import CorruptError, NotFoundError
from collect.files import exclusive, write_atomic
from collect.images.duplicates import clusters
from collect.ledger import Ledger
from collect.records import ImageRecord
from collect.workspace import Dataset, Workspace

OTHERS = "others"


def cards(
    workspace: Workspace, dataset: Dataset, definition: Definition, journal: Journal, reviewer: str, run: str | None = None
) -> list[Card]:
    """All images of a dataset as `reviewer` is to see them, in order."""
    with Ledger(dataset.ledger) as ledger:
        records = list(ledger.images())
    labels = current(journal)
    parts = assign(dataset, definition, reviewer, records, labels)
    found, suspects = wanted(dataset, labels)
    pairs = lookalikes.among(lookalikes.read(dataset), {record.sha256 for record in records})
    whys = all_whys(found, pairs, records, definition.collect)
    detections = detections_of(workspace, dataset, run) if run else {}
    for image, errors in _errors(detections).items():
        whys.setdefault(image, []).append(Why(len(errors), f"{run}: {', '.join(sorted(errors))}"))  # said where nothing else is
    empty = ImageLabels()

    def entry_of(image: str) -> ImageLabels:
        return labels.get(image, empty)

    reasons = {image: why for image, each in whys.items() if (why := standing(each, entry_of))}
    shown = _opinions(dataset, journal, reviewer, [image for image, part in parts.items() if part in {SECOND, GOLD}])
    undecided = [pair for pair in pairs if not lookalikes.settled(pair, entry_of)]
    twins = lookalikes.joined(duplicate_groups(records, definition.collect.near_duplicate_bits), undecided)
    made = [
        Card(
            record,
            shown.get(record.sha256) or entry_of(record.sha256),
            dataset.image_path(record.sha256, record.extension),
            reasons[record.sha256].reason if record.sha256 in reasons else "",
            parts[record.sha256],
            twins.get(record.sha256, ""),
            tuple(suspects.get(record.sha256, ())),
            tuple(detections.get(record.sha256, ())),
            parts[record.sha256] not in {SECOND, GOLD} and asks_again(entry_of(record.sha256), reasons.get(record.sha256)),
            tuple(whys.get(record.sha256, ())),
        )
        for record in records
    ]
    return _side_by_side(sorted(made, key=lambda card: _key(card, reasons, f"reviewer:{reviewer}")))


def _key(card: Card, reasons: dict[str, Why], me: str) -> tuple[bool, bool, float, str]:
    """Sort key: waiting before judged, mine before others', wanted by score, then by hash (which is at random)."""
    why = reasons.get(card.record.sha256)
    verdict = card.labels.verdict
    sent_back = verdict == Verdict.NEEDS_BOXES and card.labels.reviewer != me  # somebody else mends what one sent back
    waiting = verdict == Verdict.PENDING or sent_back or card.again
    return not waiting, card.part == OTHERS, -(why.score if why else -1.0), card.record.sha256


def _side_by_side(made: list[Card]) -> list[Card]:
    """Move near-duplicates up behind the first of their group, among images of the same standing."""
    groups: dict[tuple[str, bool], list[Card]] = {}
    for card in made:
        if card.duplicates:
            groups.setdefault(_group(card), []).append(card)
    placed: list[Card] = []
    for card in made:
        if not card.duplicates:
            placed.append(card)
        elif groups[_group(card)]:
            placed += groups[_group(card)]
            groups[_group(card)] = []
    return placed


def _group(card: Card) -> tuple[str, bool]:
    return card.duplicates, card.labels.verdict == Verdict.PENDING or card.again


# Shares


def reviewers(dataset: Dataset, joining: str) -> list[str]:
    """All who ever reviewed this dataset, `joining` included, who is noted down."""
    path = dataset.folder / "reviewers.json"
    with exclusive(dataset.locks / "reviewers.lock", "note down a reviewer"):
        known: dict[str, str] = _read(path, {})
        if joining not in known:
            known[joining] = now()
            write_atomic(path, json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    return sorted(known)


def assign(dataset: Dataset, definition: Definition, reviewer: str, records: Sequence[ImageRecord], labels: Labels) -> dict[str, str]:
    """For each image what it is to `reviewer`: their own, a second opinion, gold, or others'."""
    everyone = reviewers(dataset, reviewer)
    gold = gold_images(definition)
    parts: dict[str, str] = {}
    for record in records:
        entry = labels.get(record.sha256)
        decided = entry is not None and entry.verdict in {Verdict.ACCEPTED, Verdict.REJECTED}
        mine = entry is not None and entry.reviewer == f"reviewer:{reviewer}"
        if record.sha256 in gold and decided and not mine:
            parts[record.sha256] = GOLD
        else:
            parts[record.sha256] = part_of(record.sha256, reviewer, everyone, definition.annotate.overlap)
            if parts[record.sha256] == SECOND and mine:
                parts[record.sha256] = OWN  # they judged it when they were alone
    return parts


def part_of(image: str, reviewer: str, everyone: Sequence[str], overlap: float) -> str:
    """Whose an image is by rendezvous hashing: the highest weight owns it, the second may be asked too.

    >>> [part_of("ab", name, ["ann", "bob"], 0.0) for name in ("ann", "bob")]
    ['own', 'others']
    """
    ranked = sorted(everyone, key=lambda name: _weight(image, name), reverse=True)
    if ranked[0] == reviewer:
        return OWN
    twice = _weight(image, "") < overlap * 2**64
    return SECOND if twice and ranked[1] == reviewer else OTHERS


def _weight(image: str, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{image}\0{name}".encode()).digest()[:8], "big")


def _opinions(dataset: Dataset, main: Journal, reviewer: str, images: Sequence[str]) -> Labels:
    """The state of images shown for a second opinion: what models proposed, and nothing of what others made of it."""
    if not images:
        return {}
    with Journal(opinions_path(dataset, reviewer)) as journal:
        known = current(journal)
        fresh = [
            _plain(event) for image in images if image not in known for event in main.events(image=image) if event.kind == Kind.PROPOSE
        ]
        if fresh:
            journal.append(fresh)
        state = current(journal)
    return {image: state.get(image, ImageLabels()) for image in images}


def _plain(event: Event) -> Event:
    """A proposal's event without its place in the other journal."""
    return replace(event, uid="", time="", seq=0, previous=0, hash=b"")


# Reasons


def wanted(dataset: Dataset, labels: Labels) -> tuple[dict[str, Why], dict[str, list[Mark]]]:
    """Reasons by image from `queue.json` and `audit.json`, and the suspect boxes to mark.

    Raises:
        CorruptError: one of the files is not what `boxwright queue` or `boxwright audit` writes.
    """
    reasons: dict[str, Why] = {}
    marks: dict[str, list[Mark]] = {}
    try:
        for row in _rows(dataset, "queue.json"):
            reasons[row["image"]] = Why(float(row["score"]), str(row["reason"]), str(row.get("at", "")))
        suspects = _rows(dataset, "audit.json")
        audited_at = written_at(dataset.folder / "audit.json") if suspects else ""
        for row in suspects:
            _suspect(row, audited_at, labels, reasons, marks)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"queue.json or audit.json of {dataset.name} is not as Boxwright writes it ({error!r}); make it anew") from error
    return reasons, marks


def _suspect(row: dict[str, Any], at: str, labels: Labels, reasons: dict[str, Why], marks: dict[str, list[Mark]]) -> None:
    image, kind, score = row["image"], str(row["kind"]), float(row["score"])
    entry = labels.get(image)
    box = entry.boxes.get(row.get("box") or "") if entry else None
    xywh = box.xywh if box is not None else tuple(row["bbox"]) if row.get("bbox") else None
    guess = str(row.get("category") or (box.category if box else ""))
    if box is not None and row.get("category") and row["category"] != box.category:
        reason = f"model disagrees: {row['category']}?"
    else:
        reason = f"suspect: {kind.replace('_', ' ')}"
    if image not in reasons or reasons[image].score < score:
        reasons[image] = Why(score, reason, at)
    if xywh is not None:
        x, y, w, h = (float(value) for value in xywh)
        marks.setdefault(image, []).append(Mark(f"{kind.replace('_', ' ')} {guess}".strip() + "?", (x, y, w, h), score))


def written_at(path: Path) -> str:
    """When a file was last written, as :func:`collect.clock.now` puts it."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rows(dataset: Dataset, name: str) -> list[dict[str, Any]]:
    """The list in a file of the dataset, bare or under `items`, `queue` or `suspects`; [] when there is no file."""
    document = _read(dataset.folder / name, [])
    if isinstance(document, dict):
        document = next((document[key] for key in ("items", "queue", "suspects") if key in document), [])
    return list(document)


def _read(path: Path, missing: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return missing
    except ValueError as error:
        raise CorruptError(f"{path} is not valid JSON: {error}; delete it or write it anew") from error


# Things to look at


def detections_of(workspace: Workspace, dataset: Dataset, run: str) -> dict[str, list[Mark]]:
    """What a run found on the split it was judged on, by image sha256: what is right by its class, errors by their kind.

    Raises:
        NotFoundError: no such run, or one that was never judged.
    """
    folder = workspace.run_path(run, dataset.name)
    path = next((path for split in ("test", "val", "train") if (path := folder / f"errors-{split}.json").is_file()), None)
    if path is None:
        raise NotFoundError(f"{run} was never judged; `boxwright evaluate {run} --report` does it")
    known = set(read(dataset.release_path(_read(folder / "config.json", {})["release"]) / "annotations.json").sha256_I)
    found: dict[str, list[Mark]] = {}
    for row in _read(path, []):
        if row["image"] in known:
            x, y, w, h = (float(value) for value in row["box"])
            label = row["category"] if row["kind"] == "right" else f"{row['kind']}: {row['category']}"
            found.setdefault(row["image"], []).append(Mark(label, (x, y, w, h), row["score"]))
    return found


def _errors(detections: dict[str, list[Mark]]) -> dict[str, list[str]]:
    """The kinds of error that a run made, by image."""
    kinds = {image: [mark.label.partition(": ")[0] for mark in marks if ": " in mark.label] for image, marks in detections.items()}
    return {image: found for image, found in kinds.items() if found}


def duplicate_groups(records: Sequence[ImageRecord], bits: int) -> dict[str, str]:
    """Images that are near-duplicates of another one, as sha256 -> name of the group."""
    known = [record for record in records if record.phash and record.phash.strip("0")]
    signatures = [str(record.extra.get("signature", "")) for record in known]
    labels = clusters([record.phash for record in known], signatures, bits)
    sizes = Counter(labels)
    first: dict[int, str] = {}
    for record, label in zip(known, labels, strict=True):
        first.setdefault(label, record.sha256[:8])
    return {record.sha256: first[label] for record, label in zip(known, labels, strict=True) if sizes[label] > 1}


def put_first(dataset: Dataset, rows: Sequence[dict[str, Any]]) -> int:
    """Put images (`image`, `score` in [0, 1], `reason`) at the head of `queue.json`; returns how many."""
    images = {row["image"] for row in rows}
    rest = [row for row in _rows(dataset, "queue.json") if row["image"] not in images]
    top = max((float(row["score"]) for row in rest), default=0.0)
    at = now()
    first = [{"image": row["image"], "score": round(top + 1.0 + row["score"], 4), "reason": row["reason"], "at": at} for row in rows]
    write_atomic(dataset.folder / "queue.json", json.dumps(first + rest, indent=1, ensure_ascii=False) + "\n")
    return len(first)

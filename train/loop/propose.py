"""Proposals: a model's boxes go into the journal as undecided, for a person to accept, correct or throw out.

Only images that nobody has accepted or rejected get proposals. Proposing again replaces what the same model proposed
before and nobody has decided on; a box that a person drew, accepted, edited or threw out is never touched, and never
proposed a second time.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from annotate.boxes import clip_xywh, iou_matrix
from annotate.journal import Event, Journal, Kind, Status, Verdict, box_event, new_box_id
from annotate.state import Box, ImageLabels, current, of_image
from collect.definition import Definition
from collect.errors import UsageError, unknown_name
from collect.records import ImageRecord
from collect.workspace import Dataset, Workspace
from train.data.cache import UnreadableError, decode
from train.serving.suppression import CLASS_OVERLAP, surest

#: Boxes of one class that overlap more than this are one object seen twice (twins, synonyms, tiles). Of the 8,063 true boxes
#: of raccoon, bccd and facemask-coco 25 overlap another of their class so far, so what is merged wrongly is rare.
SAME_CLASS_IOU = 0.5
#: A proposal this close to a box that a person has spoken of says nothing new.
SAID_IOU = 0.7
#: Narrower boxes, once clipped to the picture, are none.
LEAST_SIDE_PX = 1.0

Xywh = tuple[float, float, float, float]


@dataclass(frozen=True)
class Found:
    """One box that a model proposes: a class name of the definition, xywh pixels of the upright image, a score in [0, 1]."""

    category: str
    xywh: Xywh
    score: float
    prompt: str = ""


class Proposer(Protocol):
    """A model at work on proposals.

    Attributes:
        name: what the journal calls it: the actor is `model:<name>`.
        weights_sha256: of the weights file, "" where there is none.
        threshold: scores below it are not proposed.
        reason: why that threshold, where it was worked out; else "".
    """

    @property
    def name(self) -> str: ...

    @property
    def weights_sha256(self) -> str: ...

    @property
    def threshold(self) -> float: ...

    @property
    def reason(self) -> str: ...

    def propose(self, image_HW3: NDArray[np.uint8], record: ImageRecord) -> list[Found]:
        """Boxes in an upright RGB picture, in any order; near-equal ones are merged by the caller."""


@dataclass(frozen=True)
class Request:
    """What was asked for. `threshold` None = the proposer's own; `category` = only this class, or that of all faces.

    `tiles` asks for a look at overlapping tiles too; the face detector always does that. Of boxes of different classes that
    overlap by more than `class_overlap` only the surest is proposed.
    """

    workspace: Workspace
    dataset: Dataset
    definition: Definition
    model: str = ""
    weights: str = ""
    threshold: float | None = None
    category: str = ""
    device: str = ""
    tiles: bool = False
    class_overlap: float = CLASS_OVERLAP


class Open(Protocol):
    """What the table names: makes a proposer ready, or raises a `MissingServiceError` that says what is absent."""

    def __call__(self, request: Request) -> Proposer: ...


#: The part of `--from` before the colon -> who opens it.
PROPOSERS: dict[str, str] = {
    "opencv-face": "train.loop.proposers:open_face",
    "sources": "train.loop.brought:open_brought",
    "run": "train.loop.proposers:open_run",
    "zero-shot": "train.loop.zero_shot:open_zero_shot",
}
#: Those that need no name behind a colon.
_NAMELESS = {"opencv-face", "sources"}


@dataclass
class Tally:
    """What proposing did: images looked at, proposals written, earlier ones replaced, pictures that could not be read."""

    images: int = 0
    proposals: int = 0
    replaced: int = 0
    by_class: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)


def named(source: str, request: Request) -> tuple[str, str]:
    """The kind and the model that `--from` names: `opencv-face`, `sources`, `run:RUN` or `zero-shot:MODEL`; nothing is loaded.

    Raises:
        UsageError: no such proposer.
        NotFoundError: no such run.
    """
    kind, _, model = source.partition(":")
    if kind not in PROPOSERS:
        raise unknown_name("proposer", kind, PROPOSERS)
    if kind not in _NAMELESS and not model:
        raise UsageError(f"--from {kind} needs a name behind a colon, such as --from {kind}:NAME")
    if kind == "run":
        request.workspace.run_path(model, request.dataset.name)
    return kind, model


def open_proposer(source: str, request: Request) -> Proposer:
    """The proposer that `--from` names.

    Raises:
        UsageError, NotFoundError: see :func:`named`.
        MissingServiceError: its weights or a package it needs are absent.
    """
    kind, model = named(source, request)
    module, _, attribute = PROPOSERS[kind].partition(":")
    opener = cast("Open", getattr(importlib.import_module(module), attribute))
    return opener(replace(request, model=model))


def undecided(records: Iterable[ImageRecord], journal: Journal) -> list[ImageRecord]:
    """The images that nobody has accepted or rejected."""
    labels = current(journal)
    empty = ImageLabels()
    return [record for record in records if labels.get(record.sha256, empty).verdict in {Verdict.PENDING, Verdict.NEEDS_BOXES}]


def propose(
    proposer: Proposer, dataset: Dataset, records: Iterable[ImageRecord], journal: Journal, class_overlap: float = CLASS_OVERLAP
) -> Iterator[Tally]:
    """Propose on each image in turn; yields the running tally after each. A picture that cannot be read is noted there.

    `class_overlap`: see :func:`merge_found`.
    """
    tally = Tally()
    for record in records:
        tally.images += 1
        try:
            image = decode(dataset.image_path(record.sha256, record.extension))
        except UnreadableError as error:
            tally.failures[record.sha256] = str(error)
            yield tally
            continue
        found = merge_found(proposer.propose(image, record), (record.width, record.height), class_overlap)
        # The generator runs inside of the journal's transaction, so that nobody can speak between its look and its word.
        written = journal.append(changes(journal, proposer, record.sha256, found))
        count(tally, written)
        yield tally


def count(tally: Tally, written: Sequence[Event]) -> None:
    """Add written events to a tally."""
    for event in written:
        if event.kind == Kind.PROPOSE:
            tally.proposals += 1
            tally.by_class[event.category] += 1
        else:
            tally.replaced += 1


def changes(journal: Journal, proposer: Proposer, image: str, found: Sequence[Found]) -> Iterator[Event]:
    """The events that bring an image's proposals up to date; none where they are so already, or a person decided."""
    labels = of_image(journal, image)
    if labels.verdict not in {Verdict.PENDING, Verdict.NEEDS_BOXES}:
        return
    actor = f"model:{proposer.name}"
    earlier = [box for box in labels.proposed() if box.proposed_by == actor]
    said = [box for box in labels.boxes.values() if box.status == Status.PRESENT or box.reviewed_by]
    fresh = [entry for entry in found if not _already_said(entry, said)]
    details = {"weights_sha256": proposer.weights_sha256 or None, "threshold": proposer.threshold}
    if [_key(box, box.detail) for box in earlier] == [
        _key(e, box_event(Kind.PROPOSE, actor, image, "x", Status.PROPOSED, e.category, e.xywh, **_with_prompt(details, e)).detail)
        for e in fresh
    ]:
        return
    for box in earlier:
        yield box_event(Kind.DELETE, actor, image, box.id, Status.GONE, box.category, box.xywh, replaced=True)
    for entry in fresh:
        detail = _with_prompt(details, entry)
        yield box_event(Kind.PROPOSE, actor, image, new_box_id(), Status.PROPOSED, entry.category, entry.xywh, entry.score, **detail)


def _with_prompt(details: dict[str, Any], entry: Found) -> dict[str, Any]:
    return {**details, "prompt": entry.prompt or None}


def _key(entry: Box | Found, detail: str) -> tuple[Any, ...]:
    return entry.category, entry.xywh, entry.score, detail


def _already_said(entry: Found, said: Sequence[Box]) -> bool:
    """A person has spoken of a box of this class there, or a box of any class stands exactly there."""
    if not said:
        return False
    overlap = iou_matrix(np.array([entry.xywh]), np.array([box.xywh for box in said]))[0]
    same = np.array([box.category == entry.category for box in said])
    present = np.array([box.status == Status.PRESENT for box in said])
    return bool(((overlap > SAID_IOU) & (same | present)).any())


def merge_found(found: Iterable[Found], size_wh: tuple[int, int], class_overlap: float = CLASS_OVERLAP) -> list[Found]:
    """Found boxes, best score first, clipped to the picture, each object once.

    Boxes of one class that overlap by more than :data:`SAME_CLASS_IOU` are one object, those of different classes from
    `class_overlap` on (1 = never): the surest stays.

    >>> [f.score for f in merge_found([Found("car", (0, 0, 9, 9), 0.5), Found("car", (0, 0, 9, 8), 0.6)], (20, 20))]
    [0.6]
    >>> pair = [Found("car", (0, 0, 9, 9), 0.5), Found("bus", (0, 0, 9, 8), 0.6)]
    >>> [[f.category for f in merge_found(pair, (20, 20), limit)] for limit in (0.7, 1)]
    [['bus'], ['bus', 'car']]
    """
    entries = list(found)
    boxes_N4 = np.array([clip_xywh(entry.xywh, size_wh) for entry in entries]).reshape(-1, 4)
    scores_N = np.array([entry.score for entry in entries])
    names = {name: label for label, name in enumerate(dict.fromkeys(entry.category for entry in entries))}
    labels_N = np.array([names[entry.category] for entry in entries], dtype=np.int64)
    rows = np.flatnonzero(np.isfinite(boxes_N4).all(axis=1) & (boxes_N4[:, 2:].min(axis=1) >= LEAST_SIDE_PX))
    stay = rows[surest(boxes_N4[rows], scores_N[rows], labels_N[rows], class_overlap, SAME_CLASS_IOU)]
    return [
        replace(entries[row], xywh=cast("Xywh", tuple(boxes_N4[row].tolist())), score=round(float(scores_N[row]), 6))
        for row in stay.tolist()
    ]

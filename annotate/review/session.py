"""One reviewer's review of one dataset, as the App, its buttons and keys, and the change stream share it.

Everything that a person does in the App comes through here: `note` for boxes that the App stored, `judge` for verdicts.
Both hold the boxes in the App against the journal and append what changed, under one lock, so that it does not matter
which of them hears of an edit first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

from annotate.journal import Event, Journal, Kind, Status, Verdict
from annotate.review import dataset as app_dataset
from annotate.review import verdicts
from annotate.review.dataset import Card, Origin
from annotate.review.lookalikes import MOST
from annotate.review.reasons import Why, asks_again, standing
from annotate.review.verdicts import Desk, Outcome, Shown
from annotate.state import Labels, fold, of_image
from collect.definition import Definition, load
from collect.errors import NotFoundError, UsageError, unknown_name
from collect.workspace import Dataset, Workspace

OWN = "own"
SECOND = "second opinion"
GOLD = "gold"
#: Samples whose verdict is in the dataset's own journal.
_NOT_BLIND = {"part": {"$not": {"$in": [SECOND, GOLD]}}}
#: Longer than this between an image shown and its verdict was a pause, not work.
PAUSE_S = 300.0

Judge = Callable[..., Outcome]
_JUDGES: dict[str, Judge] = {
    "accept": verdicts.accept,
    "reject": verdicts.reject,
    "needs_boxes": verdicts.needs_boxes,
    "mark_negative": verdicts.mark_negative,
}


@dataclass
class Session:
    """A review in progress; `samples` is the App dataset's collection in MongoDB."""

    dataset: Dataset
    definition: Definition
    reviewer: str
    origin: Origin
    samples: Any
    journal: Journal
    lock: Any = field(default_factory=threading.RLock)
    listeners: list[Callable[[Outcome], None]] = field(default_factory=list)
    judged: list[tuple[str, ...]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _whys: dict[str, tuple[Why, ...]] = field(default_factory=dict)
    _opinions: Journal | None = None
    _stored: dict[str, datetime] = field(default_factory=dict)
    _labels: Labels = field(default_factory=dict)
    _labels_seq: int = 0
    _told: set[tuple[str, str]] = field(default_factory=set)
    _heard: int = 0

    def desk(self, part: str = OWN) -> Desk:
        """Where this reviewer's word goes: the dataset's journal or, for images shown to two, their own one."""
        if part in {SECOND, GOLD}:
            return Desk(self.opinions(), self.definition, self.reviewer)
        return Desk(self.journal, self.definition, self.reviewer, self.origin.since)

    def opinions(self) -> Journal:
        """The journal of this reviewer's second opinions: they measure agreement and enter no release."""
        if self._opinions is None:
            self._opinions = Journal(opinions_path(self.dataset, self.reviewer))
        return self._opinions

    def tell_of(self, cards: Iterable[Card]) -> None:
        """Know the reasons of images that look like another one, so that they go with the pair that is settled."""
        self._whys = {card.record.sha256: card.whys for card in cards if any(why.pair for why in card.whys)}

    def close(self) -> None:
        """Close the journals, each sealed."""
        for journal in (self.journal, self._opinions):
            if journal is not None:
                journal.seal()
                journal.close()

    # What the App stored

    def note(self, document: dict[str, Any]) -> Outcome:
        """Take over the boxes of a sample as the App stored them; an older state than one already taken is passed over."""
        with self.lock:
            image, stored = document["sha256"], document["last_modified_at"]
            if stored < self._stored.get(image, stored):
                return Outcome(image)
            self._stored[image] = stored
            now = app_dataset.shown_in(document, self.definition)
            outcome = verdicts.save(self.desk(document.get("part") or OWN), now)
            fresh = tuple(refusal for refusal in outcome.refused if (refusal.box, refusal.why) not in self._told)
            self._told |= {(refusal.box, refusal.why) for refusal in fresh}
            outcome = Outcome(image, "", outcome.events, fresh, outcome.notes if outcome.events else ())
            if outcome.events or fresh:
                self._publish(outcome)
            return outcome

    def reconcile(self) -> int:
        """Take over whatever the App stored and the journal lacks, in all samples; returns the number of events."""
        return sum(len(self.note(document).events) for document in self.samples.find())

    # What a person says

    def judge(self, sample: str, act: str, seconds: float | None = None) -> Outcome:
        """A verdict on a sample: `accept`, `reject`, `needs_boxes` or `mark_negative`; durable when this returns."""
        if act not in _JUDGES:
            raise unknown_name("verdict", act, _JUDGES)
        with self.lock:
            document = self.document(sample)
            self._check_file(document)
            now = app_dataset.shown_in(document, self.definition)
            time_s = seconds if seconds is not None and 0 < seconds < PAUSE_S else None
            outcome = _JUDGES[act](self.desk(document["part"]), now, seconds=time_s)
            self._stored[now.image] = document["last_modified_at"]
            self.judged.append((sample,))
            self._show(document, now, boxes=act == "mark_negative", again=False)
            return self._publish(outcome)

    def accept_above(self, sample: str, score: float) -> Outcome:
        """Accept the proposals of a sample that score at least `score`."""
        with self.lock:
            document = self.document(sample)
            now = app_dataset.shown_in(document, self.definition)
            outcome = verdicts.accept_above(self.desk(document["part"]), now, score)
            self._show(document, now)
            return self._publish(outcome)

    def relabel_all(self, sample: str, category: str) -> Outcome:
        """Give every box of a sample one class."""
        with self.lock:
            document = self.document(sample)
            now = app_dataset.shown_in(document, self.definition)
            outcome = verdicts.relabel_all(self.desk(document["part"]), now, category)
            self._show(document, now, boxes=True)
            return self._publish(outcome)

    def keep(self, sample: str, shown: Collection[str]) -> list[Outcome]:
        """Of the near-duplicates that were `shown` side by side keep this one: the others that wait are rejected, in one act for `undo`.

        What belongs to the group and was not shown keeps waiting.

        Raises:
            UsageError: the image itself was not shown, or no near-duplicate that was still waits.
        """
        with self.lock:
            if sample not in shown:
                raise UsageError("the image to keep was not among those shown side by side; press D again")
            others = [twin["id"] for twin in self.twins(sample) if twin["id"] != sample and twin["id"] in shown and twin["waits"]]
            if not others:
                raise UsageError("no near-duplicate of this image that was shown waits for a verdict")
            outcomes = [self.judge(other, "reject") for other in others]
            self.judged[-len(others) :] = [tuple(others)]
            return outcomes

    def twins(self, sample: str) -> list[dict[str, Any]]:
        """The group of near-duplicates that an image belongs to, itself included, in the order of the queue; [] without one."""
        group = self.document(sample).get("duplicates")
        if not group:
            return []
        waiting = {found["_id"] for found in self.samples.find({"duplicates": group, **self.waiting}, {"_id": 1})}
        return [
            {
                "id": str(found["_id"]), "filepath": found["filepath"], "review": found["review"], "waits": found["_id"] in waiting,
                "size": f"{found['metadata']['width']}×{found['metadata']['height']}", "boxes": len(found["boxes"]["detections"]),
            }
            for found in self.samples.find({"duplicates": group}, sort=[("rank", 1)])
        ]  # fmt: skip

    def abreast(self, sample: str) -> list[dict[str, Any]]:
        """Those `twins` that are shown side by side, as many as there are digits, in the order of the queue.

        Of a larger group: the image itself, the first that was accepted (what the others would be copies of), then what waits.
        """
        twins = self.twins(sample)
        accepted = next((twin["id"] for twin in twins if twin["review"] == Verdict.ACCEPTED and not twin["waits"]), "")
        first = sorted(
            twins, key=lambda twin: (twin["id"] not in {sample, accepted}, not twin["waits"], twin["review"] == Verdict.REJECTED)
        )
        chosen = {twin["id"] for twin in first[:MOST]}
        return [twin for twin in twins if twin["id"] in chosen]

    def undo(self, sample: str | None = None) -> Outcome:
        """Take back this reviewer's last act, on `sample` if that was judged in this review, else on whatever they judged last."""
        with self.lock:
            place = next((n for n in reversed(range(len(self.judged))) if sample in self.judged[n]), len(self.judged) - 1)
            samples = self.judged[place] if self.judged else ((sample,) if sample else ())
            if not samples:
                raise UsageError("there is no verdict of this review to undo yet")
            outcomes = [self._undo(each) for each in reversed(samples)]
            if self.judged:
                del self.judged[place]
            return outcomes[-1]

    def _undo(self, sample: str) -> Outcome:
        document = self.document(sample)
        now = app_dataset.shown_in(document, self.definition)
        outcome = verdicts.undo(self.desk(document["part"]), now.image)
        restored = any(event.box and event.status != Status.GONE for event in outcome.events)
        # What stands again is an earlier verdict: whoever took back a later one is not done with the image.
        self._show(document, now, boxes=restored, again=outcome.verdict != Verdict.PENDING)
        return self._publish(outcome)

    @property
    def waiting(self) -> dict[str, Any]:
        """What waits for this reviewer, as a filter: no verdict yet, sent back by others, or to be looked at once more."""
        sent_back = {"review": str(Verdict.NEEDS_BOXES), "reviewer": {"$ne": self.reviewer}}
        return {"$or": [{"review": str(Verdict.PENDING)}, sent_back, {"again": True}]}

    def next_pending(self, after: str | None) -> str | None:
        """The sample id of the next image in the queue that waits for a verdict, from `after` on and round to the start."""
        self.hear_others()
        here = self.samples.find_one({"_id": _object_id(after)}, {"rank": 1}) if after else None
        rank = here["rank"] if here else 0
        for where in ({"$gt": rank}, {"$lt": rank}):
            found = self.samples.find_one({**self.waiting, "rank": where}, {"_id": 1}, sort=[("rank", 1)])
            if found:
                return str(found["_id"])
        return None

    def hear_others(self) -> None:
        """Take note of verdicts that others have given since the App's dataset was made: those images wait no longer.

        Only the fields that say where an image stands are touched, never boxes.
        """
        with self.lock:
            spoken = []
            for event in self.journal.events(after=max(self._heard, self.origin.since)):
                self._heard = event.seq
                if not event.box and event.actor != self.desk().actor:
                    spoken.append(event.image)
            for image in dict.fromkeys(spoken):
                fields = app_dataset.review_fields(of_image(self.journal, image)) | {"again": False}
                self.samples.update_one({"sha256": image, **_NOT_BLIND}, {"$set": fields})
                self._tell_pairs(image)

    def sample_of(self, image: str) -> str:
        """The sample id of an image."""
        return app_dataset.sample_id(image)

    def labels(self) -> Labels:
        """The state of all images; only events that came since the last call are read."""
        with self.lock:
            seq = self.journal.head()[0]
            fold(self.journal.rows(after=self._labels_seq, until=seq), self._labels)
            self._labels_seq = seq
            return self._labels

    def rank(self, sample: str) -> int:
        """The place of a sample in the queue, from 1."""
        return int(self.document(sample)["rank"])

    # Losses that a person did not see

    def stored_boxes(self, sample: str) -> list[dict[str, Any]]:
        """The boxes of a sample as the App has stored them."""
        document = self.samples.find_one({"_id": _object_id(sample)}, {"boxes": 1})
        return list(((document or {}).get("boxes") or {}).get("detections") or [])

    def put_back(self, sample: str, boxes: list[dict[str, Any]], why: str) -> Outcome:
        """Restore boxes that the App deleted unseen, write that down, and tell the person."""
        with self.lock:
            document = self.document(sample)
            image = document["sha256"]
            # Later than what the App just stored, so that its state without the boxes is passed over.
            self._stored[image] = max(app_dataset.moment(), document["last_modified_at"] + timedelta(milliseconds=1))
            change = {"$push": {"boxes.detections": {"$each": boxes}}, "$set": {"last_modified_at": self._stored[image]}}
            self.samples.update_one({"_id": document["_id"]}, change)
            desk = self.desk(document["part"])
            ids = {str(box["_id"]) for box in boxes}
            events = [
                Event(Kind.RESTORE, verdicts.GUARD, image, box.id, box.status, box.category, *box.xywh, detail=box.detail)
                for box in desk.seen(image).boxes.values()
                if box.id in ids and box.status != Status.GONE
            ]
            written = desk.journal.append(events) if events else []
            return self.warn(
                f"{len(boxes)} box(es) of image {image[:12]} were about to be deleted unseen and are kept: {why}", image, written
            )

    def warn(self, text: str, image: str = "", events: Sequence[Event] = ()) -> Outcome:
        """Tell the person something, on the panel and on stderr."""
        self.warnings.append(text)
        return self._publish(Outcome(image, "", tuple(events), (), (text,)))

    # Inside

    def document(self, sample: str) -> dict[str, Any]:
        """A sample as MongoDB has it.

        Raises:
            NotFoundError: the App has no such sample.
        """
        document = self.samples.find_one({"_id": _object_id(sample)})
        if document is None:
            raise NotFoundError(f"the App has no image {sample} of {self.dataset.name}; start `boxwright review` again")
        return dict(document)

    def _check_file(self, document: dict[str, Any]) -> None:
        if not Path(document["filepath"]).is_file():
            raise NotFoundError(f"the file of this image has gone: {document['filepath']}; bring it back, then judge it")

    def _show(self, document: dict[str, Any], now: Shown, *, boxes: bool = False, again: bool | None = None) -> None:
        """Bring a sample's fields up to the journal; its boxes only where a person asked for other ones."""
        journal = self.desk(document["part"]).journal
        labels = of_image(journal, now.image)
        fields = app_dataset.review_fields(labels) | ({} if again is None else {"again": again})
        if boxes:
            fields |= {"boxes": app_dataset.box_fields(self.definition, (now.width, now.height), labels)["boxes"]}
            # The App's copy is older now, and what it still wants to store has to be merged first.
            fields["last_modified_at"] = self._stored[now.image] = app_dataset.moment()
        self.samples.update_one({"_id": document["_id"]}, {"$set": fields})
        self._tell_pairs(now.image)

    def _tell_pairs(self, judged: str) -> None:
        """After a verdict on an image, or its undoing, say of it and of those that it looks like only what still stands."""
        entry_of = cache(partial(of_image, self.journal))
        for image in {name for why in self._whys.get(judged, ()) if why.pair for name in why.pair.names}:
            whys, entry = self._whys[image], entry_of(image)
            why = standing(whys, entry_of)
            self.samples.update_one({"sha256": image}, {"$set": {"reason": why.reason if why else None}})
            # Whether it waits once more hangs on the pair only where that is younger than its verdict.
            if image != judged and any(each.pair and judged in each.pair.names and asks_again(entry, each) for each in whys):
                self.samples.update_one({"sha256": image, **_NOT_BLIND}, {"$set": {"again": asks_again(entry, why)}})

    def _publish(self, outcome: Outcome) -> Outcome:
        for listener in self.listeners:
            listener(outcome)
        return outcome


def opinions_path(dataset: Dataset, reviewer: str) -> Path:
    """Where a reviewer's second opinions lie."""
    return dataset.folder / "opinions" / f"{safe_name(reviewer)}.sqlite"


def safe_name(reviewer: str) -> str:
    """A reviewer's name as part of a file or database name."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in reviewer)
    if kept == reviewer:
        return kept
    import hashlib

    return f"{kept}-{hashlib.sha256(reviewer.encode()).hexdigest()[:6]}"


def _object_id(sample: str | None) -> Any:
    from bson import ObjectId
    from bson.errors import InvalidId

    try:
        return ObjectId(sample)
    except InvalidId as error:
        raise UsageError(f"'{sample}' is no sample id of the App") from error


_OPEN: dict[str, Session] = {}


def open_session(app: Any) -> Session:
    """The session of a FiftyOne dataset that :func:`annotate.review.dataset.build` made; one per dataset and process.

    Raises:
        UsageError: the dataset was not made by a review.
    """
    origin = dict((app.info or {}).get("boxwright") or {})
    if not origin:
        raise UsageError(f"the FiftyOne dataset '{app.name}' was not made by `boxwright review`; open it that way")
    key = app._sample_collection_name
    if key not in _OPEN:
        origin.pop("count", None)
        made = Origin(**origin)
        dataset = Workspace.at(made.root).dataset(made.name)
        _OPEN[key] = Session(dataset, load(dataset), made.reviewer, made, app._sample_collection, Journal(dataset.labels))
    return _OPEN[key]


def close_all() -> None:
    """Close every session of this process."""
    while _OPEN:
        _OPEN.popitem()[1].close()

"""What the panel and the keys' help tell a reviewer: how far the review is, how fast, how well, and what counts as what."""

from __future__ import annotations

import statistics
from typing import Any

from annotate.journal import Kind, Verdict
from annotate.review.agreement import agreement
from annotate.review.session import Session
from annotate.review.verdicts import Outcome

CLASS_COLUMNS = {"key": "Key", "name": "Class", "images": "Images", "quota": "Wanted", "boxes": "Boxes", "definition": "What counts"}
#: Speed is that of the last so many verdicts.
RECENT = 50


def progress(review: Session) -> dict[str, Any]:
    """Verdicts, classes, speed, agreement and warnings of a review, as plain values."""
    labels = review.labels()
    boxes: dict[str, int] = {}
    images: dict[str, int] = {}
    for entry in labels.values():
        if entry.verdict != Verdict.ACCEPTED:
            continue
        names = [known.name for box in entry.present() if (known := review.definition.current(box.category))]
        for name in names:
            boxes[name] = boxes.get(name, 0) + 1
        for name in set(names):
            images[name] = images.get(name, 0) + 1
    classes = [
        {
            "key": str(place) if place < 10 else "", "name": entry.name, "images": images.get(entry.name, 0),
            "quota": entry.quota or "–", "boxes": boxes.get(entry.name, 0), "definition": entry.definition or "–",
        }
        for place, entry in enumerate(review.definition.classes, 1)
    ]  # fmt: skip
    counts = {str(row["_id"]): row["n"] for row in review.samples.aggregate([{"$group": {"_id": "$review", "n": {"$sum": 1}}}])}
    return {
        "reviewer": review.reviewer,
        "verdicts": counts,
        "left": counts.get(Verdict.PENDING, 0),
        "total": sum(counts.values()),
        "classes": classes,
        "speed": speed(review),
        "agreement": agreement(review.dataset, review.definition, labels),
        "warnings": review.warnings[-5:],
    }


def speed(review: Session) -> dict[str, float]:
    """`seconds` per verdict (median) and verdicts `per_minute` over this reviewer's latest timed verdicts; {} without any."""
    actor = f"reviewer:{review.reviewer}"
    timed = [
        event.details["seconds"]
        for event in review.journal.events(after=review.origin.since)
        if event.actor == actor and event.kind == Kind.VERDICT and "seconds" in event.details
    ][-RECENT:]
    if not timed:
        return {}
    return {"seconds": round(statistics.median(timed), 1), "per_minute": round(60 * len(timed) / max(sum(timed), 0.1), 1)}


def as_markdown(shown: dict[str, Any]) -> str:
    """The panel's text."""
    counts = shown["verdicts"]
    done = shown["total"] - shown["left"]
    lines = [
        f"### {done} of {shown['total']} images judged",
        " · ".join(f"**{counts.get(name, 0)}** {name.replace('_', ' ')}" for name in ("accepted", "rejected", "needs_boxes", "pending")),
    ]
    pace = shown["speed"]
    if pace:
        left_min = shown["left"] / pace["per_minute"]
        lines.append(f"**{pace['per_minute']}** verdicts a minute, **{pace['seconds']} s** each; about **{left_min:.0f} min** to go")
    lines += [
        f"Agreement of {row['reviewer']} with {row['other']}: **F1 {row['f1']:.2f}**, kappa {row['kappa']:.2f}, {row['images']} image(s)"
        for row in shown["agreement"]["pairs"]
    ]
    lines += [f"⚠️ {text}" for text in shown["warnings"]]
    lines.append("Keys: **A** accept, **R** reject, **N** needs boxes, **0** negative, **Z** undo, **B** draw, **1–9** class, **?** help")
    return "\n\n".join(lines)


def guide(review: Session, sample: str | None) -> dict[str, Any]:
    """Classes with their digits, and what is to be said about an open sample."""
    classes = [{"name": entry.name, "definition": entry.definition} for entry in review.definition.classes]
    about: dict[str, Any] = {}
    if sample:
        document = review.document(sample)
        names = ("reason", "review", "rank", "part", "duplicates", "quality")
        about = {name: document.get(name) for name in names}
    waiting = review.samples.count_documents(review.waiting)
    return {"classes": classes, "reviewer": review.reviewer, "left": waiting, "about": about}


def onwards(review: Session, sample: str | None, last: Outcome) -> dict[str, Any]:
    """Where to go from `sample`: `steps` forward (negative: back) to `next`, with the reason why that one is in the queue.

    After an undo that is the image whose verdict was taken back.
    """
    here = review.rank(sample) if sample else 0
    undone = any(event.kind == Kind.UNDO for event in last.events)
    target = review.sample_of(last.image) if undone else review.next_pending(sample)
    if target is None:
        return {"next": None, "steps": 0, "left": 0, "reason": ""}
    document = review.document(target)
    waiting = review.samples.count_documents(review.waiting)
    return {"next": target, "steps": document["rank"] - here, "left": waiting, "reason": document.get("reason") or ""}

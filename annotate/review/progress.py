"""What the panel and the keys' help tell a reviewer: how far the review is, how fast, how well, and what counts as what."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from annotate.journal import Kind, Verdict
from annotate.review.agreement import agreement
from annotate.review.dataset import SUSPECT_COLOR, class_colors
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
        "left": _left(review),
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
        f"**{done} of {shown['total']} images judged**",
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
    """Classes with their digits and colours, and what is to be said about an open sample."""
    colors = class_colors(review.definition)
    classes = [{"name": entry.name, "definition": entry.definition, "color": colors[entry.name]} for entry in review.definition.classes]
    shown = _about(review, review.document(sample)) if sample else {}
    return {"classes": classes, "reviewer": review.reviewer, "left": _left(review), **shown}


def _about(review: Session, document: dict[str, Any]) -> dict[str, Any]:
    """Why an image is in the queue and where it stands, and the file that comes after it."""
    names = ("reason", "review", "reviewer", "part", "quality")
    group = document.get("duplicates")
    # Of a group that is decided only one stands there, and there is nothing to compare any more.
    stands = {"$or": [{"review": {"$ne": str(Verdict.REJECTED)}}, {"_id": document["_id"]}]}
    twins = review.samples.count_documents({"duplicates": group, **stands}) if group else 0
    following = review.next_pending(str(document["_id"]))
    upcoming = review.document(following)["filepath"] if following else ""
    about = {**{name: document.get(name) for name in names}, "twins": twins, "again": bool(document.get("again"))}
    return {"about": about, "marks": _drawn(review, document, "suspects", "detections"), "upcoming": upcoming}


def _left(review: Session) -> int:
    return int(review.samples.count_documents(review.waiting))


def told(review: Session, here: str | None, outcomes: Sequence[Outcome], target: str | None = None) -> dict[str, Any]:
    """What the page goes on with after an act: what was done, and where to go from the sample `here`.

    `steps` leads forward (negative: back) in the queue to `next`, of which `preview` and `about` tell what the page shows; that
    is `target`, after an undo the image whose verdict was taken back, else the next one that waits.
    """
    last = outcomes[-1]
    if any(event.kind == Kind.UNDO for event in last.events):
        target = review.sample_of(last.image)
    target = target or review.next_pending(here)
    onwards: dict[str, Any] = {"next": None, "steps": 0}
    if target is not None:
        document = review.document(target)
        steps = document["rank"] - (review.rank(here) if here else 0)
        onwards = {"next": target, "steps": steps, "preview": _preview(review, document), **_about(review, document)}
    return {
        "verdict": last.verdict,
        "images": len(outcomes),
        "events": sum(len(outcome.events) for outcome in outcomes),
        "notes": [note for outcome in outcomes for note in (*outcome.notes, *(refusal.why for refusal in outcome.refused))],
        "left": _left(review),
        **onwards,
    }


def _preview(review: Session, document: dict[str, Any]) -> dict[str, Any]:
    """What the page needs to show a sample by itself: its file, size in pixels, and boxes."""
    size = {name: document["metadata"][name] for name in ("width", "height")}
    return {"sample": str(document["_id"]), "filepath": document["filepath"], "boxes": _drawn(review, document, "boxes"), **size}


def _drawn(review: Session, document: dict[str, Any], *fields: str) -> list[dict[str, Any]]:
    """Boxes of some fields with their colours, as `[x, y, w, h]` relative to the image."""
    colors = class_colors(review.definition)
    return [
        {
            "label": box.get("label") or "",
            "color": colors.get(box.get("label") or "", SUSPECT_COLOR),
            "box": box["bounding_box"],
            "of": name,
        }
        for name in fields
        for box in (document.get(name) or {}).get("detections") or []
        if box.get("bounding_box")
    ]

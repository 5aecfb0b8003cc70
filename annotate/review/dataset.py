"""The dataset in the FiftyOne App: made from ledger and journal, thrown away and made again at any time.

Documents go straight into MongoDB in FiftyOne's own layout, since building its Sample objects takes ten times as long.
`boxes` is the field a person edits; it holds the journal's boxes under the journal's ids or, where an image has none yet,
copies of its undecided proposals under *their* ids, so that a correction edits that proposal and a deletion rejects it.
All other fields are for looking at. The saved views only choose among images, since the App deletes the boxes that a
view of labels hides.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotate.boxes import relative_from_xywh, xywh_from_relative
from annotate.review.reasons import Why, flags
from annotate.review.verdicts import Shown, ShownBox, attributes_of, boxes_shown, offers_proposals
from annotate.state import Box, ImageLabels, Labels
from collect.definition import Definition
from collect.records import ImageRecord
from collect.workspace import Dataset

BATCH = 1000
VIEWS = ("pending", "accepted", "rejected", "needs_boxes")
#: Bright and far apart, so that thin lines show on dark and on light pictures.
PALETTE = (
    "#00e5ff",
    "#ff9100",
    "#76ff03",
    "#ff4081",
    "#ffea00",
    "#b388ff",
    "#1de9b6",
    "#ff5252",
    "#40c4ff",
    "#f4ff81",
    "#ea80fc",
    "#a7ffeb",
)
VERDICT_COLORS = {"pending": "#607d8b", "accepted": "#2e7d32", "rejected": "#c62828", "needs_boxes": "#ef6c00"}
SUSPECT_COLOR = "#ffffff"
PLUGIN_FOLDER = Path(__file__).resolve().parents[1] / "plugin"


@dataclass(frozen=True)
class Mark:
    """A box drawn for looking at only: a suspect of the audit, or a detection of a run. xywh in pixels."""

    label: str
    xywh: tuple[float, float, float, float]
    score: float | None = None


@dataclass(frozen=True)
class Card:
    """One image as it goes into the App: its record and labels, its place in the queue and the reason for it.

    `again` says that it waits although it has a verdict, since something came up against that. `whys` are all reasons for it,
    settled ones included; `reason` is the first of them that stands.
    """

    record: ImageRecord
    labels: ImageLabels
    path: Path
    reason: str = ""
    part: str = "own"
    duplicates: str = ""
    suspects: tuple[Mark, ...] = ()
    detections: tuple[Mark, ...] = ()
    again: bool = False
    whys: tuple[Why, ...] = ()


@dataclass(frozen=True)
class Origin:
    """Where an App dataset came from, kept with it: `since` is the journal's last event when it was made."""

    root: str
    name: str
    reviewer: str
    since: int
    head: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def connect(root: Path, uri: str, database: str) -> Any:
    """Point FiftyOne at a database, without telemetry or the user's own settings and plugins; returns the module.

    Must come before anything else imports fiftyone in this process.
    """
    home = root / ".boxwright" / "fiftyone"
    os.environ.update(
        FIFTYONE_DATABASE_URI=uri,
        FIFTYONE_DATABASE_NAME=database,
        FIFTYONE_DATABASE_VALIDATION="false",
        FIFTYONE_DO_NOT_TRACK="true",
        FIFTYONE_CONFIG_PATH=str(home / "config.json"),
        FIFTYONE_APP_CONFIG_PATH=str(home / "app_config.json"),
        FIFTYONE_PLUGINS_DIR=str(PLUGIN_FOLDER),
        FIFTYONE_DEFAULT_DATASET_DIR=str(home / "datasets"),
        FIFTYONE_MODEL_ZOO_DIR=str(home / "models"),
        FIFTYONE_PLUGINS_CACHE_ENABLED="true",  # else every operator call loads all plugins anew, 200 ms
        FIFTYONE_SHOW_PROGRESS_BARS="false",
        FIFTYONE_EXECUTION_STORE_NOTIFICATION_SERVICE_DISABLED="true",
        FIFTYONE_SERVER="1",
    )
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
        import fiftyone
    for name in ("fiftyone", "eta"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.WARNING)
    logging.getLogger("fiftyone.factory.repos.execution_store").setLevel(logging.ERROR)  # it warns of what was turned off above
    return fiftyone


def build(fo: Any, origin: Origin, definition: Definition, cards: Sequence[Card]) -> Any:
    """Make the App's dataset anew, in the order of `cards`; returns the FiftyOne dataset."""
    if fo.dataset_exists(origin.name):
        fo.delete_dataset(origin.name)
    dataset = fo.Dataset(origin.name, persistent=True)
    dataset.media_type = "image"
    _declare(fo, dataset, definition, with_run=any(card.detections for card in cards))
    collection = dataset._sample_collection
    batch: list[dict[str, Any]] = []
    for document in _documents(dataset._doc.id, definition, cards):
        batch.append(document)
        if len(batch) == BATCH:
            collection.insert_many(batch, ordered=False)
            batch = []
    if batch:
        collection.insert_many(batch, ordered=False)
    for name in ("review", "rank", "sha256", "source", "duplicates", "reason", "again"):
        dataset.create_index(name)
    _save_views(fo, dataset)
    dataset.info = {
        "boxwright": {**vars(origin), "count": len(cards)},
        "classes": {entry.name: entry.definition for entry in definition.classes},
    }
    dataset.save()
    return dataset


def _declare(fo: Any, dataset: Any, definition: Definition, *, with_run: bool) -> None:
    texts = (
        "sha256",
        "review",
        "reviewer",
        "reason",
        "part",
        "licence",
        "creator",
        "source",
        "query",
        "source_url",
        "sought",
        "duplicates",
    )
    for name in texts:
        dataset.add_sample_field(name, fo.StringField)
    dataset.add_sample_field("reviewed_at", fo.DateTimeField)
    dataset.add_sample_field("rank", fo.IntField)
    for name in ("prefilled", "again"):
        dataset.add_sample_field(name, fo.BooleanField)
    dataset.add_sample_field("quality", fo.ListField, subfield=fo.StringField)
    for name in ("boxes", "proposals", "suspects", "detections"):
        dataset.add_sample_field(name, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    for name in definition.annotate.attributes:
        dataset.add_sample_field(f"boxes.detections.{name}", fo.BooleanField)
    attributes = [{"name": name, "type": "bool", "component": "toggle", "default": False} for name in definition.annotate.attributes]
    schema = {"type": "detections", "component": "dropdown", "classes": definition.class_names, "attributes": attributes}
    dataset.set_label_schemas({"boxes": schema})
    dataset.active_label_schemas = ["boxes"]
    dataset.default_classes = definition.class_names
    dataset.app_config.color_scheme = fo.ColorScheme(color_by="value", color_pool=list(PALETTE), fields=_colors(definition))
    shown = ["boxes", "suspects", *(["detections"] if with_run else []), "review", "reason"]
    dataset.app_config.active_fields = fo.ActiveFields(paths=shown)
    dataset.app_config.sidebar_groups = _sidebar(fo)
    dataset.save()


def class_colors(definition: Definition) -> dict[str, str]:
    """The colour of each class, the same in the App, in its legend and from one review to the next."""
    return {entry.name: PALETTE[place % len(PALETTE)] for place, entry in enumerate(definition.classes)}


def _colors(definition: Definition) -> list[dict[str, Any]]:
    classes = [{"value": name, "color": color} for name, color in class_colors(definition).items()]
    verdicts = [{"value": name, "color": color} for name, color in VERDICT_COLORS.items()]
    boxes = [{"path": name, "colorByAttribute": "label", "valueColors": classes} for name in ("boxes", "proposals")]
    flat = [{"path": "suspects", "fieldColor": SUSPECT_COLOR}, {"path": "reason", "fieldColor": SUSPECT_COLOR}]
    return [*boxes, {"path": "review", "valueColors": verdicts}, *flat]


def _sidebar(fo: Any) -> list[Any]:
    group = fo.SidebarGroupDocument
    return [
        group(name="labels", paths=["boxes", "suspects", "proposals", "detections"]),
        group(name="review", paths=["review", "reason", "part", "reviewer", "reviewed_at", "rank"]),
        group(name="image", paths=["quality", "duplicates", "sought", "source", "query", "licence", "creator", "source_url"]),
        group(name="other", paths=["id", "filepath", "sha256", "prefilled", "again", "tags", "created_at", "last_modified_at"],
              expanded=False),
        group(name="metadata", paths=[f"metadata.{name}" for name in ("size_bytes", "mime_type", "width", "height", "num_channels")],
              expanded=False),
    ]  # fmt: skip


def _save_views(fo: Any, dataset: Any) -> None:
    """Views that choose among images: none of them can hide a box."""
    for verdict in VIEWS:
        dataset.save_view(verdict.replace("_", " "), dataset.match(fo.ViewField("review") == verdict))
    dataset.save_view("near-duplicates", dataset.match(fo.ViewField("duplicates") != ""))
    dataset.save_view("flagged quality", dataset.match(fo.ViewField("quality").length() > 0))
    dataset.save_view("suspects", dataset.match(fo.ViewField("suspects.detections").length() > 0))


def moment() -> datetime:
    """Now, as MongoDB stores it: UTC without a zone, whole milliseconds."""
    now = datetime.now(UTC).replace(tzinfo=None)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def disconnect() -> None:
    """Let go of the database, before its server is stopped."""
    from fiftyone.core.odm import database

    database._disconnect()
    # FiftyOne would ask the stopped server for datasets to tidy up, for half a minute at exit.
    atexit.unregister(database._delete_non_persistent_datasets_if_allowed)


def sample_id(image: str) -> str:
    """The id of an image's sample: the first 24 digits of its sha256, so that it outlives a rebuild."""
    return image[:24]


def _documents(dataset_id: Any, definition: Definition, cards: Sequence[Card]) -> Iterator[dict[str, Any]]:
    from bson import ObjectId

    made = moment()
    draw_random = random.Random(0)
    for rank, card in enumerate(cards, 1):
        record, labels = card.record, card.labels
        yield {
            "_id": ObjectId(sample_id(record.sha256)),
            "filepath": str(card.path),
            "tags": [],
            "metadata": {
                "_cls": "ImageMetadata", "size_bytes": record.num_bytes, "mime_type": f"image/{record.extension.replace('jpg', 'jpeg')}",
                "width": record.width, "height": record.height,
            },
            "_media_type": "image",
            "_rand": draw_random.random(),
            "_dataset_id": dataset_id,
            "created_at": made,
            "last_modified_at": made,
            "sha256": record.sha256,
            "rank": rank,
            "reason": card.reason or None,
            "part": card.part,
            "again": card.again,
            **review_fields(labels),
            **_provenance(record, definition),
            "duplicates": card.duplicates,
            "prefilled": offers_proposals(labels),
            **box_fields(definition, (record.width, record.height), labels),
            "suspects": _marks(card.suspects, record),
            "detections": _marks(card.detections, record),
        }  # fmt: skip


def _provenance(record: ImageRecord, definition: Definition) -> dict[str, Any]:
    return {
        "quality": list(flags(record, definition.collect)), "sought": record.class_name, "source": record.source, "query": record.query,
        "source_url": record.source_url, "licence": record.licence.spdx, "creator": record.licence.creator,
    }  # fmt: skip


def review_fields(labels: ImageLabels) -> dict[str, Any]:
    """The fields that say where an image stands."""
    when = datetime.fromisoformat(labels.reviewed_at).replace(tzinfo=None) if labels.reviewed_at else None
    return {"review": str(labels.verdict), "reviewer": labels.reviewer.partition(":")[2], "reviewed_at": when}


def box_fields(definition: Definition, size_wh: tuple[int, int], labels: ImageLabels) -> dict[str, Any]:
    """`boxes` and `proposals` of an image, as FiftyOne stores them."""
    proposed = [_detection(definition, box, size_wh, copy=True) for box in labels.proposed()]
    return {
        "boxes": _detections([_detection(definition, box, size_wh) for box in boxes_shown(labels)]),
        "proposals": _detections(proposed),
    }


def _detections(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"_cls": "Detections", "detections": items}


def _detection(definition: Definition, box: Box, size_wh: tuple[int, int], *, copy: bool = False) -> dict[str, Any]:
    from bson import ObjectId

    entry = definition.current(box.category)
    on = attributes_of(definition, box)
    return {
        "_id": ObjectId() if copy else ObjectId(box.id),
        "_cls": "Detection",
        "attributes": {},
        "tags": [],
        "label": entry.name if entry else box.category,
        "bounding_box": list(relative_from_xywh(box.xywh, size_wh)),
        **_confidence(box.score),
        **({} if copy else {name: name in on for name in definition.annotate.attributes}),
    }


def _confidence(score: float | None) -> dict[str, float]:
    # Left out, not null: over a null the App goes on patching for ever.
    return {} if score is None else {"confidence": score}


def _marks(marks: Sequence[Mark], record: ImageRecord) -> dict[str, Any]:
    from bson import ObjectId

    size_wh = (record.width, record.height)
    return _detections(
        [
            {
                "_id": ObjectId(), "_cls": "Detection", "attributes": {}, "tags": [], "label": mark.label,
                "bounding_box": list(relative_from_xywh(mark.xywh, size_wh)), **_confidence(mark.score),
            }
            for mark in marks
        ]
    )  # fmt: skip


def shown_in(document: dict[str, Any], definition: Definition) -> Shown:
    """The boxes of a sample document as they stand, in pixels."""
    metadata = document["metadata"]
    size_wh = (int(metadata["width"]), int(metadata["height"]))
    items = (document.get("boxes") or {}).get("detections") or []
    boxes = tuple(
        ShownBox(
            str(item["_id"]),
            item.get("label") or "",
            xywh_from_relative(tuple(item["bounding_box"]), size_wh),
            frozenset(name for name in definition.annotate.attributes if item.get(name) is True),
        )
        for item in items
        if item.get("bounding_box")
    )
    return Shown(document["sha256"], *size_wh, boxes, bool(document.get("prefilled")))


def cards(dataset: Dataset, records: Sequence[ImageRecord], labels: Labels) -> list[Card]:
    """Plain cards for `records` in their order: no reasons, nobody's part."""
    empty = ImageLabels()
    return [Card(record, labels.get(record.sha256, empty), dataset.image_path(record.sha256, record.extension)) for record in records]

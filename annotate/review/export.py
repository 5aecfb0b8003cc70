"""A release as a FiftyOne dataset: for looking at it, for brain methods and evaluation in notebooks of one's own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from annotate.boxes import relative_from_xywh
from annotate.coco import Document, read_document
from annotate.formats.format import Export
from annotate.review import mongod
from annotate.review.dataset import connect, disconnect, moment
from collect.errors import UsageError
from collect.workspace import Dataset

BATCH = 1000


def release_dataset(fo: Any, dataset: Dataset, version: str, name: str | None = None) -> Any:
    """Make a persistent FiftyOne dataset of a release; `fo` is the imported fiftyone, connected to the wanted database.

    Splits become tags, licences and sources fields, category ids a field of every box. `name` defaults to
    `NAME-VERSION`.

    Raises:
        NotFoundError: no such release.
        UsageError: FiftyOne has a dataset of that name already.
    """
    folder = dataset.release_path(version)
    wanted = name or f"{dataset.name}-{version}"
    if fo.dataset_exists(wanted):
        raise UsageError(f"FiftyOne has a dataset '{wanted}' already; delete it there, or give another name")
    return from_document(fo, wanted, read_document(folder / "annotations.json"), dataset.images, version)


def from_document(fo: Any, name: str, document: Document, images: Path, version: str = "") -> Any:
    """Make a persistent FiftyOne dataset `name` of a COCO document whose files lie in `images`."""
    made = fo.Dataset(name, persistent=True)
    made.media_type = "image"
    for field in ("sha256", "licence", "source_url", "author"):
        made.add_sample_field(field, fo.StringField)
    made.add_sample_field("coco_id", fo.IntField)
    made.add_sample_field("ground_truth", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    made.add_sample_field("ground_truth.detections.iscrowd", fo.IntField)
    made.add_sample_field("ground_truth.detections.coco_id", fo.IntField)
    made.default_classes = [category["name"] for category in document["categories"]]
    made.info = {"release": version, "categories": document["categories"], "licenses": document.get("licenses", [])}
    made.save()
    documents = _documents(document, made._doc.id, images)
    for start in range(0, len(documents), BATCH):
        made._sample_collection.insert_many(documents[start : start + BATCH], ordered=False)
    return made


def write(export: Export) -> list[Path]:
    """A release as a folder that `fiftyone.Dataset.from_dir(…, dataset_type=fiftyone.types.FiftyOneDataset)` reads.

    The pictures are copied; boxes are relative to the image, in doubles. Runs a mongod of its own meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="boxwright-export-") as folder, mongod.running(Path(folder)) as database:
        fo = connect(Path(folder), database.uri, "boxwright_export")
        try:
            made = from_document(fo, export.release or "release", export.document, export.images_dir, export.release)
            made.export(export_dir=str(export.out), dataset_type=fo.types.FiftyOneDataset)
        finally:
            disconnect()
    return sorted(path for path in export.out.rglob("*") if path.is_file())


def _documents(document: Document, dataset_id: Any, images: Path) -> list[dict[str, Any]]:
    names = {category["id"]: category["name"] for category in document["categories"]}
    licences = {licence["id"]: licence.get("spdx") or licence.get("name", "") for licence in document.get("licenses", [])}
    boxes: dict[int, list[dict[str, Any]]] = {}
    for annotation in document["annotations"]:
        boxes.setdefault(annotation["image_id"], []).append(annotation)
    made_at = moment()
    return [
        {
            "filepath": str(images / image["file_name"]), "tags": [image["split"]] if image.get("split") else [],
            "metadata": {"_cls": "ImageMetadata", "width": image["width"], "height": image["height"]},
            "_media_type": "image", "_rand": place / max(len(document["images"]), 1), "_dataset_id": dataset_id,
            "created_at": made_at, "last_modified_at": made_at, "sha256": image.get("sha256", ""), "coco_id": image["id"],
            "licence": licences.get(image.get("license"), ""), "source_url": image.get("source_url", ""), "author": image.get("author", ""),
            "ground_truth": {"_cls": "Detections", "detections": [_detection(row, image, names) for row in boxes.get(image["id"], [])]},
        }
        for place, image in enumerate(document["images"])
    ]  # fmt: skip


def _detection(row: dict[str, Any], image: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    from bson import ObjectId

    x, y, w, h = row["bbox"]
    return {
        "_id": ObjectId(), "_cls": "Detection", "attributes": {}, "tags": [], "label": names[row["category_id"]],
        "bounding_box": list(relative_from_xywh((x, y, w, h), (image["width"], image["height"]))),
        "iscrowd": int(row.get("iscrowd", 0)), "coco_id": row["id"],
    }  # fmt: skip

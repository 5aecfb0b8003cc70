"""What is judged: ground truth and detections as arrays, checked at the edge.

pycocotools takes an annotation id of 0 for "no match", so a perfect detector is scored as if it had missed that box.
Nothing here carries annotation ids: the engines number both sides from 1, which changes no other digit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from annotate.coco import Document
from collect.errors import CorruptError, NotFoundError, UsageError

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

logger = logging.getLogger(__name__)

_SHOWN = 5


@dataclass(frozen=True)
class Truth:
    """Ground truth: I images and K categories sorted by id, A boxes in file order.

    `boxes_xywh_A4` are pixels of the upright image; `areas_A` is the file's own `area` (COCO: of the mask), which
    decides what is small, medium and large; w × h where the file has none.
    """

    image_ids_I: Ints
    category_ids_K: Ints
    names_K: tuple[str, ...]
    image_ids_A: Ints
    category_ids_A: Ints
    boxes_xywh_A4: Floats
    areas_A: Floats
    iscrowd_A: Bools

    def rows_of_images(self, image_ids_N: Ints) -> Ints:
        """The row of each image id in `image_ids_I`."""
        return np.searchsorted(self.image_ids_I, image_ids_N).astype(np.int64)

    def rows_of_categories(self, category_ids_N: Ints) -> Ints:
        """The row of each category id in `category_ids_K`."""
        return np.searchsorted(self.category_ids_K, category_ids_N).astype(np.int64)

    def only(self, image_ids: Iterable[int]) -> Truth:
        """The part of the truth that lies on these images."""
        wanted = np.array(sorted(set(image_ids)), dtype=np.int64)
        kept = np.isin(self.image_ids_A, wanted)
        return Truth(
            self.image_ids_I[np.isin(self.image_ids_I, wanted)],
            self.category_ids_K,
            self.names_K,
            self.image_ids_A[kept],
            self.category_ids_A[kept],
            self.boxes_xywh_A4[kept],
            self.areas_A[kept],
            self.iscrowd_A[kept],
        )


@dataclass(frozen=True)
class Detections:
    """D detections in file order; boxes xywh in pixels of the upright image, float64."""

    image_ids_D: Ints
    category_ids_D: Ints
    boxes_xywh_D4: Floats
    scores_D: Floats

    def __len__(self) -> int:
        return len(self.scores_D)

    def only(self, image_ids: Iterable[int]) -> Detections:
        """The detections on these images."""
        kept = np.isin(self.image_ids_D, np.array(sorted(set(image_ids)), dtype=np.int64))
        return Detections(self.image_ids_D[kept], self.category_ids_D[kept], self.boxes_xywh_D4[kept], self.scores_D[kept])


def truth(document: Document) -> Truth:
    """The ground truth of a COCO document (see :func:`annotate.coco.read_document`).

    Raises:
        CorruptError: a field is missing or malformed, or an annotation names an image or category that is not there.
    """
    annotations = document["annotations"]
    try:
        image_ids = np.unique(np.array([image["id"] for image in document["images"]], dtype=np.int64))
        names = {int(category["id"]): str(category.get("name", category["id"])) for category in document["categories"]}
        boxes = np.array([entry["bbox"] for entry in annotations], dtype=np.float64).reshape(len(annotations), 4)
        areas = [entry.get("area") for entry in annotations]
        result = Truth(
            image_ids,
            np.array(sorted(names), dtype=np.int64),
            tuple(names[number] for number in sorted(names)),
            np.array([entry["image_id"] for entry in annotations], dtype=np.int64),
            np.array([entry["category_id"] for entry in annotations], dtype=np.int64),
            boxes,
            np.where([area is None for area in areas], boxes[:, 2] * boxes[:, 3], np.array(areas, dtype=np.float64)),
            np.array([entry.get("iscrowd", 0) for entry in annotations], dtype=bool),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CorruptError(f"the ground truth is no COCO detection file: {_reason(error)}") from error
    if any(entry.get("id") == 0 for entry in annotations):
        logger.warning("the ground truth has an annotation id 0, which was renumbered: pycocotools would take a match with it for none")
    _check_known(result, result.image_ids_A, result.category_ids_A, "annotations of the ground truth", CorruptError)
    return result


def detections(entries: Sequence[Mapping[str, Any]], of: Truth) -> Detections:
    """Detections from COCO results (`image_id`, `category_id`, `bbox` xywh, `score`), checked against the truth.

    Raises:
        CorruptError: an entry lacks a field, or has a box or score that is no finite number.
        UsageError: detections for images or categories that the ground truth does not have; lists them.
    """
    try:
        result = Detections(
            np.array([entry["image_id"] for entry in entries], dtype=np.int64),
            np.array([entry["category_id"] for entry in entries], dtype=np.int64),
            np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(len(entries), 4),
            np.array([entry["score"] for entry in entries], dtype=np.float64),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptError(
            f"these are no COCO detections ([{{image_id, category_id, bbox: [x, y, w, h], score}}, …]): {_reason(error)}"
        ) from error
    check(result, of)
    return result


def check(found: Detections, of: Truth) -> None:
    """Refuse detections that cannot be judged against this truth.

    Raises:
        CorruptError: a box or score is no finite number.
        UsageError: unknown images or categories; lists them.
    """
    bad = ~(np.isfinite(found.scores_D) & np.isfinite(found.boxes_xywh_D4).all(axis=1))
    if bad.any():
        raise CorruptError(
            f"{int(bad.sum())} detections have a box or score that is no finite number, the first at place {int(bad.argmax())}"
        )
    _check_known(of, found.image_ids_D, found.category_ids_D, "detections", UsageError)


def read_detections(path: Path) -> list[Mapping[str, Any]]:
    """The entries of a COCO results file; a document with `annotations` that carry scores is taken as well.

    Raises:
        NotFoundError: there is no such file.
        CorruptError: it is not JSON, or no list of detections.
    """
    try:
        content = orjson.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {path}") from error
    except orjson.JSONDecodeError as error:
        raise CorruptError(f"{path} is not valid JSON: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        content = content["annotations"]
    if not isinstance(content, list):
        raise CorruptError(f"{path} holds no COCO detections: it must be a list of {{image_id, category_id, bbox, score}}")
    return content


def _check_known(of: Truth, image_ids_N: Ints, category_ids_N: Ints, what: str, error: type[CorruptError] | type[UsageError]) -> None:
    for kind, given, known in (("images", image_ids_N, of.image_ids_I), ("categories", category_ids_N, of.category_ids_K)):
        strangers = np.setdiff1d(given, known)
        if strangers.size:
            named = ", ".join(map(str, strangers[:_SHOWN].tolist())) + (", …" if strangers.size > _SHOWN else "")
            count = int(np.isin(given, strangers).sum())
            raise error(
                f"{count} {what} are for {strangers.size} {kind} that the ground truth does not have (ids {named}); "
                "give the ground truth that these belong to"
            )


def _reason(error: Exception) -> str:
    return f"an entry has no {error}" if isinstance(error, KeyError) else str(error)

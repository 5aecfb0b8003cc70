"""Real images with what is there and what was found, as pictures that lie in the page itself."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image, ImageOps

from annotate.coco import Document
from train.judging.diagnosis import image_quality
from train.judging.evaluate import Evaluation
from train.judging.inputs import Ints

logger = logging.getLogger(__name__)

_SIDE_PX = 520
_QUALITY = 78
#: With more detections than this in an image, only the wrong ones carry a label.
_CROWDED = 12


@dataclass(frozen=True)
class Picture:
    """One image of the sheet: SVG with the image inside, and words below it."""

    svg: Markup
    words: str


@dataclass(frozen=True)
class Sheets:
    """The images with the most errors, and those with the most boxes and none."""

    worst: tuple[Picture, ...]
    best: tuple[Picture, ...]
    unreadable: tuple[str, ...]


def sheets(evaluation: Evaluation, document: Document, folder: Path, threshold: float, each: int = 12) -> Sheets:
    """Choose and draw; an image that cannot be read is left out and named."""
    entries = {entry["id"]: entry for entry in document["images"]}
    quality = image_quality(evaluation, threshold)
    worst = sorted((row for row in quality if row[2] + row[3]), key=lambda row: (-(row[2] + row[3]), row[0]))
    best = sorted((row for row in quality if not row[2] + row[3]), key=lambda row: (-row[1], row[0]))
    unreadable: list[str] = []

    def draw(rows: Sequence[tuple[int, int, int, int]]) -> tuple[Picture, ...]:
        pictures: list[Picture] = []
        for number, right, wrong, missed in rows:
            if len(pictures) == each:
                break
            try:
                pictures.append(_picture(evaluation, entries[number], folder, threshold, f"{right} right, {wrong} wrong, {missed} missed"))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                logger.warning("%s is not on the contact sheet: %s", entries[number].get("file_name"), error)
                unreadable.append(str(entries[number].get("file_name", number)))
        return tuple(pictures)

    return Sheets(draw(worst), draw(best), tuple(unreadable))


def _picture(evaluation: Evaluation, entry: dict[str, Any], folder: Path, threshold: float, words: str) -> Picture:
    path = folder / entry["file_name"]
    data, (width, height) = thumbnail(path, _SIDE_PX)
    scale = np.array([width / (entry.get("width") or width), height / (entry.get("height") or height)] * 2)
    truth, matches = evaluation.truth, evaluation.matches50
    parts = [f'<image href="data:image/jpeg;base64,{data}" width="{width}" height="{height}"/>']
    for box in (truth.boxes_xywh_A4[truth.image_ids_A == entry["id"]] * scale).tolist():
        parts.append(_rectangle(box, "truth"))
    row = int(truth.rows_of_images(np.array([entry["id"]]))[0])
    mine: Ints = np.flatnonzero((matches.image_N == row) & (matches.scores_N >= threshold) & ~matches.ignored_TN[0])
    hits = matches.hits_TN()[0]
    boxes = evaluation.found.boxes_xywh_D4[matches.rows_N] * scale
    size = max(9.0, (0.034 if len(mine) <= _CROWDED else 0.024) * max(width, height))
    order = mine[np.lexsort((-matches.scores_N[mine], hits[mine]))].tolist()  # the wrong ones first, so that these keep their labels
    parts += [_rectangle(boxes[place].tolist(), "right" if hits[place] else "wrong") for place in order]
    taken: list[tuple[float, float, float, float]] = []
    for place in [place for place in order if len(mine) <= _CROWDED or not hits[place]]:
        text = f"{truth.names_K[matches.category_N[place]]} {matches.scores_N[place]:.2f}"
        left, base = _label_place(boxes[place].tolist(), text, size, (width, height))
        room = left, base - size, left + 0.62 * size * len(text), base
        if not any(room[0] < x2 and x1 < room[2] and room[1] < y2 and y1 < room[3] for x1, y1, x2, y2 in taken):
            taken.append(room)
            kind = "right" if hits[place] else "wrong"
            parts.append(f'<text class="{kind}" x="{left:.1f}" y="{base:.1f}" font-size="{size:.1f}">{escape(text)}</text>')
    title = escape(f"{entry['file_name']}: {words}")
    svg = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
    # Numbers and escaped texts only.
    return Picture(Markup(svg), f"{Path(entry['file_name']).name[:12]} – {words}")  # noqa: S704


def thumbnail(path: Path, side_px: int) -> tuple[str, tuple[int, int]]:
    """An upright JPEG of at most that side, in base64, and its size.

    Raises:
        OSError, ValueError, SyntaxError: the file is not there or no image that Pillow can read.
    """
    with Image.open(path) as image:
        image.draft("RGB", (2 * side_px, 2 * side_px))
        upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode(), upright.size


def _label_place(box_xywh: Sequence[float], text: str, size_px: float, picture_wh: tuple[int, int]) -> tuple[float, float]:
    """Left end and base line of a label: above the box, or inside where there is no room above."""
    x, y, *_ = box_xywh
    base = y - 0.3 * size_px if y > 1.3 * size_px else min(y + size_px, picture_wh[1] - 2)
    return max(2.0, min(x, picture_wh[0] - 0.68 * size_px * len(text))), base


def _rectangle(box_xywh: Sequence[float], kind: str) -> str:
    x, y, width, height = box_xywh
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'

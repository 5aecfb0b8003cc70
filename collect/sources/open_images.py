"""Open Images: its CSV lists, which bring boxes; the photographs lie on Flickr, under CC BY 2.0 as the lists state.

A query is the name of one of its 600 boxable classes. The lists are read as streams, the small subsets first; the train
subset's boxes are 2 GB. `base_url` may be a folder with the lists downloaded. An image with a box that stands for a group is
left out, since its objects have no boxes of their own.

`Rotation` is by how many degrees, counterclockwise, image and boxes must be turned to be upright (storage.googleapis.com/
openimages/web/2018-05-17-rotation-information.html). The original on Flickr says the same in its EXIF, which is applied on
entry; so only the boxes are turned here.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collect.clock import now
from collect.errors import NotFoundError
from collect.licenses import spdx_from_url
from collect.records import Candidate, Licence
from collect.sources.http import Client, Declined, typed
from collect.sources.local import path_of
from collect.sources.source import Outcome, Page, SourceSettings, page_of

BASE_URL = "https://storage.googleapis.com/openimages"
CLASSES = "v5/class-descriptions-boxable.csv"
#: subset -> (boxes, images), smallest first.
SUBSETS = {
    "validation": ("v5/validation-annotations-bbox.csv", "2018_04/validation/validation-images-with-rotation.csv"),
    "test": ("v5/test-annotations-bbox.csv", "2018_04/test/test-images-with-rotation.csv"),
    "train": ("v6/oidv6-train-annotations-bbox.csv", "2018_04/train/train-images-boxable-with-rotation.csv"),
}
PAGE_SIZE = 500
Box = tuple[float, float, float, float]


def turned(box: Box, degrees: int) -> Box:
    """A relative box `(x, y, w, h)` after its image was turned counterclockwise by a multiple of 90 degrees.

    >>> turned((0.0, 0.0, 0.25, 0.5), 90)
    (0.0, 0.75, 0.5, 0.25)
    """
    for _ in range(degrees // 90 % 4):
        x, y, width, height = box
        box = (y, 1 - x - width, height, width)
    return box


@dataclass
class _Subset:
    """What a subset holds for a class: the images' rows in order, and their boxes."""

    rows: list[dict[str, str]]
    boxes: dict[str, list[Box]] = field(default_factory=dict)


class OpenImages:
    """Searches the lists of Open Images by class."""

    terms = "open"

    def __init__(self, name: str, settings: SourceSettings) -> None:
        self.name = name
        self._client = Client(name, settings)
        self._base = (settings.base_url or BASE_URL).rstrip("/")
        self._labels: dict[str, str] = {}
        self._read: tuple[tuple[str, str], _Subset] | None = None

    @typed
    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        """Five hundred images of a subset; the cursor is `SUBSET:PLACE`."""
        names = list(SUBSETS)
        subset, _, place = (cursor or f"{names[0]}:0").partition(":")
        label = self._label(query)
        if label is None:
            return page_of([], None, detail=f"Open Images has no boxable class '{query}'")
        found = self._subset(subset, label)
        start, stop = int(place), int(place) + PAGE_SIZE
        candidates = [self._candidate(row, found, query, class_name, rank) for rank, row in enumerate(found.rows[start:stop], start)]
        following = f"{subset}:{stop}" if stop < len(found.rows) else next((f"{name}:0" for name in names[names.index(subset) + 1 :]), None)
        return page_of(candidates, following, detail=f"the subset {subset} has no image of '{query}'")

    def close(self) -> None:
        self._client.close()
        self._read = None

    def _label(self, query: str) -> str | None:
        """The id (`/m/…`) of a class by its name, whatever its case."""
        if not self._labels:
            self._labels = {row[1].casefold(): row[0] for row in csv.reader(self._lines(CLASSES)) if len(row) == 2}
            if not self._labels:
                raise Declined(Outcome.LAYOUT_CHANGED, f"{self.name}: the list of classes is empty")
        return self._labels.get(query.casefold())

    def _subset(self, subset: str, label: str) -> _Subset:
        if self._read is None or self._read[0] != (subset, label):
            boxes_list, images_list = SUBSETS[subset]
            boxes = _boxes(self._table(boxes_list, "ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"), label)
            rows = [row for row in self._table(images_list, "ImageID", "OriginalURL") if row["ImageID"] in boxes and row["OriginalURL"]]
            self._read = ((subset, label), _Subset(rows, boxes))
        return self._read[1]

    def _table(self, name: str, *columns: str) -> Iterator[dict[str, str]]:
        """Rows of a list by its heading.

        Raises:
            Declined: LAYOUT_CHANGED where a column is missing.
        """
        rows: csv.DictReader[str] = csv.DictReader(self._lines(name))
        missing = set(columns) - set(rows.fieldnames or ())
        if missing:
            raise Declined(Outcome.LAYOUT_CHANGED, f"{self.name}: {name} has no column {', '.join(sorted(missing))}")
        yield from rows

    def _lines(self, name: str) -> Iterator[str]:
        if self._base.startswith(("http://", "https://")):
            yield from self._client.lines(f"{self._base}/{name}")
            return
        folder = path_of(self._base) if self._base.startswith("file:") else Path(self._base).expanduser()
        path = next((path for path in (folder / name, folder / Path(name).name) if path.is_file()), None)
        if path is None:
            raise NotFoundError(f"there is no {Path(name).name} in {folder}; download it from {BASE_URL}/{name}")
        with path.open(encoding="utf-8", newline="") as file:
            yield from file

    def _candidate(self, row: dict[str, Any], subset: _Subset, query: str, class_name: str, rank: int) -> Candidate:
        url = row.get("License") or ""
        degrees = int(float(row["Rotation"])) if (row.get("Rotation") or "nan") != "nan" else 0
        page_url, author, title = (row.get(key) or "" for key in ("OriginalLandingURL", "Author", "Title"))
        return Candidate(
            url=row["OriginalURL"],
            source=self.name,
            query=query,
            class_name=class_name,
            rank=rank,
            page_url=page_url,
            thumbnail_url=row.get("Thumbnail300KURL") or "",
            title=title,
            licence=Licence(
                spdx=spdx_from_url(url),
                url=url,
                creator=author,
                creator_url=row.get("AuthorProfileURL") or "",
                title=title,
                attribution=f'"{title}" by {author}, CC BY 2.0, via Open Images' if "/by/2.0" in url else "",
                evidence="Open Images, list of images",
                checked_at=now(),
            ),
            boxes=tuple((class_name, *turned(box, degrees)) for box in subset.boxes[row["ImageID"]]),
        )


def _boxes(rows: Iterator[dict[str, str]], label: str) -> dict[str, list[Box]]:
    """Image id -> boxes of a class, without images where one box stands for a group."""
    boxes: dict[str, list[Box]] = {}
    for image_id, of_image in itertools.groupby((row for row in rows if row["LabelName"] == label), key=lambda row: row["ImageID"]):
        found = list(of_image)
        if all(row.get("IsGroupOf") != "1" for row in found):
            boxes.setdefault(image_id, []).extend(_box(row) for row in found)
    return boxes


def _box(row: dict[str, str]) -> Box:
    left, right, top, bottom = (float(row[key]) for key in ("XMin", "XMax", "YMin", "YMax"))
    return left, top, right - left, bottom - top

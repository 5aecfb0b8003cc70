"""What an import brings, image by image: labels held against the pictures themselves, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from annotate.boxes import iou_matrix
from annotate.formats.format import Done, LabelledBox, LabelledImage, LabelSet
from annotate.image_index import ImageIndex
from annotate.upright import frame_of
from annotate.values import fit_box
from collect.images.inspect import inspect
from collect.images.limits import InspectLimits, Refusal
from collect.records import Licence, Picture

#: Boxes of one category that differ by less are the same box: the coarsest digits that a format's tools write (CVAT: 0.01 px).
SAME_PX = 0.05
_SAME_OBJECT_IOU = 0.5
#: A picture listed under several splits goes to the first of these: an image of the test set never comes to be trained on.
_STRICTEST = ("test", "val", "train", "")
#: Somebody chose these images, so nothing but what could harm the machine is refused.
_LIMITS = InspectLimits(max_bytes=512 << 20, max_pixels=400_000_000)


@dataclass(frozen=True)
class Incoming:
    """One picture and what an import says of it. Boxes are in pixels of the upright picture and inside it.

    `path` is None for a picture that the dataset holds already and that was found by name. `certain` is False where
    nobody said what is on it, or where labels of it had to be left out.
    """

    picture: Picture
    path: Path | None
    file_name: str
    boxes: tuple[LabelledBox, ...]
    split: str = ""
    certain: bool = True
    id: str = ""
    label_file: str = ""
    source_url: str = ""
    licence: Licence | None = None


#: Finds a picture that the dataset holds already, for label files that come without the images.
Known = Callable[[LabelledImage], Picture | None]


def gather(
    found: LabelSet, index: ImageIndex, known: Known, track: Callable[[Iterable[LabelledImage]], Iterator[LabelledImage]]
) -> list[Incoming]:
    """Find and inspect every labelled image, bring its boxes upright and inside, join byte-identical images.

    Problems are added to `found`; an image with a refusal is left out of the result.
    """
    uncertain = {(problem.file, problem.image) for problem in found.problems if problem.done is Done.REFUSED and problem.image}
    by_sha: dict[str, Incoming] = {}
    with ThreadPoolExecutor() as pool:
        looked = pool.map(lambda image: _look(image, index, known), found.images)
        for image, (picture, path, wrong) in zip(track(found.images), looked, strict=True):
            if picture is None:
                lost = bool(image.boxes)
                found.complain(image.label_file or image.file_name, image.id, wrong, Done.REFUSED if lost else Done.SKIPPED)
                continue
            incoming = _fit(image, picture, path, found)
            if incoming is None:
                continue
            if (image.label_file, image.id) in uncertain:
                incoming = replace(incoming, certain=False)
            other = by_sha.get(picture.sha256)
            by_sha[picture.sha256] = _join(other, incoming, found) if other else incoming
    return list(by_sha.values())


def _look(image: LabelledImage, index: ImageIndex, known: Known) -> tuple[Picture | None, Path | None, str]:
    path, wrong = index.find(image)
    if path is None:
        held = known(image)
        return held, None, wrong
    try:
        data = path.read_bytes()
    except OSError as error:
        return None, path, f"the image {path} cannot be read: {error.strerror}"
    picture = inspect(data, _LIMITS)
    if isinstance(picture, Refusal):
        return None, path, f"the image {path.name} cannot be used ({picture.reason}): {picture.detail}"
    return picture, path, ""


def _fit(image: LabelledImage, picture: Picture, path: Path | None, found: LabelSet) -> Incoming | None:
    file = image.label_file or image.file_name
    frame, word, done = frame_of((image.width, image.height), picture, relative=image.relative)
    if word and (image.boxes or frame is None):
        found.complain(file, image.id, word, done)
    if frame is None:
        return None
    boxes: list[LabelledBox] = []
    for box in image.boxes:
        turned = frame.box(box)
        if turned.segmentation is None and box.segmentation is not None:
            found.complain(file, f"{image.id} {box.id}", "the run-length mask is of other pixels; left out", Done.MENDED)
        xywh, wrong = fit_box(turned.xywh, (picture.width, picture.height))
        if wrong:
            lost = Done.REFUSED if "finite" in wrong else Done.SKIPPED
            found.complain(file, f"{image.id} {box.id}".strip(), wrong, lost if xywh is None else Done.MENDED)
        if xywh is not None:
            x, y, w, h = xywh
            boxes.append(replace(turned, x=x, y=y, w=w, h=h, area=_own_area(turned)))
    kept = _without_repeats(boxes, image, found)
    name = path.name if path else Path(image.file_name).name
    return Incoming(picture, path, name, tuple(kept), image.split, image.labels_known, image.id, file, image.source_url, image.licence)


def _own_area(box: LabelledBox) -> float | None:
    """The area where it says something that the box does not: that of a mask."""
    plain = box.area is None or abs(box.area - box.w * box.h) <= 0.01 + 1e-6 * abs(box.w * box.h)
    return None if plain else box.area


def _without_repeats(boxes: list[LabelledBox], image: LabelledImage, found: LabelSet) -> list[LabelledBox]:
    kept: dict[tuple[object, ...], LabelledBox] = {}
    for box in boxes:
        key = (box.category, *box.xywh, box.iscrowd, box.box)
        if key in kept:
            found.complain(image.label_file, f"{image.id} {box.id}".strip(), "is the same as another box; taken once", Done.MENDED)
        kept.setdefault(key, box)
    return list(kept.values())


def same_box(one: LabelledBox, category: str, xywh: tuple[float, float, float, float]) -> bool:
    """Whether a labelled box is the box of that category and place, but for rounding."""
    return one.category == category and all(abs(a - b) <= SAME_PX for a, b in zip(one.xywh, xywh, strict=True))


def _join(one: Incoming, two: Incoming, found: LabelSet) -> Incoming:
    """Two entries with the same bytes: equal boxes once; a box that both have, but differently, as the first has it."""
    ident = two.id or two.file_name
    split = min((one.split, two.split), key=lambda name: _STRICTEST.index(name) if name in _STRICTEST else 0)
    if one.split != two.split:
        word = f"is byte for byte '{one.file_name}', but one is '{one.split}' and the other '{two.split}'; both became '{split}'"
        found.complain(two.label_file, ident, word, Done.MENDED)
    if not one.certain or not two.certain:
        boxes = one.boxes or two.boxes
        return replace(one, boxes=boxes, split=split, certain=one.certain or two.certain)
    new = [box for box in two.boxes if not any(same_box(box, other.category, other.xywh) for other in one.boxes)]
    ious = iou_matrix(np.array([box.xywh for box in new]), np.array([box.xywh for box in one.boxes]))
    added, differing = [], 0
    for place, box in enumerate(new):
        meets = [other for other, overlap in zip(one.boxes, ious[place], strict=True) if overlap >= _SAME_OBJECT_IOU]
        differing += bool(meets)
        added += [] if meets else [box]
    if new:
        word = f"is byte for byte '{one.file_name}' with other boxes: {differing} differ (the first's were kept), {len(added)} were added"
    else:
        word = f"is byte for byte '{one.file_name}', with the same boxes; taken once"
    found.complain(two.label_file, ident, word, Done.MENDED)
    return replace(one, boxes=(*one.boxes, *added), split=split)

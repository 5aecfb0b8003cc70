"""From the pixels that a label file means to the pixels of the upright image: relative, resized or EXIF-rotated labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from annotate.formats.format import Done, LabelledBox
from collect.records import Picture


@dataclass(frozen=True)
class Frame:
    """How a label file's coordinates become upright pixels: first scaled by `scale_xy`, then turned by `orientation`.

    `size_wh` is the size in pixels after scaling, before turning.
    """

    size_wh: tuple[float, float]
    scale_xy: tuple[float, float] = (1.0, 1.0)
    orientation: int = 1

    @property
    def is_identity(self) -> bool:
        return self.scale_xy == (1.0, 1.0) and self.orientation == 1

    def point(self, x: float, y: float) -> tuple[float, float]:
        """A point of the label file in pixels of the upright image; the turns are those of EXIF's Orientation tag (0x0112)."""
        x, y = x * self.scale_xy[0], y * self.scale_xy[1]
        width, height = self.size_wh
        match self.orientation:
            case 2:
                return width - x, y
            case 3:
                return width - x, height - y
            case 4:
                return x, height - y
            case 5:
                return y, x
            case 6:
                return height - y, x
            case 7:
                return height - y, width - x
            case 8:
                return y, width - x
        return x, y

    def box(self, box: LabelledBox) -> LabelledBox:
        """A box in pixels of the upright image; polygons go with it, a run-length mask of other pixels is left out."""
        if self.is_identity:
            return box
        if self.orientation == 1:
            (sx, sy), area = self.scale_xy, box.area
            x, y, w, h = box.x * sx, box.y * sy, box.w * sx, box.h * sy
            return replace(box, x=x, y=y, w=w, h=h, segmentation=self._mask(box.segmentation), area=area and area * sx * sy)
        corners = [self.point(box.x, box.y), self.point(box.x + box.w, box.y + box.h)]
        (x1, x2), (y1, y2) = (sorted(values) for values in zip(*corners, strict=True))
        area = box.area and box.area * self.scale_xy[0] * self.scale_xy[1]
        sign = -1.0 if min(box.w, box.h) < 0 else 1.0  # a box turned inside out must not become right by turning it
        return replace(box, x=x1, y=y1, w=sign * (x2 - x1), h=y2 - y1, segmentation=self._mask(box.segmentation), area=area)

    def _mask(self, segmentation: Any) -> Any:
        if not isinstance(segmentation, list):
            return None
        return [
            [value for x, y in zip(polygon[0::2], polygon[1::2], strict=False) for value in self.point(x, y)] for polygon in segmentation
        ]


def frame_of(stated_wh: tuple[int, int], picture: Picture, *, relative: bool) -> tuple[Frame | None, str, Done]:
    """Which frame a label file's numbers are in, going by the size it states (0, 0 = none), with a word where that was not plain.

    None where the stated size fits the picture in no way: then the labels are likely another image's.
    """
    upright = (picture.width, picture.height)
    stored = upright[::-1] if picture.orientation >= 5 else upright
    if 0 in stated_wh:
        stated_wh = upright
    shares: tuple[float, float] = (float(stated_wh[0]), float(stated_wh[1])) if relative else (1.0, 1.0)
    if stated_wh == upright and (picture.orientation == 1 or relative):
        return Frame(upright, shares), "", Done.NOTED
    if stated_wh == upright and (picture.orientation < 5 or stored == upright):
        word = f"the picture is turned by its EXIF orientation {picture.orientation}; the labels were taken as those of the upright picture"
        return Frame(upright, shares), word, Done.NOTED
    if stated_wh == upright:
        return Frame(upright, shares), "", Done.NOTED
    if stated_wh == stored:
        word = f"the labels are of the picture before its EXIF orientation {picture.orientation}; turned upright"
        return Frame(stored, shares, picture.orientation), word, Done.MENDED
    (stated_w, stated_h), (width, height) = stated_wh, upright
    named = f"the labels are of {stated_w}×{stated_h} pixels, the picture has {width}×{height}"
    if abs(stated_w * height / width - stated_h) <= 1.0 or abs(stated_h * width / height - stated_w) <= 1.0:
        scale = (width / stated_w, height / stated_h)
        return Frame(upright, (shares[0] * scale[0], shares[1] * scale[1])), f"{named}; scaled", Done.MENDED
    return None, f"{named}, which is another shape: these are likely another image's labels", Done.REFUSED

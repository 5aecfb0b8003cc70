"""What can be told of a file without a decoder: how large it may be, and whether it is a web page. Pillow is not needed here."""

from __future__ import annotations

import re
from dataclasses import dataclass

from collect.records import Reason

_MARKUP = re.compile(
    rb"\A(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(!doctype html|html|head|body|svg|!doctype svg)", re.I | re.S
)


@dataclass(frozen=True)
class InspectLimits:
    """Caps checked before pixels are decoded. `min_side_px` and `max_aspect` 0 = no limit."""

    max_bytes: int = 40_000_000
    max_pixels: int = 89_000_000
    max_frames: int = 1000
    min_side_px: int = 0
    max_aspect: float = 0.0


@dataclass(frozen=True)
class Refusal:
    """Why bytes are not an image of ours."""

    reason: Reason
    detail: str


def refuse_bytes(data: bytes, limits: InspectLimits) -> Refusal | None:
    """What can be told without a decoder: no bytes, too many, or a web page."""
    if not data:
        return Refusal(Reason.EMPTY, "no bytes")
    if len(data) > limits.max_bytes:
        return Refusal(Reason.TOO_MANY_BYTES, f"{len(data)} bytes; the limit is {limits.max_bytes}")
    markup = _MARKUP.match(data[:4096])
    if markup:
        if b"svg" in markup[1].lower():
            return Refusal(Reason.FORMAT, "SVG is a drawing, not a photo")
        return Refusal(Reason.HTML, "a web page, not an image")
    return None

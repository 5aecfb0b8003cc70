"""What an image file is, told from its bytes alone; nothing in them may raise, and nothing is decoded before its size is known.

Pillow decodes, because it reports a truncated file where OpenCV fills it with grey in silence, and because it knows the
header before the pixels. JPEG is decoded at reduced scale: enough for hash and scores, a third of the time.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import AvifImagePlugin, Image, UnidentifiedImageError, WebPImagePlugin

from collect.images import hashing, quality
from collect.images.limits import InspectLimits, Refusal, refuse_bytes
from collect.records import Picture, Reason

#: Pillow's name of a format -> (MIME type, extension): what browsers, and so the review, can show.
FORMATS = {
    "JPEG": ("image/jpeg", "jpg"),
    "MPO": ("image/jpeg", "jpg"),
    "PNG": ("image/png", "png"),
    "WEBP": ("image/webp", "webp"),
    "GIF": ("image/gif", "gif"),
    "BMP": ("image/bmp", "bmp"),
    "AVIF": ("image/avif", "avif"),
}
_PLUGINS = (AvifImagePlugin, WebPImagePlugin)  # the import registers them; the rest of Pillow's forty formats stays out
_OPENED = [name for name in FORMATS if name != "MPO"]  # Pillow opens these as JPEG first
#: Formats that are images but not kept, by how their files begin.
_OTHERS = {
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"\0\0\0\x0cjP  ": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000", b"\0\0\1\0": "ICO",
    b"qoif": "QOI", b"P1": "PNM", b"P2": "PNM", b"P3": "PNM", b"P4": "PNM", b"P5": "PNM", b"P6": "PNM",
    b"8BPS": "Photoshop", b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL",
}  # fmt: skip
_OURS = (b"\x89PNG", b"\xff\xd8", b"GIF8", b"RIFF", b"BM")
_ORIENTATION = 0x0112
_WORK_SIDE = 64
_LARGE_PX = 1_000_000  # of a greyscale picture: those of one that is not very long have some ten thousand
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class _Decoded:
    """A file whose pixels are decoded, and its upright greyscale picture, from which nothing is computed yet."""

    data: bytes
    grey: Image.Image
    mime: str
    extension: str
    width: int
    height: int
    orientation: int
    frames: int


def inspect(data: bytes, limits: InspectLimits | None = None) -> Picture | Refusal:
    """What the bytes of a file hold: a :class:`Picture`, or why they are refused.

    An animation counts by its first frame. The pixels of the whole first frame are decoded, so a file that is cut off or
    broken there is refused.
    """
    return inspect_all([data], limits or InspectLimits())[0]


def inspect_all(files: Iterable[bytes], limits: InspectLimits) -> list[Picture | Refusal]:
    """As :func:`inspect`, for several files, each of which is taken when the one before has been decoded.

    What is computed from the pictures is computed of all together: step by step, with each step's code still in the cache.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answers = [_inspected(data, limits) for data in files]
        pictures = iter(_pictures([answer for answer in answers if isinstance(answer, _Decoded)]))
        return [next(pictures) if isinstance(answer, _Decoded) else answer for answer in answers]


def _inspected(data: bytes, limits: InspectLimits) -> _Decoded | Picture | Refusal:
    """A file decoded or refused; one whose picture is large is done with at once, so that there is never more than one of them."""
    refusal = refuse_bytes(data, limits)
    if refusal:
        return refusal
    try:
        with Image.open(io.BytesIO(data), formats=_OPENED) as image:
            refusal = _refuse_header(image, limits)
            if refusal:
                return refusal
            decoded = _decoded(data, image)
            return decoded if decoded.grey.width * decoded.grey.height <= _LARGE_PX else _pictures([decoded])[0]
    except UnidentifiedImageError:
        return _unidentified(data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        return Refusal(Reason.TOO_MANY_PIXELS, str(error))
    except MemoryError:
        return Refusal(Reason.TOO_MANY_PIXELS, "decoding needs more memory than a worker has")
    except Exception as error:
        return Refusal(Reason.BROKEN, f"{type(error).__name__}: {error}"[:300])


def _pictures(files: Sequence[_Decoded]) -> list[Picture]:
    """What is computed from bytes and pixels: names, hashes, scores."""
    greys = [file.grey for file in files]
    names = [(hashlib.sha256(file.data).hexdigest(), hashlib.sha1(file.data, usedforsecurity=False).hexdigest()) for file in files]
    computed = zip(names, hashing.phashes(greys), [hashing.signature(grey) for grey in greys], quality.scores(greys), strict=True)
    return [
        Picture(
            sha256=sha256, sha1=sha1, num_bytes=len(file.data), mime=file.mime, extension=file.extension, width=file.width,
            height=file.height, orientation=file.orientation, phash=phash, quality=scores, signature=signature, frames=file.frames,
        )
        for file, ((sha256, sha1), phash, signature, scores) in zip(files, computed, strict=True)
    ]  # fmt: skip


def _unidentified(data: bytes) -> Refusal:
    head = data[:16]
    other = next((name for start, name in _OTHERS.items() if head.startswith(start)), "")
    if not other and head[4:12] in {b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc"}:
        other = "HEIF"
    if other:
        return Refusal(Reason.FORMAT, f"{other} cannot be shown in a browser; convert it to PNG or JPEG")
    if head.startswith(_OURS):
        return Refusal(Reason.BROKEN, f"begins like an image ({head[:8].hex(' ')}) but its header cannot be read")
    return Refusal(Reason.NOT_AN_IMAGE, f"no image format begins with {head[:8].hex(' ')}")


def _refuse_header(image: Image.Image, limits: InspectLimits) -> Refusal | None:
    """Whatever the header alone can tell."""
    width, height = image.size
    if width * height > limits.max_pixels:
        return Refusal(Reason.TOO_MANY_PIXELS, f"{width}×{height} pixels; the limit is {limits.max_pixels}")
    if width == 0 or height == 0 or min(width, height) < limits.min_side_px:
        return Refusal(Reason.TOO_SMALL, f"{width}×{height} pixels; the shorter side must have {limits.min_side_px}")
    if limits.max_aspect and max(width, height) > limits.max_aspect * min(width, height):
        return Refusal(Reason.ASPECT, f"{width}×{height} is longer than 1:{limits.max_aspect:g}")
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > limits.max_frames:
        return Refusal(Reason.TOO_MANY_FRAMES, f"{frames} frames; the limit is {limits.max_frames}")
    return None


def _decoded(data: bytes, image: Image.Image) -> _Decoded:
    assert image.format is not None
    mime, extension = FORMATS[image.format]
    width, height = image.size
    is_animated = image.format != "MPO" and hasattr(image, "n_frames")
    if is_animated:
        image.seek(0)
    image.draft("L", (_WORK_SIDE, _WORK_SIDE))
    grey = _grey(image)
    orientation = _orientation(image)  # after the pixels: Pillow may decode a PNG to find it, and its error would be lost here
    if orientation in _TRANSPOSE:
        grey = grey.transpose(_TRANSPOSE[orientation])
    if orientation >= 5:
        width, height = height, width
    return _Decoded(data, grey, mime, extension, width, height, orientation, int(getattr(image, "n_frames", 1)) if is_animated else 1)


def _grey(image: Image.Image) -> Image.Image:
    """The first frame as greyscale upon white, its shorter side about 64–128 px."""
    image.load()
    factor = min(image.size) // _WORK_SIDE
    if factor >= 2 and image.mode in {"L", "RGB", "RGBA", "CMYK"}:
        image = image.reduce(factor)
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    elif image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    return image.convert("L")


def _orientation(image: Image.Image) -> int:
    """The EXIF (or XMP) orientation, 1 where it is absent or not one of 1–8."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1

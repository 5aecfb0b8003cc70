"""Decoding, and a store of images that were decoded and shrunk once.

A scraped photograph of 2000×1500 costs some 7 ms to decode and 1 ms to shrink, every epoch; from the store it costs 0.3 ms.
The key is the sha256 of the original bytes and the longest side, so a store can never be stale and may be deleted at any time.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from collect.errors import BoxwrightError

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
#: What stays free on the disk, whatever is cached.
LEAST_FREE_BYTES = 2 << 30


class UnreadableError(BoxwrightError):
    """An image cannot be decoded; the loader reports it, skips it and counts it."""


#: Divisors at which JPEG decodes directly, from its frequencies: smaller, at a fraction of the time.
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


def decode(path: Path, least_px: int = 0) -> Pixels:
    """An image as uint8 RGB (H, W, 3), EXIF orientation applied once.

    OpenCV decodes (it applies the orientation itself); what it cannot read, Pillow may. Transparency is laid on white.

    Args:
        path: the file.
        least_px: a large JPEG may come out smaller, its longest side no shorter than this; 0 = at its own size.

    Raises:
        UnreadableError: there is no such file, or neither can read it.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UnreadableError(f"{path.name}: {error.strerror or error}") from error
    if data.size == 0:
        raise UnreadableError(f"{path.name}: the file is empty")
    if _needs_pillow(data):
        return _decode_with_pillow(path)
    divisor = _divisor(path, data, least_px)
    if divisor > 1:
        reduced = cv2.imdecode(data, _REDUCED[divisor])
        return _decode_with_pillow(path) if reduced is None else cv2.cvtColor(reduced, cv2.COLOR_BGR2RGB)
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    return pixels if pixels is not None else _decode_with_pillow(path)


def _divisor(path: Path, data: Pixels, least_px: int) -> int:
    """By how much a JPEG may be divided while decoding; 1 for all else."""
    if not least_px or data[:2].tobytes() != b"\xff\xd8":
        return 1
    from PIL import Image

    try:
        with Image.open(path) as opened:
            longest = max(opened.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return 1
    return next((divisor for divisor in _REDUCED if longest >= divisor * least_px), 1)


def _needs_pillow(data: Pixels) -> bool:
    """Whether OpenCV would decode silently wrong: PNG, GIF and WebP may hold transparency, a JPEG cut short grey pixels."""
    head = data[:16].tobytes()
    if head.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-4096:].tobytes()
    return head.startswith((b"\x89PNG", b"GIF8")) or head[8:12] == b"WEBP"


def _decode_with_pillow(path: Path) -> Pixels:
    import warnings

    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                image = ImageOps.exif_transpose(opened)
                if image.mode.startswith("I;16"):
                    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                if "A" in image.getbands() or "transparency" in image.info:
                    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
                return np.array(image.convert("RGB"))  # a copy: as writable as what OpenCV decodes
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error … by the format
        raise UnreadableError(f"{path.name}: {type(error).__name__}: {error}") from error


def shrink(pixels: Pixels, longest_px: int) -> Pixels:
    """The image with no side longer than `longest_px`; never enlarged. Averages areas where it would alias otherwise."""
    height, width = pixels.shape[:2]
    scale = longest_px / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    shrunk: Pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 0.6 else cv2.INTER_LINEAR)
    return shrunk


class ImageCache:
    """Images no side of which is longer than `longest_px`, decoded at most once.

    Args:
        folder: where the store lies, such as `datasets/NAME/.cache`; None = decode every time.
        longest_px: the longest side that is kept.
    """

    def __init__(self, folder: Path | None, longest_px: int) -> None:
        self.folder = folder / f"shrunk-{longest_px}" if folder else None
        self.longest_px = longest_px
        self._full = False

    def read(self, path: Path, sha256: str) -> Pixels:
        """The image, from the store or from `path`; `sha256` "" = not to be kept. Read-only memory.

        Raises:
            UnreadableError: it cannot be decoded.
        """
        kept = self.folder / sha256[:2] / f"{sha256}.npy" if self.folder and sha256 else None
        if kept is not None:
            try:
                kept_pixels: Pixels = np.load(kept, mmap_mode="r", allow_pickle=False)
                return kept_pixels
            except FileNotFoundError:
                pass
            except (OSError, ValueError, EOFError) as error:
                logger.warning("%s: %s; it is made again", kept, error)
        pixels = shrink(decode(path, self.longest_px), self.longest_px)
        if kept is not None and not self._full:
            self._keep(kept, pixels)
        return pixels

    def _keep(self, kept: Path, pixels: Pixels) -> None:
        """Write by rename; a full disk only means that nothing more is kept."""
        temporary = kept.with_suffix(f".{os.getpid()}.tmp")
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(kept.parent).free < LEAST_FREE_BYTES + pixels.nbytes:
                self._full = True
                logger.warning("less than 2 GiB are free at %s; further images are decoded every time", kept.parent)
                return
            with temporary.open("wb") as file:
                np.save(file, pixels, allow_pickle=False)
            temporary.replace(kept)
        except OSError as error:
            self._full = True
            temporary.unlink(missing_ok=True)
            logger.warning("cannot keep decoded images at %s (%s); they are decoded every time", kept.parent, error)

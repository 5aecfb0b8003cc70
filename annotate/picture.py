"""What an image's bytes hold, until `collect.images.inspect` is merged here."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from PIL import Image, ImageOps

from collect.records import Picture


def inspect(data: bytes) -> Picture | str:
    """The picture, or a sentence why there is none."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            orientation = image.getexif().get(274, 1)
            kind = (image.format or "").lower()
            upright = ImageOps.exif_transpose(image)
            width, height = upright.size
            small = np.asarray(upright.convert("L").resize((9, 8)), dtype=np.int16)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"cannot be decoded: {error}"
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    phash = f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"
    extension = {"jpeg": "jpg", "mpo": "jpg"}.get(kind, kind)
    orientation = orientation if orientation in range(1, 9) else 1
    return Picture(hashlib.sha256(data).hexdigest(), len(data), f"image/{kind}", extension, width, height, orientation, phash)

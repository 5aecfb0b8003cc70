"""File names that a person can read, for images that the store keeps under their hash."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlparse

from annotate.formats.label_files import IMAGE_SUFFIXES

_LONGEST = 120


def readable_stem(name: str) -> str:
    """The stem of a file name or URL, with only characters that every system and tool takes; "" where none is left.

    >>> readable_stem("https://example.org/a/My%20cat%2F2.JPG?x=1"), readable_stem("raccoon-1.jpg"), readable_stem("../..")
    ('2', 'raccoon-1', '')
    """
    path = unquote(urlparse(name).path) if "://" in name else name
    base = PurePosixPath(path.replace("\\", "/")).name
    stem = base[: -len(suffix)] if (suffix := PurePosixPath(base).suffix).lower() in IMAGE_SUFFIXES else base
    return re.sub(r"[^\w.-]+", "_", stem).strip("._")[:_LONGEST]


def name_images(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The images of a document with `name` set: the original's where known, with `-<8 of sha256>` where two would be alike.

    `original_name` is the file name under which an image came. Names differ in their stems, whatever their case.
    """
    stems = [
        readable_stem(image.get("original_name") or "") or readable_stem(image.get("source_url") or "") or _own(image)[:12]
        for image in images
    ]
    times = Counter(stem.lower() for stem in stems)
    named = []
    taken: set[str] = set()
    for image, stem in zip(images, stems, strict=True):
        unique = stem if times[stem.lower()] == 1 and stem.lower() not in taken else f"{stem}-{_own(image)[:8]}"
        while unique.lower() in taken:
            unique += f"-{image['id']}"
        taken.add(unique.lower())
        named.append({**image, "name": unique + PurePosixPath(image["file_name"]).suffix})
    return named


def _own(image: dict[str, Any]) -> str:
    return image.get("sha256") or PurePosixPath(image["file_name"]).stem

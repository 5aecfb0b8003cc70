"""Self-contained HTML pages of small pictures with boxes on them."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; }
td, th { padding: .2rem .8rem .2rem 0; text-align: right; }
td:first-child, th:first-child { text-align: left; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
figure { margin: 0; }
figure img { width: 100%; border-radius: 4px; background: #8883; }
figcaption { font-size: .8rem; opacity: .85; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Mark:
    """A box drawn on a picture: xywh in pixels of the upright image, a colour name, a label."""

    xywh: Sequence[float]
    colour: str
    label: str = ""


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet. A file that cannot be read becomes a tile that says so."""

    path: Path
    caption: str
    marks: tuple[Mark, ...] = ()


def thumbnail(tile: Tile, side_px: int = 360) -> str:
    """The picture, upright, with its marks, no side longer than `side_px`, as a data URI; "" where it cannot be read."""
    try:
        with Image.open(tile.path) as stored:
            stored.draft("RGB", (side_px * 2, side_px * 2))
            full = _upright_size(tile.path)
            image = ImageOps.exif_transpose(stored).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""
    image.thumbnail((side_px, side_px))
    scale = image.width / full[0]
    draw = ImageDraw.Draw(image)
    for mark in tile.marks:
        x, y, w, h = (value * scale for value in mark.xywh)
        draw.rectangle((x, y, x + w, y + h), outline=mark.colour, width=2)
        if mark.label:
            where = (x + 2, max(0, y - 11))
            draw.rectangle(draw.textbbox(where, mark.label), fill=mark.colour)
            draw.text(where, mark.label, fill="white")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _upright_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        turned = image.getexif().get(274, 1) in {5, 6, 7, 8}
        return (image.height, image.width) if turned else image.size


def sheet(title: str, tiles: Iterable[Tile]) -> str:
    """A section of a page: a heading and the pictures below it."""
    figures = []
    for tile in tiles:
        picture = thumbnail(tile)
        body = f'<img src="{picture}" alt="">' if picture else "<p>(cannot be read)</p>"
        figures.append(f"<figure>{body}<figcaption>{html.escape(tile.caption)}</figcaption></figure>")
    return f'<h2>{html.escape(title)}</h2>\n<div class="sheet">{"".join(figures)}</div>' if figures else ""


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table."""
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def page(title: str, sections: Iterable[str]) -> str:
    """A whole page, readable by day and by night, without any other file."""
    body = "\n".join(sections)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    return f"<!doctype html><html lang=en>{head}<style>{_STYLE}</style><body><h1>{html.escape(title)}</h1>\n{body}</body></html>\n"

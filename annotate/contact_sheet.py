"""Self-contained HTML pages of small pictures with boxes on them."""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

_SIDE_PX = 420
#: Height of a box's name, and the least that can be read.
_LABEL_PX, _LEAST_PX = 18.0, 9.0
#: A close-up shows the marks with this much of their own size around them, and no less than this share of the picture.
_MARGIN, _LEAST_SHARE = 0.6, 0.35
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .8rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .25rem 0 .25rem 1.4rem; text-align: right; border-bottom: 1px solid #8883; font-variant-numeric: tabular-nums; }
td:first-child, th:first-child { text-align: left; padding-left: 0; }
.legend span { display: inline-block; width: .9rem; height: .9rem; border: 3px solid; border-radius: 2px; vertical-align: -.15rem; }
.legend span + span { margin-left: 1.2rem; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1.2rem 1rem; align-items: start; }
figure { margin: 0; }
figure svg, .lost { display: block; width: 100%; height: 14rem; border-radius: 4px; background: #8882; }
.lost { display: grid; place-items: center; opacity: .7; font-size: .8rem; }
figcaption { font-size: .8rem; line-height: 1.35; opacity: .85; overflow-wrap: anywhere; margin-top: .3rem; }
rect { fill: none; pointer-events: all; stroke-width: 2px; vector-effect: non-scaling-stroke; }
text { font: 600 18px system-ui, sans-serif; fill: #fff; paint-order: stroke; stroke-width: 4px; stroke-linejoin: round; }
"""


@dataclass(frozen=True)
class Mark:
    """A box drawn on a picture: xywh in pixels of the upright image, a colour name, a label."""

    xywh: Sequence[float]
    colour: str
    label: str = ""


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet, whole or a close-up of its marks. A file that cannot be read becomes a tile that says so."""

    path: Path
    caption: str
    marks: tuple[Mark, ...] = ()
    close_up: bool = False


def drawing(tile: Tile) -> str:
    """The picture, upright, with its marks, as an SVG that holds it all; "" where it cannot be read."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(tile.path) as stored:  # Pillow's words about odd EXIF
            upright = ImageOps.exif_transpose(stored).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    x1, y1, x2, y2 = window(tile.marks, upright.size) if tile.close_up and tile.marks else (0, 0, *upright.size)
    picture = upright.crop((x1, y1, x2, y2))
    picture.thumbnail((_SIDE_PX, _SIDE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    data = base64.b64encode(buffer.getvalue()).decode()
    scale = _SIDE_PX / max(x2 - x1, y2 - y1)  # small pictures are drawn as large as others, so that all labels are alike
    width, height = round((x2 - x1) * scale), round((y2 - y1) * scale)
    marks = "".join(_mark(mark, (x1, y1), scale) for mark in tile.marks)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img">'
        f'<image href="data:image/jpeg;base64,{data}" width="{width}" height="{height}"/>{marks}</svg>'
    )


def window(marks: Sequence[Mark], size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of a picture (edges in pixels) that shows all marks and some of what is around them.

    >>> window([Mark((400, 300, 50, 50), "red")], (1000, 1000))
    (250, 150, 600, 500)
    >>> window([Mark((0, 0, 900, 900), "red")], (1000, 1000))
    (0, 0, 1000, 1000)
    """
    low = [min(mark.xywh[axis] for mark in marks) for axis in (0, 1)]
    high = [max(mark.xywh[axis] + mark.xywh[axis + 2] for mark in marks) for axis in (0, 1)]
    side = max(max(high[axis] - low[axis] for axis in (0, 1)) * (1 + 2 * _MARGIN), max(size_wh) * _LEAST_SHARE)
    edges = []
    for axis in (0, 1):
        shown = min(round(side), size_wh[axis])
        start = min(max(round((low[axis] + high[axis]) / 2 - shown / 2), 0), size_wh[axis] - shown)
        edges.append((start, start + shown))
    return edges[0][0], edges[1][0], edges[0][1], edges[1][1]


def _mark(mark: Mark, origin: tuple[int, int], scale: float) -> str:
    """A box and its name as SVG.

    >>> [_mark(Mark((0, 0, side, side), "red", "cat"), (0, 0), 1.0).count("<text") for side in (12, 120)]
    [0, 1]
    """
    x, y = ((mark.xywh[axis] - origin[axis]) * scale for axis in (0, 1))
    w, h = mark.xywh[2] * scale, mark.xywh[3] * scale
    name = html.escape(mark.label)
    # A name wider than its box would hide it and its neighbours: it is written smaller, or seen when the pointer is there.
    high = min(_LABEL_PX, w / (0.62 * max(len(mark.label), 1)))
    style = f' style="font-size:{high:.1f}px"' if high < _LABEL_PX else ""
    label = (
        f'<text x="{x + 4:.1f}" y="{y + high + 1:.1f}" stroke="{mark.colour}"{style}>{name}</text>' if name and high >= _LEAST_PX else ""
    )
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" stroke="{mark.colour}"><title>{name}</title></rect>{label}'


def sheet(title: str, tiles: Iterable[Tile]) -> str:
    """A section of a page: a heading and the pictures below it."""
    figures = []
    for tile in tiles:
        body = drawing(tile) or '<div class="lost">cannot be read</div>'
        figures.append(f"<figure>{body}<figcaption>{html.escape(tile.caption)}</figcaption></figure>")
    return f'<h2>{html.escape(title)}</h2>\n<div class="sheet">{"".join(figures)}</div>' if figures else ""


def legend(colours: dict[str, str]) -> str:
    """What the colours of the boxes mean: word -> colour."""
    parts = "".join(f'<span style="border-color:{colour}"></span> {html.escape(word)} ' for word, colour in colours.items())
    return f'<p class="legend">{parts}</p>'


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table."""
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def page(title: str, sections: Iterable[str]) -> str:
    """A whole page, readable by day and by night, without any other file."""
    body = "\n".join(sections)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    return f"<!doctype html><html lang=en>{head}<style>{_STYLE}</style><body><h1>{html.escape(title)}</h1>\n{body}</body></html>\n"

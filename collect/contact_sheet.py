"""report.html of a collection: how full each class is, and contact sheets of what was kept, came twice or was refused, and why.

One file that needs nothing else: thumbnails lie in it as data URLs. Of pictures that were refused, and of near-duplicates, a
small grey preview was kept in the ledger; a duplicate is shown beside the image that it is a copy of.
"""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from PIL import Image, ImageOps

from collect import quota_table
from collect.clock import now
from collect.definition import Definition
from collect.files import write_atomic
from collect.images.hashing import SIGNATURE_SIDE
from collect.ledger import Ledger
from collect.records import ImageRecord, State
from collect.report import Loss, explain
from collect.workspace import Dataset

THUMBNAIL_PX = 160
_SHOWN = 60
#: Column -> the states that it counts; `seen` are all.
_ENDS: dict[str, tuple[State, ...]] = {
    "seen": (),
    "kept": (State.KEPT,),
    "duplicate": (State.DUPLICATE,),
    "quarantined": (State.QUARANTINED,),
    "revoked": (State.REVOKED,),
    "refused": (State.DENIED, State.INVALID),
    "lost": (State.GONE,),
}
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882}
body{font:15px/1.45 system-ui,sans-serif;max-width:1180px;margin:2rem auto;padding:0 1rem}
h1{margin:0}h2{margin:2.2rem 0 .3rem;border-bottom:1px solid var(--line)}p.sub{margin:.2rem 0 1rem;opacity:.75}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(168px,1fr));gap:12px}
figure{margin:0;background:var(--soft);border-radius:6px;padding:6px;overflow:hidden}
figure img{display:block;width:100%;height:150px;object-fit:contain}
figure .pair{display:flex;gap:4px}figure .pair img{min-width:0;flex:1}
figcaption{font-size:12px;overflow-wrap:anywhere;margin-top:4px}figcaption b{display:block}
a{color:inherit}
figcaption :is(a,span){display:block;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;direction:rtl;text-align:left}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
td,th{padding:4px 10px 4px 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td a{font-size:13px;overflow-wrap:anywhere}tr.all{font-weight:600}
.none{opacity:.6;height:150px;display:grid;place-items:center;font-size:12px}
"""


def write_report(dataset: Dataset, ledger: Ledger, definition: Definition, ends: Mapping[str, str]) -> Path:
    """Write `report.html` into the dataset's folder; returns its path. `ends` is :meth:`collect.planner.Planner.ends`."""
    path = dataset.folder / "report.html"
    write_atomic(path, "".join(_document(dataset, ledger, definition, ends)))
    return path


def thumbnail(path: Path, side_px: int = THUMBNAIL_PX) -> str:
    """A picture as a small upright JPEG in a `data:` URL, or "" where it cannot be read."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:  # Pillow's words about odd EXIF
            picture.draft("RGB", (2 * side_px, 2 * side_px))
            small = ImageOps.exif_transpose(picture).convert("RGB")
            small.thumbnail((side_px, side_px))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=72)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def preview(grey: bytes) -> str:
    """A kept 24×24 grey thumbnail as a `data:` URL, enlarged, or "" where there is none."""
    if len(grey) != SIGNATURE_SIDE**2:
        return ""
    buffer = io.BytesIO()
    Image.frombytes("L", (SIGNATURE_SIDE, SIGNATURE_SIDE), grey).resize((96, 96), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=72)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _document(dataset: Dataset, ledger: Ledger, definition: Definition, ends: Mapping[str, str]) -> Iterator[str]:
    counts, losses = ledger.counts(), explain(ledger)
    kept = ledger.num_images()
    yield '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    yield f"<title>{_text(dataset.name)}: collection</title><style>{_STYLE}{quota_table.STYLE}</style>"
    yield f"<h1>{_text(dataset.name)}</h1>"
    imported = kept - counts.states.get(State.KEPT, 0)
    yield f'<p class="sub">{kept - imported:,} images kept of {sum(counts.states.values()):,} URLs seen'
    yield f"{f'; {imported:,} imported' if imported > 0 else ''}; {now()[:16]} UTC</p>"
    yield from quota_table.rendered(counts, definition, ends)
    yield "<h2>By source and class</h2><div class=wide><table><tr><th>source<th>class"
    yield "".join(f"<th class=n>{name}" for name in (*_ENDS, "waiting")) + "</tr>"
    yield from _source_rows(counts.by_source)
    yield "</table></div><h2>Why images are not there</h2><div class=wide><table>"
    if not losses:
        yield "<tr><td>No URL was lost.</tr>"
    else:
        yield "<tr><th class=n>number<th>state<th>reason<th>what it means</tr>"
    for loss in losses:
        count, state, reason, words = loss["count"], loss["state"], _text(loss["reason"]), _text(loss["sentence"])
        yield f"<tr><td class=n>{count:,}<td>{state}<td>{reason}<td>{words}</tr>"
    yield "</table></div>"
    yield from _images(dataset, "Kept", f"{kept:,} in all", ledger.newest_images(State.KEPT, _SHOWN))
    yield from _images(dataset, "Quarantined", "never released", ledger.newest_images(State.QUARANTINED, _SHOWN))
    yield from _images(dataset, "Revoked", "left out of the next release", ledger.newest_images(State.REVOKED, _SHOWN))
    yield from _duplicates(dataset, ledger)
    yield from _refused(ledger)
    yield from _lost(loss for loss in losses if loss["state"] in {State.INVALID, State.DENIED, State.GONE, State.RETRY})


def _source_rows(by_source: dict[tuple[str, str, str], int]) -> Iterator[str]:
    rows: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for (source, class_name, state), number in sorted(by_source.items()):
        rows[source, class_name][state] += number
    for (source, class_name), states in rows.items():
        yield f"<tr><td>{_text(source)}<td>{_text(class_name)}{_cells(states)}</tr>"
    if len(rows) > 1:
        yield f'<tr class="all"><td>all<td>{_cells(sum(rows.values(), Counter()))}</tr>'


def _cells(states: Counter[str]) -> str:
    """The numbers of a row: all that were seen, by how they ended, and what has not ended yet."""
    seen = sum(states.values())
    ends = [sum(states[state] for state in members) for members in list(_ENDS.values())[1:]]
    return "".join(f'<td class="n">{number:,}' for number in (seen, *ends, seen - sum(ends)))


def _images(dataset: Dataset, title: str, note: str, records: Iterable[ImageRecord]) -> Iterator[str]:
    figures = [
        _figure(
            [thumbnail(dataset.image_path(record.sha256, record.extension))],
            record.class_name or record.file_name,
            f"{record.width}×{record.height}, {record.licence.spdx or 'no licence stated'}, {record.source}"
            + (f", {record.reason}" if record.reason else ""),
            record.source_url,
        )
        for record in records
    ]
    if figures:
        yield f'<h2>{title}</h2><p class="sub">the newest {len(figures)}; {note}</p><div class="sheet">{"".join(figures)}</div>'


def _duplicates(dataset: Dataset, ledger: Ledger) -> Iterator[str]:
    figures = []
    rows = ledger.rows(
        "SELECT url, reason, detail, duplicate_of, grey FROM urls LEFT JOIN previews ON url_id = id WHERE state = 'DUPLICATE'"
        " ORDER BY reason DESC, id LIMIT ?",
        _SHOWN,
    )
    for url, reason, detail, original, grey in rows:
        record = ledger.image(original) if original else None
        shown = [thumbnail(dataset.image_path(record.sha256, record.extension))] if record else []
        figures.append(_figure([*shown, preview(grey or b"")], f"{reason} duplicate", detail or "the same bytes", url))
    if figures:
        words = "each is shown as the image that it is a copy of; beside that, in grey, what came, where its bytes differ"
        yield f'<h2>Duplicates</h2><p class="sub">{words}</p><div class="sheet">{"".join(figures)}</div>'


def _refused(ledger: Ledger) -> Iterator[str]:
    rows = ledger.rows(
        "SELECT url, reason, detail, grey FROM previews JOIN urls ON id = url_id WHERE state = 'INVALID' ORDER BY reason, id LIMIT ?",
        _SHOWN,
    )
    figures = [_figure([preview(grey)], reason, detail, url) for url, reason, detail, grey in rows]
    if figures:
        words = "small grey previews, squeezed into squares: the pictures themselves were not kept; the limits stand in dataset.toml"
        yield f'<h2>Refused</h2><p class="sub">{words}</p><div class="sheet">{"".join(figures)}</div>'


def _lost(losses: Iterable[Loss]) -> Iterator[str]:
    rows = [
        f"<tr><td>{loss['state']}<td>{_text(loss['reason'])}<td>{_link(example['url'])}<td>{_text(str(example['detail'] or ''))}</tr>"
        for loss in losses
        for example in loss["examples"]
    ]
    if rows:
        head = "<tr><th>state<th>reason<th>URL<th>detail</tr>"
        yield f"<h2>Refused and lost: examples</h2><div class=wide><table>{head}{''.join(rows)}</table></div>"


def _figure(data_urls: list[str], title: str, note: str, url: str) -> str:
    pictures = "".join(f'<img src="{data_url}" alt="{_text(title)}">' for data_url in data_urls if data_url)
    shown = f'<div class="pair">{pictures}</div>' if pictures else '<div class="none">no picture kept</div>'
    return f"<figure>{shown}<figcaption><b>{_text(title)}</b>{_text(note)}{_link(url)}</figcaption></figure>"


def _link(url: str) -> str:
    """A URL to be followed where it is one of the web, else its text; nothing is loaded from it before that."""
    if not url.startswith(("http://", "https://")):
        return f"<span>{_text(url)}</span>"
    return f'<a href="{_text(url)}" title="{_text(url)}" rel="noreferrer noopener"><bdi>{_text(url)}</bdi></a>'


def _text(words: str) -> str:
    return html.escape(words, quote=True)

"""report.html of a collection: contact sheets of what was kept, what was the same twice, and what was refused, with reasons.

One file that needs nothing else: thumbnails lie in it as data URLs. Refused images whose bytes were not kept are named by
their URL; a duplicate is shown as the image that it is a copy of.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image, ImageOps

from collect.clock import now
from collect.files import write_atomic
from collect.ledger import Ledger
from collect.records import ImageRecord, State
from collect.report import Loss, explain
from collect.workspace import Dataset

THUMBNAIL_PX = 160
_SHOWN = 60
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882}
body{font:15px/1.45 system-ui,sans-serif;max-width:1180px;margin:2rem auto;padding:0 1rem}
h1{margin:0}h2{margin:2.2rem 0 .3rem;border-bottom:1px solid var(--line)}p.sub{margin:.2rem 0 1rem;opacity:.75}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(168px,1fr));gap:12px}
figure{margin:0;background:var(--soft);border-radius:6px;padding:6px;overflow:hidden}
figure img{display:block;width:100%;height:150px;object-fit:contain}
figcaption{font-size:12px;overflow-wrap:anywhere;margin-top:4px}figcaption b{display:block}
table{border-collapse:collapse;width:100%}
td,th{padding:4px 10px 4px 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:12px;overflow-wrap:anywhere}
.none{opacity:.6;height:150px;display:grid;place-items:center;font-size:12px}
"""


def write_report(dataset: Dataset, ledger: Ledger) -> Path:
    """Write `report.html` into the dataset's folder; returns its path."""
    path = dataset.folder / "report.html"
    write_atomic(path, "".join(_document(dataset, ledger)))
    return path


def thumbnail(path: Path, side_px: int = THUMBNAIL_PX) -> str:
    """A picture as a small upright JPEG in a `data:` URL, or "" where it cannot be read."""
    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (2 * side_px, 2 * side_px))
            small = ImageOps.exif_transpose(picture).convert("RGB")
            small.thumbnail((side_px, side_px))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=72)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _document(dataset: Dataset, ledger: Ledger) -> Iterator[str]:
    counts, losses = ledger.counts(), explain(ledger)
    kept = ledger.num_images()
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(dataset.name)}: collection</title><style>{_STYLE}</style>'
    yield f"<h1>{_text(dataset.name)}</h1>"
    yield f'<p class="sub">{kept:,} images kept of {sum(counts.states.values()):,} URLs seen; {now()[:16]} UTC</p>'
    yield "<h2>By source and class</h2><table><tr><th>source<th>class"
    yield "".join(f"<th class=n>{name}" for name in ("seen", "kept", "duplicate", "refused or lost", "waiting")) + "</tr>"
    yield from _source_rows(counts.by_source)
    yield "</table><h2>Why images are not there</h2><table><tr><th class=n>number<th>state<th>reason<th>what it means</tr>"
    for loss in losses:
        count, state, reason, words = loss["count"], loss["state"], _text(loss["reason"]), _text(loss["sentence"])
        yield f"<tr><td class=n>{count:,}<td>{state}<td>{reason}<td>{words}</tr>"
    yield "</table>"
    yield from _images(dataset, "Kept", f"{kept:,} in all", ledger.newest_images(State.KEPT, _SHOWN))
    yield from _images(dataset, "Quarantined", "never released", ledger.newest_images(State.QUARANTINED, _SHOWN))
    yield from _images(dataset, "Revoked", "left out of the next release", ledger.newest_images(State.REVOKED, _SHOWN))
    yield from _duplicates(dataset, ledger)
    yield from _refused(loss for loss in losses if loss["state"] in {State.INVALID, State.DENIED, State.GONE, State.RETRY})


def _source_rows(by_source: dict[tuple[str, str, str], int]) -> Iterator[str]:
    waiting = {State.FOUND, State.ALLOWED, State.LEASED, State.RETRY, State.FETCHED, State.VALID, State.UNIQUE}
    for source, class_name in sorted({key[:2] for key in by_source}):
        states = {State(state): number for (its, label, state), number in by_source.items() if (its, label) == (source, class_name)}
        seen, kept, same = sum(states.values()), states.get(State.KEPT, 0), states.get(State.DUPLICATE, 0)
        wait = sum(number for state, number in states.items() if state in waiting)
        cells = "".join(f'<td class="n">{number:,}' for number in (seen, kept, same, seen - kept - same - wait, wait))
        yield f"<tr><td>{_text(source)}<td>{_text(class_name)}{cells}</tr>"


def _images(dataset: Dataset, title: str, note: str, records: Iterable[ImageRecord]) -> Iterator[str]:
    figures = [
        _figure(
            thumbnail(dataset.image_path(record.sha256, record.extension)),
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
        "SELECT url, reason, detail, duplicate_of FROM urls WHERE state = 'DUPLICATE' ORDER BY reason DESC, id LIMIT ?", _SHOWN
    )
    for url, reason, detail, original in rows:
        record = ledger.image(original) if original else None
        shown = thumbnail(dataset.image_path(record.sha256, record.extension)) if record else ""
        figures.append(_figure(shown, f"{reason} duplicate", f"of {original[:12]} {detail}", url))
    if figures:
        yield f'<h2>Duplicates</h2><p class="sub">each shown as the image it is a copy of</p><div class="sheet">{"".join(figures)}</div>'


def _refused(losses: Iterable[Loss]) -> Iterator[str]:
    rows = [
        f"<tr><td>{loss['state']}<td>{_text(loss['reason'])}<td><code>{_text(example['url'])}</code>"
        f"<td>{_text(str(example['detail'] or ''))}</tr>"
        for loss in losses
        for example in loss["examples"]
    ]
    if rows:
        yield f"<h2>Refused and lost: examples</h2><table><tr><th>state<th>reason<th>URL<th>detail</tr>{''.join(rows)}</table>"


def _figure(data_url: str, title: str, note: str, url: str) -> str:
    picture = f'<img src="{data_url}" alt="{_text(title)}">' if data_url else '<div class="none">no picture kept</div>'
    return f"<figure>{picture}<figcaption><b>{_text(title)}</b>{_text(note)}<br><code>{_text(url[-80:])}</code></figcaption></figure>"


def _text(words: str) -> str:
    return html.escape(words, quote=True)

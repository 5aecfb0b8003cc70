"""How full each class of a collection is, and what ended the collection for it: the table at the top of report.html.

It shows the live table's own numbers (:mod:`collect.live`) and the planner's own words (:meth:`collect.planner.Planner.ends`).
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence

from collect.definition import Definition
from collect.ledger_rows import Counts
from collect.live import STEPS, short_name, table_rows, total

STYLE = """
.quotas th[colspan]{padding:16px 0 4px;font-weight:400}.quotas td:first-child{padding-left:14px;white-space:nowrap}
.quotas .n{width:11%}.quotas tr :last-child{padding-right:0}
.fill{display:flex;flex-wrap:wrap;gap:2px 12px;align-items:center}.fill b{min-width:7em}.fill .end{opacity:.75;overflow-wrap:anywhere}
.bar{width:130px;height:9px;border-radius:5px;background:var(--line);overflow:hidden}.bar i{display:block;height:100%;background:#2e9e5b}
@media(max-width:560px){.quotas{font-size:11px}.quotas :is(td,th){padding-right:5px}
.quotas td:first-child{padding-left:0}.fill b{min-width:0}}
"""


def rendered(counts: Counts, definition: Definition, ends: Mapping[str, str]) -> Iterator[str]:
    """The table as HTML, with its heading: classes as the definition has them, then what belongs to none of them."""
    rows = table_rows(counts, definition)
    quotas = {entry.name: entry.quota for entry in definition.classes}
    others = sorted({row.class_name for row in rows} - set(quotas))
    yield '<h2>Quotas</h2><div class="wide"><table class="quotas"><thead><tr><th>source'
    yield "".join(f'<th class="n">{name}' for name in STEPS) + "</tr></thead>"
    for name in (*quotas, *others):
        its = [row for row in rows if row.class_name == name]
        yield f'<tbody><tr><th colspan="{len(STEPS) + 1}">{_filling(name, total(its)[-1], quotas.get(name, 0), ends.get(name, ""))}</tr>'
        yield from (_line(row.source, row.steps) for row in its)
        if len(its) > 1:
            yield _line("all", total(its), ' class="all"')
        yield "</tbody>"
    yield "</table></div>"


def _filling(name: str, kept: int, quota: int, end: str) -> str:
    """A class in a line: its name, a bar, numbers, and what ended the collection for it."""
    words = f"{kept:,} of {quota:,} kept, {kept / quota:.0%}" if quota else f"{kept:,} kept, no quota"
    bar = f'<span class="bar"><i style="width:{min(kept / quota, 1):.1%}"></i></span>' if quota else ""
    ended = f'<span class="end">{html.escape(end)}</span>' if end else ""
    return f'<div class="fill"><b>{html.escape(name) or "no class"}</b>{bar}<span>{words}</span>{ended}</div>'


def _line(source: str, steps: Sequence[int], mark: str = "") -> str:
    return (
        f'<tr{mark}><td title="{html.escape(source)}">{html.escape(short_name(source))}'
        + "".join(f'<td class="n">{number:,}' for number in steps)
        + "</tr>"
    )

"""A retrain's result for people: `retrain.md`, and the same as a section of the run's report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from collect.files import write_atomic

_HEADINGS = ("class", "champion AP", "challenger AP", "Δ", "95 % interval", "boxes")
_BEGIN, _END = "<!-- retrain -->", "<!-- /retrain -->"


def write(run_path: Path, result: Mapping[str, Any]) -> None:
    """Write `retrain.md`, and put the verdict at the head of `report.html` where there is one."""
    write_atomic(run_path / "retrain.md", markdown(result))
    report = run_path / "report.html"
    if report.is_file():
        write_atomic(report, _with_section(report.read_text(encoding="utf-8"), section(result)))


def markdown(result: Mapping[str, Any]) -> str:
    """Verdict, classes, warm start and drift."""
    lines = [f"# {result['run']}: {result['verdict'].replace('_', ' ')}", "", _sentence(result["reason"]), ""]
    rows = class_rows(result)
    if rows:
        lines += [f"| {' | '.join(_HEADINGS)} |", "|---|---|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows), ""]
    for heading, words in _parts(result):
        if words:
            lines += [f"## {heading}", "", *(f"- {word}" for word in words), ""]
    return "\n".join(lines)


def section(result: Mapping[str, Any]) -> str:
    """The same as HTML."""
    rows = "".join(f"<tr>{_cells('td', row)}</tr>" for row in class_rows(result))
    table = f'<div class="scroll"><table><tr>{_cells("th", _HEADINGS)}</tr>{rows}</table></div>' if rows else ""
    verdict = escape(result["verdict"].replace("_", " "))
    parts = "".join(
        f"<h3>{heading}</h3>\n<ul>{''.join(f'<li>{escape(word)}</li>' for word in words)}</ul>"
        for heading, words in _parts(result)
        if words
    )
    return f"<h2>Gate: {verdict}</h2>\n<p>{escape(_sentence(result['reason']))}</p>\n{table}\n{parts}"


def _parts(result: Mapping[str, Any]) -> tuple[tuple[str, list[str]], ...]:
    return ("Also", _also(result)), ("Warm start", _warm_start(result)), ("Drift", _drift(result))


def _with_section(page: str, text: str) -> str:
    """The page with the section before its first part; one that is there already is replaced."""
    if _BEGIN in page:
        before, _, rest = page.partition(_BEGIN)
        page = before + rest.partition(_END)[2]
    place = page.find("<h2>")
    return page if place < 0 else f"{page[:place]}{_BEGIN}{text}{_END}{page[place:]}"


def _cells(tag: str, row: Sequence[str]) -> str:
    return "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)


def class_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row per class that both models know, as texts; where there are several, what the verdict rests on first: their mean."""
    classes = result.get("classes", {})
    rows = [_row(f"mean of the {len(classes)}", result, "")] if len(classes) > 1 else []
    for name, row in classes.items():
        rows.append(_row(name, row, " (fell)" if name in result.get("fallen", ()) else ""))
    return rows


def _row(name: str, row: Mapping[str, Any], fell: str) -> tuple[str, ...]:
    low, high = row["interval"]
    boxes = f"{row['boxes']}" if row.get("judged", True) else f"{row['boxes']} (too few to judge)"
    numbers = (f"{row['champion_ap']:.3f}", f"{row['challenger_ap']:.3f}", f"{row['delta_ap']:+.3f}{fell}")
    return (name, *numbers, f"{low:+.3f} to {high:+.3f}", boxes)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."


def _also(result: Mapping[str, Any]) -> list[str]:
    boxes = {name: f" on {count} box{'' if count == 1 else 'es'}" for name, count in result.get("only_boxes", {}).items()}
    new = [f"new class {name}: AP {ap:.3f}{boxes.get(name, '')}" for name, ap in result.get("only_challenger", {}).items()]
    gone = [
        f"class {name} is gone: the champion's AP on it was {ap:.3f}{boxes.get(name, '')}"
        for name, ap in result.get("only_champion", {}).items()
    ]
    return [*new, *gone, *result.get("warnings", ()), *([f"frozen test set: {result['frozen']}"] if result.get("frozen") else [])]


def _warm_start(result: Mapping[str, Any]) -> list[str]:
    started = result.get("warm_start")
    if not started:
        return []
    copied = ", ".join(new if old == [new] else f"{new} from {' + '.join(old)}" for new, old in started["copied"].items())
    words = [f"warm start from {started['source']}; head rows copied: {copied or 'none'}"]
    words += [f"new classes at the focal prior: {', '.join(started['fresh'])}"] if started["fresh"] else []
    return words + ([f"classes gone: {', '.join(started['removed'])}"] if started["removed"] else [])


def _drift(result: Mapping[str, Any]) -> list[str]:
    drift = result["drift"]
    words = [f"{drift['new_images']} new images, {drift['old_images']} old, {drift['gone_images']} gone"] if drift["old_images"] else []
    for name, row in drift["shift"].items():
        words.append(f"{name}: {row['words']} ({'drifted' if row['drifted'] else 'no drift'}, p {row['chance']:.3f})")
    for row in drift["weak_slices"]:
        found = f"finds {row['recall']:.0%} of {row['boxes']} boxes, {row['overall']:.0%} of all"
        words.append(f"weak on {row['cut']} '{row['slice']}': {found}")
    return words

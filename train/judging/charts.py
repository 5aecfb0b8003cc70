"""Small SVG charts for the reports: no script, no font, colours from the page's style, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

_WIDTH, _HEIGHT = 460, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 42
_COLOURS = 8
_FEWEST_TICKS = 3


@dataclass(frozen=True)
class Series:
    """One line or set of points. Points whose y is NaN are left out; `marked` draws a dot at each."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    marked: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis; `low` and `high` None = from the data. `log` for positive values only; `whole` has no ticks between whole numbers."""

    label: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Point:
    """One thing in a scatter; `front` puts it on the Pareto line."""

    name: str
    x: float
    y: float
    x_range: tuple[float, float] | None = None
    front: bool = False


class _Scale:
    """From values to pixels, with round ticks."""

    def __init__(self, axis: Axis, values: Sequence[float], start_px: float, stop_px: float) -> None:
        told = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low = min(told) if axis.low is None else axis.low
        high = max(told) if axis.high is None else axis.high
        if high <= low:
            high = low * 1.1 if low > 0 else low + 1.0
        self.log, self.whole = axis.log and low > 0, axis.whole
        if axis.low is None and not self.log:
            low -= 0.04 * (high - low)
        if axis.high is None and not self.log:
            high += 0.04 * (high - low)
        if self.log:
            low, high = low / 1.25, high * 1.25
        self.low, self.high, self.start, self.stop = low, high, start_px, stop_px

    def __call__(self, value: float) -> float:
        low, high, at = (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (at - low) / (high - low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            told = [m * 10.0**p for p in powers for m in (1, 2, 5) if self.low <= m * 10.0**p <= self.high]
            if len(told) >= _FEWEST_TICKS:
                return told  # else the values lie close together, and one tick says nothing
        span = self.high - self.low
        step = 10.0 ** math.floor(math.log10(span / 4))
        step *= next(factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= 6)
        if self.whole:
            step = max(1.0, float(math.ceil(step)))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [place * step for place in range(first, last + 1)]


def lines(series: Sequence[Series], x: Axis, y: Axis, title: str) -> Markup:
    """A line chart with its legend; "" where there is nothing to draw."""
    drawn = [entry for entry in series if any(math.isfinite(value) for value in entry.ys)]
    if not drawn:
        return Markup("")
    across, up = _scales(x, y, [v for s in drawn for v in s.xs], [v for s in drawn for v in s.ys])
    body = [_frame(across, up, x, y)]
    for place, entry in enumerate(drawn):
        points = [(across(a), up(b)) for a, b in zip(entry.xs, entry.ys, strict=True) if math.isfinite(b)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        dash = ' stroke-dasharray="5 4"' if entry.dashed else ""
        body.append(f'<polyline class="line c{place % _COLOURS}" points="{path}"{dash}/>')
        if entry.marked or len(points) == 1:
            body += [f'<circle class="dot c{place % _COLOURS}" cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in points]
    return _figure(title, body, [entry.name for entry in drawn])


def reliability(scores: Sequence[float], rights: Sequence[float], counts: Sequence[int], title: str) -> Markup:
    """How often detections of a score are right, against the diagonal where they should be."""
    across, up = _scales(Axis("score", 0, 1), Axis("share that is right", 0, 1), [], [])
    most = max(max(counts, default=0), 1)
    body = [_frame(across, up, Axis("score"), Axis("share that is right"))]
    width = (across(1) - across(0)) / max(len(counts), 1)
    for place, (right, count) in enumerate(zip(rights, counts, strict=True)):
        if count:
            left, top = across(place / len(counts)) + 1, up(right)
            body.append(
                f'<rect class="bar c0" x="{left:.1f}" y="{top:.1f}" width="{width - 2:.1f}" height="{up(0) - top:.1f}" '
                f'fill-opacity="{0.35 + 0.65 * (count / most) ** 0.5:.2f}"><title>{count} detections, {right:.0%} right</title></rect>'
            )
    body.append(f'<line class="diagonal" x1="{across(0)}" y1="{up(0)}" x2="{across(1)}" y2="{up(1)}"/>')
    points = [(across(s), up(r)) for s, r, c in zip(scores, rights, counts, strict=True) if c]
    body += [f'<circle class="dot c1" cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in points]
    return _figure(title, body, [])


def bars(rows: Sequence[tuple[str, float, str]], title: str) -> Markup:
    """Horizontal bars: (name, value, words behind the bar)."""
    most = max((value for _, value, _ in rows), default=0.0) or 1.0
    height, row_px, name_px, words_px = 20 + 30 * len(rows), 30, 60, 150
    body = []
    for place, (name, value, words) in enumerate(rows):
        top, length = 10 + row_px * place, max(1.0, max(value, 0) / most * (_WIDTH - name_px - words_px))
        body.append(f'<text class="tick" x="{name_px - 8}" y="{top + 17}" text-anchor="end">{escape(name)}</text>')
        body.append(f'<rect class="bar c0" x="{name_px}" y="{top + 4}" width="{length:.1f}" height="18" rx="2"/>')
        body.append(f'<text class="tick" x="{name_px + length + 8:.1f}" y="{top + 17}">{escape(words)}</text>')
    return _figure(title, body, [], height)


def scatter(points: Sequence[Point], x: Axis, y: Axis, title: str, size_wh: tuple[int, int] = (_WIDTH, _HEIGHT)) -> Markup:
    """Points with names and ranges, and a line through those on the Pareto front."""
    width, height = size_wh
    xs = [v for p in points for v in (p.x, *(p.x_range or ()))]
    across, up = _scales(x, y, xs, [p.y for p in points], width, height)
    body = [_frame(across, up, x, y)]
    front = sorted((point for point in points if point.front), key=lambda point: point.x)
    steps = [f"{across(p.x):.1f},{up(p.y):.1f}" for p in front]
    body.append(f'<polyline class="line c1" points="{" ".join(steps)}" stroke-dasharray="5 4"/>')
    names = _Names([(across(point.x), up(point.y)) for point in points], (up.stop, up.start), (across.start, across.stop))
    for point in points:
        px, py = across(point.x), up(point.y)
        if point.x_range:
            low, high = (across(value) for value in point.x_range)
            body.append(f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{py:.1f}" y2="{py:.1f}"/>')
        body.append(f'<circle class="dot {"c1" if point.front else "c0"}" cx="{px:.1f}" cy="{py:.1f}" r="5"/>')
        left, base = names.place(px, py, point.name)
        body.append(f'<text class="label" x="{left:.1f}" y="{base:.1f}">{escape(point.name)}</text>')
    return _figure(title, body, [], height, width)


class _Names:
    """Finds places for names near their points where they cover neither each other nor a point."""

    _CHARACTER_PX, _LINE_PX = 6.6, 13.0

    def __init__(self, points: Sequence[tuple[float, float]], y_limits: tuple[float, float], x_limits: tuple[float, float]) -> None:
        self.taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
        self.y_limits, self.x_limits = y_limits, x_limits

    def place(self, x: float, y: float, name: str) -> tuple[float, float]:
        """Left end and base line of the name."""
        width = self._CHARACTER_PX * len(name)
        choices = [
            (min(max(left, self.x_limits[0] + 3), self.x_limits[1] - width), y + down)
            for down in (-9, 19, 4, -22, 32, -35, 45, -48, 58)
            for left in ((x + 9, x - width - 9) if down == 4 else (x, x - width))
        ]
        inside = [choice for choice in choices if self.y_limits[0] + 2 < choice[1] < self.y_limits[1] - 3] or choices
        best = min(inside, key=lambda choice: (self._covered(choice, width), inside.index(choice)))
        self.taken.append((best[0], best[1] - 10, best[0] + width, best[1] + 3))
        return best

    def _covered(self, choice: tuple[float, float], width: float) -> int:
        left, base = choice
        return sum(left < x2 and x1 < left + width and base - 10 < y2 and y1 < base + 3 for x1, y1, x2, y2 in self.taken)


def _scales(
    x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float], width: int = _WIDTH, height: int = _HEIGHT
) -> tuple[_Scale, _Scale]:
    return _Scale(x, xs, _LEFT, width - _RIGHT), _Scale(y, ys, height - _BOTTOM, _TOP)


def _frame(across: _Scale, up: _Scale, x: Axis, y: Axis) -> str:
    left, right, bottom, top = across.start, across.stop, up.start, up.stop
    parts = []
    for value in up.ticks():
        at = up(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in across.ticks():
        at = across(value)
        parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    middle = (top + bottom) / 2
    parts.append(f'<text class="label" x="{(left + right) / 2:.0f}" y="{bottom + 34}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(
        f'<text class="label" transform="rotate(-90 7 {middle})" x="7" y="{middle + 4}" text-anchor="middle">{escape(y.label)}</text>'
    )
    return "".join(parts)


def _figure(title: str, body: Sequence[str], legend: Sequence[str], height: int = _HEIGHT, width: int = _WIDTH) -> Markup:
    keys = "".join(f'<span class="key"><i class="c{place % _COLOURS}"></i>{escape(name)}</span>' for place, name in enumerate(legend))
    size = ' class="large"' if width > _WIDTH else ""  # on a telephone it is scrolled, for its letters would be too small
    svg = f'<svg{size} viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">{"".join(body)}</svg>'
    # Every text in `body` and `keys` was escaped above.
    return Markup(f'<figure><figcaption>{escape(title)}</figcaption><div class="plot">{svg}</div><div class="legend">{keys}</div></figure>')  # noqa: S704

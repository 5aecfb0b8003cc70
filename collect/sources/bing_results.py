"""What a result page or fragment of Bing Images says.

Every result carries JSON in the attribute `m` of an `a.iusc` (`murl` image, `turl` thumbnail, `purl` page, `t` title); its
link carries the size (`expw`, `exph`).
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from collect.sources.challenges import challenge_in
from collect.sources.markup import Element, elements, text_of
from collect.sources.source import Outcome

_NOTHING = ("there are no results for", "no results found for", "no_results", "b_nores")
_CONSENT = ("bnp_btn_accept", "bnp_btn_reject", "bnp_container")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """One result as the page gives it; sizes in pixels, 0 = not said."""

    image_url: str
    page_url: str
    thumbnail_url: str
    title: str
    width: int
    height: int


def parse_results(html: str) -> list[Result]:
    """The results of a page or fragment in its order, repetitions included.

    The class `iusc` is looked for first. Where it has gone, any element with such JSON in `m` will do, with a warning.
    """
    everything = elements(html)
    marked = [element for element in everything if element.has_class("iusc")]
    results = _results(marked)
    if not results:
        results = _results([element for element in everything if "murl" in element.get("m")])
        if results:
            log.warning("Bing's results no longer have the class 'iusc'; they were read by their JSON alone")
    return results


def _results(found: list[Element]) -> list[Result]:
    parsed = [parse_result(element.get("m"), element.get("href")) for element in found]
    return [result for result in parsed if result]


def parse_result(m: str, href: str) -> Result | None:
    """One result from the JSON of `m` and the link to its detail view; None where there is no image in it."""
    try:
        values = json.loads(m)
    except ValueError:
        return None
    if not isinstance(values, dict) or not isinstance(values.get("murl"), str) or not values["murl"]:
        return None
    sizes = parse_qs(urlsplit(href).query)
    return Result(
        image_url=values["murl"],
        page_url=str(values.get("purl") or ""),
        thumbnail_url=str(values.get("turl") or ""),
        title=str(values.get("t") or values.get("desc") or ""),
        width=_number(sizes.get("expw")),
        height=_number(sizes.get("exph")),
    )


def parse_suggestions(html: str, query: str) -> tuple[str, ...]:
    """The queries that a result page links to, without the one asked."""
    found: dict[str, None] = {}
    for element in elements(html):
        parts = urlsplit(element.get("href")) if element.name == "a" else None
        if parts is None or not parts.path.endswith("/images/search"):
            continue
        values = parse_qs(parts.query)
        if "q" in values and not {"view", "qft", "mediaurl"} & set(values):
            found[" ".join(values["q"][0].split())] = None
    return tuple(text for text in found if text.casefold() != query.casefold())


def verdict(html: str) -> tuple[Outcome, str]:
    """What a page without results is: BLOCKED, CONSENT, EMPTY, or else LAYOUT_CHANGED."""
    lowered = html.casefold()
    if challenge_in(html):
        return Outcome.BLOCKED, "Bing shows a captcha; it is not ours to solve. Wait some hours, or use another source"
    if any(mark in lowered for mark in _NOTHING) or any(mark in text_of(html).casefold() for mark in _NOTHING):
        return Outcome.EMPTY, "Bing has no results for this query"
    if any(mark in lowered for mark in _CONSENT):
        return Outcome.CONSENT, "Bing shows its consent banner and nothing behind it"
    return Outcome.LAYOUT_CHANGED, "the page from Bing has neither results nor the words that say there are none"


def _number(values: list[str] | None) -> int:
    return int(values[0]) if values and values[0].isdigit() else 0

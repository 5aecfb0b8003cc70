"""Google Images: a harvester that stops at a captcha, at `/sorry` and at a page that only asks for scripts.

Class names there are hashed and change every few months, and thumbnails are no originals. What has lasted is the link to the
detail view, `/imgres?imgurl=…&imgrefurl=…&w=…&h=…`, which the page writes once the mouse is over a result; so it is read by its
parameters and by nothing else. The cursor is the number of results already taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

from collect.records import Candidate, Licence
from collect.sources.browser import Browser
from collect.sources.challenges import challenge_in
from collect.sources.http import typed
from collect.sources.markup import elements, text_of
from collect.sources.source import Outcome, Page, SourceSettings, or_stated, page_of, stated_licence

BASE_URL = "https://www.google.com"
PAGE_SIZE = 100
_PATIENCE_S = 3.0
_NOTHING = ("did not match any", "about 0 results", "no results found for")
_CONSENT = ("consent.google.", "consent.youtube.")
_HOVER_JS = """
for (const image of document.querySelectorAll('img')) {
  const target = image.closest('a, [role=button], div') || image;
  for (const kind of ['mouseover', 'mousedown', 'mouseup'])
    target.dispatchEvent(new MouseEvent(kind, {bubbles: true, cancelable: true, button: 2}));
}
"""
_COUNT_JS = "return document.querySelectorAll('a[href*=\"imgurl=\"]').length"


@dataclass(frozen=True)
class Result:
    """One result; sizes in pixels, 0 = not said."""

    image_url: str
    page_url: str
    title: str
    width: int
    height: int


def parse_results(html: str) -> list[Result]:
    """The results whose links name an original, each once, in the order of the page."""
    found: dict[str, Result] = {}
    everything = elements(html)
    for place, element in enumerate(everything):
        values = parse_qs(urlsplit(element.get("href")).query) if element.name == "a" and "imgurl=" in element.get("href") else {}
        if "imgurl" not in values:
            continue
        image = next((after for after in everything[place + 1 : place + 12] if after.name == "img"), None)
        url = values["imgurl"][0]
        found.setdefault(
            url,
            Result(
                url, values.get("imgrefurl", [""])[0], image.get("alt") if image else "", _number(values.get("w")), _number(values.get("h"))
            ),
        )
    return list(found.values())


def verdict(html: str, url: str) -> tuple[Outcome, str]:
    """What a page without results is."""
    if "/sorry" in urlsplit(url).path or challenge_in(html):
        return Outcome.BLOCKED, "Google asks whether this is a robot; that is where this source stops. Use another one"
    if any(mark in url or mark in html for mark in _CONSENT):
        return Outcome.CONSENT, "Google shows its consent page and nothing behind it"
    if any(mark in text_of(html).casefold() for mark in _NOTHING):
        return Outcome.EMPTY, "Google has no results for this query"
    return Outcome.LAYOUT_CHANGED, "the page from Google has no link that names an original, nor the words that say there is none"


class GoogleImages:
    """Harvests Google Images; no licence is stated there per image."""

    terms = "restricted"

    def __init__(self, name: str, settings: SourceSettings) -> None:
        self.name = name
        self._settings = settings
        self._base = (settings.base_url or BASE_URL).rstrip("/")
        self._browser = Browser(settings, trusted_url=settings.base_url or "")
        self._open_query: str | None = None
        self._stated = stated_licence(settings)

    @typed
    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        seen = int(cursor or 0)
        if self._open_query != query or not self._browser.opened:
            self._open(query)
        more = self._harvest(seen + PAGE_SIZE)
        html, url = self._browser.html(), self._browser.url
        results = parse_results(html)
        if len(results) > seen:
            self._open_query = query
            taken = results[seen : seen + PAGE_SIZE]
            candidates = [self._candidate(result, query, class_name, rank) for rank, result in enumerate(taken, seen)]
            return page_of(candidates, str(seen + len(taken)) if more else None)
        self._open_query = None
        if results:
            return page_of([], None, detail="the results end here")
        outcome, detail = verdict(html, url)
        return Page((), outcome, None, (), detail)

    def close(self) -> None:
        self._browser.close()
        self._open_query = None

    def _open(self, query: str) -> None:
        self._open_query = None
        parameters = {"q": query, "udm": 2, "hl": self._settings.market.partition("-")[0], "safe": self._settings.safe_search.casefold()}
        self._browser.open(f"{self._base}/search?{urlencode(parameters | dict(self._settings.options))}")
        reject = "form[action*='consent.google'] button, form[action*='consent.google'] input[type=submit]"
        if self._browser.visible(reject) and self._browser.click(reject):
            self._browser.wait(lambda: not self._browser.visible(reject), _PATIENCE_S)

    def _harvest(self, wanted: int) -> bool:
        """Pass the mouse over the results and scroll until `wanted` are there; False when the page has no more to give."""
        tries = 0
        while (before := self._count()) < wanted:
            self._browser.script(_HOVER_JS)
            if not self._browser.wait(lambda least=before: self._count() > least, 0.3):  # type: ignore[misc]
                self._browser.scroll_down()
                if not self._browser.wait(lambda least=before: self._moved(least), _PATIENCE_S if tries else 1.0):  # type: ignore[misc]
                    tries += 1
            else:
                tries = 0
            if tries > 1 or (tries and not before):
                return False
        return True

    def _moved(self, least: int) -> bool:
        self._browser.script(_HOVER_JS)
        return self._count() > least

    def _count(self) -> int:
        return int(self._browser.script(_COUNT_JS) or 0)

    def _candidate(self, result: Result, query: str, class_name: str, rank: int) -> Candidate:
        return Candidate(
            url=result.image_url,
            source=self.name,
            query=query,
            class_name=class_name,
            rank=rank,
            page_url=result.page_url,
            title=result.title,
            width=result.width,
            height=result.height,
            licence=or_stated(Licence(title=result.title), self._stated),
        )


def _number(values: list[str] | None) -> int:
    return int(values[0]) if values and values[0].isdigit() else 0

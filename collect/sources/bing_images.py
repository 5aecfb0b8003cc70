"""Bing Images: the results fragment `/images/async` without a browser, the page itself in Chromium where that fails.

A refusal (429, a captcha) is final: the browser is no way round it.

Cursors: `async:FIRST:MARK` and `browser:SEEN`, MARK being a hash of the last URL seen, since the end shows by repetition.
"""

from __future__ import annotations

import logging
import zlib
from typing import Any
from urllib.parse import urlencode

from collect.records import Candidate, Licence
from collect.sources.bing_api import license_filter
from collect.sources.bing_results import Result, parse_result, parse_results, parse_suggestions, verdict
from collect.sources.browser import Browser
from collect.sources.challenges import challenge_in
from collect.sources.http import Answer, Client, Declined, typed
from collect.sources.source import Outcome, Page, SourceSettings, or_stated, page_of, stated_licence

BASE_URL = "https://www.bing.com"
PAGE_SIZE = 35
#: Results taken from a scrolled page in one search, so that a kill loses little.
_BROWSER_PAGE = 100
_PATIENCE_S = 3.0
_LICENSE_TYPES = {
    "Public": "L1",
    "Share": "L2_L3_L4_L5_L6_L7",
    "ShareCommercially": "L2_L3_L4",
    "Modify": "L2_L3_L5_L6",
    "ModifyCommercially": "L2_L3",
}
_SEE_MORE = "a.btn_seemore"
_RESULTS_JS = "return [...document.querySelectorAll('a.iusc, [m*=murl]')].slice(arguments[0]).map(a => [a.getAttribute('m'), a.href || ''])"
_COUNT_JS = "return document.querySelectorAll('a.iusc, [m*=murl]').length"
log = logging.getLogger(__name__)


class BingImages:
    """Searches Bing Images as its pages show them. No licence is stated there per image."""

    terms = "restricted"

    def __init__(self, name: str, settings: SourceSettings) -> None:
        self.name = name
        self._settings = settings
        self._client = Client(name, settings, interval_s=1.0)
        self._browser = Browser(settings, trusted_url=settings.base_url or "")
        self._open_query: str | None = None
        self._base = (settings.base_url or BASE_URL).rstrip("/")
        self._stated = stated_licence(settings)

    @typed
    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        kind, _, place = (cursor or "async:1:").partition(":")
        if kind == "browser":
            return self._search_browser(query, class_name, int(place))
        first, _, mark = place.partition(":")
        page = self._search_fragment(query, class_name, int(first), mark)
        return page or self._search_browser(query, class_name, int(first) - 1)

    def close(self) -> None:
        self._client.close()
        self._browser.close()
        self._open_query = None

    def _search_fragment(self, query: str, class_name: str, first: int, mark: str) -> Page | None:
        """A page by `/images/async`; None where that way fails and the browser may be tried."""
        answer = self._client.get(f"{self._base}/images/async", self._parameters(query, first))
        _refuse(self._client, answer)
        results = parse_results(answer.text) if answer.status == 200 else []
        if not results:
            outcome, detail = verdict(answer.text)
            if answer.status == 200 and outcome is Outcome.EMPTY:
                return page_of([], None, suggestions=parse_suggestions(answer.text, query), detail=detail)
            if answer.status != 200 or first == 1:
                log.info("%s: the fragment failed (status %d); trying the browser", self.name, answer.status)
                return None
            return page_of([], None, detail="the results end here")
        last = f"{zlib.crc32(results[-1].image_url.encode()):08x}"
        if last == mark:
            return page_of([], None, detail="the results repeat; this is their end")
        suggestions = parse_suggestions(answer.text, query)
        candidates = self._candidates(results, query, class_name, first - 1)
        return page_of(candidates, f"async:{first + len(results)}:{last}", suggestions=suggestions)

    def _parameters(self, query: str, first: int) -> dict[str, Any]:
        filters = ["filterui:photo-photo"]
        kind = None if self._settings.license else _LICENSE_TYPES.get(license_filter(self._settings.licenses))
        if kind:
            filters.append(f"filterui:license-{kind}")
        if self._settings.min_side_px:
            filters.append(f"filterui:imagesize-custom_{self._settings.min_side_px}_{self._settings.min_side_px}")
        parameters = {
            "q": query,
            "async": 1,
            "first": first,
            "count": PAGE_SIZE,
            "adlt": self._settings.safe_search.casefold(),
            "mkt": self._settings.market,
            "qft": "".join(f"+{entry}" for entry in filters),
        }
        return parameters | dict(self._settings.options)

    def _search_browser(self, query: str, class_name: str, seen: int) -> Page:
        """Up to a hundred results beyond the first `seen` of the page, scrolling as far as that takes."""
        if self._open_query != query or not self._browser.opened:
            self._open_query = None
            parameters = {key: value for key, value in self._parameters(query, 1).items() if key not in {"async", "count"}}
            self._browser.open(f"{self._base}/images/search?{urlencode(parameters)}")
            self._browser.wait(self._settled, _PATIENCE_S)
            self._dismiss_consent()
            self._open_query = query
        more = self._count() > 0 and self._scroll_to(seen + _BROWSER_PAGE)
        rows = self._browser.script(_RESULTS_JS, seen) or []
        results = [result for m, href in rows[:_BROWSER_PAGE] if (result := parse_result(m or "", href or ""))]
        html = self._browser.html()
        if results:
            following = f"browser:{seen + len(rows[:_BROWSER_PAGE])}" if more else None
            return page_of(self._candidates(results, query, class_name, seen), following, suggestions=parse_suggestions(html, query))
        self._open_query = None
        if seen and self._count():
            return page_of([], None, detail="the results end here")
        outcome, detail = verdict(html)
        return Page((), outcome, None, parse_suggestions(html, query), detail)

    def _count(self) -> int:
        return int(self._browser.script(_COUNT_JS) or 0)

    def _settled(self) -> bool:
        return self._count() > 0 or verdict(self._browser.html())[0] is not Outcome.LAYOUT_CHANGED

    def _dismiss_consent(self) -> None:
        """Say no to cookies; yes only where no is not offered."""
        for button in ("#bnp_btn_reject", "#bnp_btn_accept"):
            if self._browser.visible(button) and self._browser.click(button):
                self._browser.wait(lambda css=button: not self._browser.visible(css), _PATIENCE_S)  # type: ignore[misc]
                self._browser.wait(self._settled, _PATIENCE_S)
                return

    def _scroll_to(self, wanted: int) -> bool:
        """Scroll and press "see more" until `wanted` results are there; False when the page has no more to give."""
        while (before := self._count()) < wanted:
            self._browser.scroll_down()
            self._browser.wait(lambda least=before: self._count() > least or self._browser.visible(_SEE_MORE), _PATIENCE_S)  # type: ignore[misc]
            if self._count() > before:
                continue
            if not self._browser.click(_SEE_MORE):
                return False
            if not self._browser.wait(lambda least=before: self._count() > least, _PATIENCE_S):  # type: ignore[misc]
                return False
        return True

    def _candidates(self, results: list[Result], query: str, class_name: str, rank: int) -> list[Candidate]:
        unique: dict[str, Candidate] = {}
        for place, result in enumerate(results, rank):
            known = unique.get(result.image_url)
            if known and (known.page_url or not result.page_url):
                continue  # Bing repeats images; the one that names its page is worth more
            unique[result.image_url] = Candidate(
                url=result.image_url,
                source=self.name,
                query=query,
                class_name=class_name,
                rank=known.rank if known else place,
                page_url=result.page_url,
                thumbnail_url=result.thumbnail_url,
                title=result.title,
                width=result.width,
                height=result.height,
                licence=or_stated(Licence(title=result.title), self._stated),
            )
        return list(unique.values())


def _refuse(client: Client, answer: Answer) -> None:
    """A refusal that the browser must not go round: too many requests, or a captcha."""
    if answer.status == 429:
        client.refuse(answer)
    if challenge_in(answer.text) and not parse_results(answer.text):
        outcome, detail = verdict(answer.text)
        raise Declined(outcome, detail)

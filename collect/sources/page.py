"""`page:URL`: every image that a page shows, read from its document in Chromium after its scripts have run.

Before the visit robots.txt and tdmrep.json are asked, after it the page's own words: `X-Robots-Tag`, `TDM-Reservation`, robots meta.
"""

from __future__ import annotations

import asyncio

from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from collect.errors import UsageError
from collect.net.address import AddressGuard
from collect.net.fetch import Fetcher, FetchLimits
from collect.net.robots import RobotsCache, opted_out, tdm_header
from collect.net.throttle import Throttle
from collect.records import Candidate, Licence, Reason
from collect.sources.browser import Browser
from collect.sources.challenges import challenge_in
from collect.sources.http import typed
from collect.sources.markup import elements
from collect.sources.page_images import parse_page
from collect.sources.source import Outcome, Page, SourceSettings, or_stated, page_of, stated_licence
from collect.version import user_agent

_OPT_OUTS = frozenset({"noai", "noimageai", "noml", "noindex", "noimageindex", "none"})
_MOST_SCROLLS = 30
#: Fewer images than this may be the furniture of a captcha.
_FEW = 3
_BACKGROUNDS_JS = """
const found = new Set();
for (const element of document.querySelectorAll('*'))
  for (const pseudo of [null, '::before', '::after']) {
    const value = getComputedStyle(element, pseudo).backgroundImage;
    if (value && value !== 'none') found.add(value);
  }
return [...found];
"""
_STATUS_JS = "const e = performance.getEntriesByType('navigation')[0]; return e ? e.responseStatus : 0"
#: The answer's own fields, which Selenium does not give; from the cache where the browser has it.
_FIELDS_JS = """
const request = new XMLHttpRequest();
request.open('HEAD', location.href, false);
request.send();
return ['X-Robots-Tag', 'TDM-Reservation'].map(name => request.getResponseHeader(name) || '');
"""
_HEIGHT_JS = "return document.documentElement.scrollHeight"


def opt_out(html: str) -> str:
    """What a page's robots meta element says against collecting its images; "" = nothing."""
    for element in elements(html):
        if element.name == "meta" and element.get("name").casefold() in {"robots", "boxwright"}:
            words = {word.strip().casefold() for word in element.get("content").split(",")}
            if words & _OPT_OUTS:
                return f"meta robots: {', '.join(sorted(words & _OPT_OUTS))}"
    return ""


async def refusal(url: str, settings: SourceSettings) -> str:
    """Why robots.txt or tdmrep.json forbid a page, or "". An address that is refused is left to the browser's guard to explain."""
    limits = FetchLimits(deadline_s=settings.timeout_s)
    fetcher = Fetcher(AddressGuard(settings.allow_addresses), Throttle(1, 1), limits, user_agent(settings.contact))
    async with fetcher, RobotsCache(fetcher) as robots:
        rules = await robots.rules(URL(url))
    lost = rules.refusal(url)
    if lost is not None and lost.reason != Reason.ADDRESS:
        return lost.detail
    return "tdmrep.json reserves it" if rules.reserved(URL(url).path) else ""


class AnyPage:
    """Reads one page; its images carry no licence but the user's word."""

    terms = "open"

    def __init__(self, name: str, settings: SourceSettings) -> None:
        self.name = name
        self.url = name.partition(":")[2]
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(f"'{self.url}' is no page; write page:https://…")
        self._settings = settings
        self._stated = stated_licence(settings)
        self._browser = Browser(settings)

    @typed
    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        """All the page's images at once; `cursor` says nothing here."""
        del cursor
        if self._settings.polite and (why := asyncio.run(refusal(self.url, self._settings))):
            return Page((), Outcome.BLOCKED, None, (), f"{self.url} is not to be read: {why}")
        browser = self._browser
        browser.open(self.url)
        status = int(browser.script(_STATUS_JS) or 0)
        if status >= 400:
            return Page((), Outcome.BLOCKED, None, (), f"{self.url} answered {status}")
        self._scroll_through()
        html, url = browser.html(), browser.url
        if words := opt_out(html) or self._opted_out_by_header():
            return Page((), Outcome.BLOCKED, None, (), f"{url} opts out ({words}); its images are not collected")
        images = parse_page(html, url, browser.script(_BACKGROUNDS_JS) or ())
        if len(images) < _FEW and challenge_in(html):
            return Page((), Outcome.BLOCKED, None, (), f"{url} shows a captcha, which is not ours to solve")
        candidates = [
            Candidate(
                url=shown.url,
                source=self.name,
                query=query,
                class_name=class_name,
                rank=rank,
                page_url=url,
                title=shown.title,
                width=shown.width,
                height=shown.height,
                licence=or_stated(Licence(title=shown.title), self._stated),
            )
            for rank, shown in enumerate(images)
        ]
        return page_of(candidates, None, detail=f"{url} shows no images")

    def close(self) -> None:
        self._browser.close()

    def _opted_out_by_header(self) -> str:
        tags, reservation = self._browser.script(_FIELDS_JS) or ("", "")
        headers = CIMultiDictProxy(CIMultiDict({"X-Robots-Tag": str(tags), "TDM-Reservation": str(reservation)}))
        return opted_out(headers) or ("TDM-Reservation: 1" if tdm_header(headers) else "")

    def _scroll_through(self) -> None:
        """Screen by screen to the end, so that lazy loaders see everything; a page without end is left at some point."""
        script = "window.scrollBy(0, innerHeight * 0.9); return scrollY + innerHeight >= document.documentElement.scrollHeight - 2"
        for _ in range(_MOST_SCROLLS):
            at_end = bool(self._browser.script(script))
            before = self._browser.script(_HEIGHT_JS)
            if self._browser.wait(lambda height=before: self._browser.script(_HEIGHT_JS) != height, 0.5 if at_end else 0.05):  # type: ignore[misc]
                continue
            if at_end:
                return

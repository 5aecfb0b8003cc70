"""`page:URL`: every image that a page shows, read from its document in Chromium after its scripts have run.

`<img>`, `srcset` (the largest), `<picture>`, lazy attributes, links to image files, CSS backgrounds (inline, in `<style>`, and as
computed), `<video poster>`, `og:image`; relative to `<base href>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urldefrag, urljoin, urlsplit

from multidict import CIMultiDict, CIMultiDictProxy

from collect.errors import UsageError
from collect.net.robots import opted_out, tdm_header
from collect.records import Candidate, Licence
from collect.sources.browser import Browser
from collect.sources.challenges import challenge_in
from collect.sources.http import typed
from collect.sources.local import ENDINGS
from collect.sources.markup import Element, elements, largest_of
from collect.sources.source import Outcome, Page, SourceSettings, or_stated, page_of, stated_licence

#: Where lazy loaders keep the real URL, in the order in which they are believed.
_LAZY = (
    "data-original", "data-src", "data-lazy-src", "data-lazy", "data-hi-res-src", "data-full", "data-full-src", "data-large-file",
    "data-image", "data-img-url", "data-echo", "data-url", "data-bg", "data-background", "data-background-image",
)  # fmt: skip
_LAZY_SETS = ("data-srcset", "data-lazy-srcset", "srcset", "imagesrcset")
_OG = frozenset({"og:image", "og:image:url", "og:image:secure_url", "twitter:image", "twitter:image:src"})
_OPT_OUTS = frozenset({"noai", "noimageai", "noml", "noindex", "noimageindex", "none"})
_CSS_URL = re.compile(r"url\(\s*(?:\"([^\"]*)\"|'([^']*)'|([^)\s]+))\s*\)")
_MOST_SCROLLS = 30
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


@dataclass(frozen=True)
class Shown:
    """An image that a page shows; sizes as its attributes state them, 0 = not stated."""

    url: str
    title: str = ""
    width: int = 0
    height: int = 0


def parse_page(html: str, url: str, backgrounds: Iterable[str] = ()) -> list[Shown]:
    """The images of a document, each URL once, in the order of the page. `backgrounds` are computed CSS values."""
    everything = elements(html)
    base = next((element.get("href") for element in everything if element.name == "base" and element.get("href")), "")
    root = urljoin(url, base)
    found: dict[str, Shown] = {}
    for shown in [*_shown(everything), *(Shown(entry) for value in backgrounds for entry in css_urls(value))]:
        try:
            absolute = urldefrag(urljoin(root, shown.url.strip())).url
            fetchable = urlsplit(absolute).scheme in {"http", "https"} and bool(urlsplit(absolute).hostname)
        except ValueError:
            continue
        if fetchable and (absolute not in found or (shown.title and not found[absolute].title)):
            found[absolute] = Shown(absolute, shown.title, shown.width, shown.height)
    return list(found.values())


def css_urls(css: str) -> Iterator[str]:
    """What stands in the `url(…)` of a piece of CSS, without `data:`.

    >>> list(css_urls("background: url('a.png'), url(b.jpg) no-repeat; src: url(data:x)"))
    ['a.png', 'b.jpg']
    """
    for quoted, single, bare in _CSS_URL.findall(css):
        value = quoted or single or bare
        if value and not value.startswith("data:"):
            yield value


def opt_out(html: str) -> str:
    """What a page's robots meta element says against collecting its images; "" = nothing."""
    for element in elements(html):
        if element.name == "meta" and element.get("name").casefold() in {"robots", "boxwright"}:
            words = {word.strip().casefold() for word in element.get("content").split(",")}
            if words & _OPT_OUTS:
                return f"meta robots: {', '.join(sorted(words & _OPT_OUTS))}"
    return ""


def _shown(everything: list[Element]) -> Iterator[Shown]:
    alternatives: list[str] = []
    for element in everything:
        if "picture" not in element.inside:
            alternatives = []
        if element.name == "source" and "picture" in element.inside:
            alternatives += [element.get(name) for name in _LAZY_SETS if element.get(name)]
        elif element.name in {"img", "amp-img"}:
            yield from _of_img(element, alternatives)
            alternatives = []
        else:
            yield from _of_other(element)
        if element.get("style"):
            yield from (Shown(entry) for entry in css_urls(element.get("style")))


def _of_img(element: Element, alternatives: list[str]) -> Iterator[Shown]:
    """One image: the largest of all its sets, else its lazy URL, else its `src`."""
    sets = [element.get(name) for name in _LAZY_SETS if element.get(name)] + alternatives
    lazy = next((element.get(name) for name in _LAZY if _is_reference(element.get(name))), "")
    url = largest_of(", ".join(sets)) or lazy or element.get("src")
    width, height = _pixels(element.get("width")), _pixels(element.get("height"))
    if url and not url.startswith("data:") and not (0 < width <= _FEW and 0 < height <= _FEW):
        own = url == element.get("src")
        yield Shown(url, element.get("alt") or element.get("title"), width if own else 0, height if own else 0)


def _of_other(element: Element) -> Iterator[Shown]:
    if element.name == "a" and _ends_like_image(element.get("href")):
        yield Shown(element.get("href"), element.get("title"))
    elif element.name == "meta" and (element.get("property") or element.get("name")).casefold() in _OG:
        yield Shown(element.get("content"))
    elif element.name == "link" and (element.get("rel") == "image_src" or element.get("as") == "image"):
        yield Shown(largest_of(element.get("imagesrcset")) or element.get("href"))
    elif element.name == "video" and element.get("poster"):
        yield Shown(element.get("poster"))
    elif element.name == "input" and element.get("type") == "image":
        yield Shown(element.get("src"), element.get("alt"))
    elif element.name == "style":
        yield from (Shown(entry) for entry in css_urls(element.text) if _ends_like_image(entry))
    else:
        yield from (Shown(element.get(name)) for name in _LAZY if _ends_like_image(element.get(name)))


def _is_reference(value: str) -> bool:
    return bool(value) and not value.startswith(("data:", "{", "["))


def _ends_like_image(value: str) -> bool:
    return PurePosixPath(value.partition("?")[0].partition("#")[0]).suffix[1:].casefold() in ENDINGS


def _pixels(value: str) -> int:
    digits = value.strip().removesuffix("px")
    return int(digits) if digits.isdigit() else 0


class AnyPage:
    """Reads one page; its images carry no licence but the user's word."""

    terms = "open"

    def __init__(self, name: str, settings: SourceSettings) -> None:
        self.name = name
        self.url = name.partition(":")[2]
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(f"'{self.url}' is no page; write page:https://…")
        self._stated = stated_licence(settings)
        self._browser = Browser(settings)

    @typed
    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        """All the page's images at once; `cursor` says nothing here."""
        del cursor
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

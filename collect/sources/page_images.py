"""The images that a document shows, each URL once.

`<img>`, `srcset` (the largest), `<picture>`, lazy attributes, links to image files, CSS backgrounds (inline, in `<style>`, and as
computed), `<video poster>`, `og:image`; relative to `<base href>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urldefrag, urljoin, urlsplit

from collect.sources.local import ENDINGS
from collect.sources.markup import Element, elements, largest_of

#: Where lazy loaders keep the real URL, in the order in which they are believed.
_LAZY = (
    "data-original", "data-src", "data-lazy-src", "data-lazy", "data-hi-res-src", "data-full", "data-full-src", "data-large-file",
    "data-image", "data-img-url", "data-echo", "data-url", "data-bg", "data-background", "data-background-image",
)  # fmt: skip
_LAZY_SETS = ("data-srcset", "data-lazy-srcset", "srcset", "imagesrcset")
_OG = frozenset({"og:image", "og:image:url", "og:image:secure_url", "twitter:image", "twitter:image:src"})
_CSS_URL = re.compile(r"url\(\s*(?:\"([^\"]*)\"|'([^']*)'|([^)\s]+))\s*\)")
#: Sides up to which an image is a counter or a spacer.
_SPACER_PX = 3


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
    if url and not url.startswith("data:") and not (0 < width <= _SPACER_PX and 0 < height <= _SPACER_PX):
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

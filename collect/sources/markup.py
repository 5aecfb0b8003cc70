"""HTML as the sources need it: elements with their attributes, plain text, and the best of a `srcset`.

On the standard library's parser, which takes any page however broken; no regular expressions over scripts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

#: Elements whose content is text for a machine.
_MACHINE = frozenset({"script", "style", "template"})
_BLOCKS = frozenset({"br", "p", "div", "li", "tr", "td", "h1", "h2", "h3"})


@dataclass
class Element:
    """A start tag: name and attributes in lower case, values with entities resolved. `text` is filled for style and title.

    `inside` are the names of the elements around it that matter (`picture`, `noscript`).
    """

    name: str
    attributes: dict[str, str]
    inside: frozenset[str] = frozenset()
    text: str = field(default="")

    def get(self, name: str) -> str:
        return self.attributes.get(name, "")

    def has_class(self, name: str) -> bool:
        return name in self.get("class").split()


class _Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.words: list[str] = []
        self._around: list[str] = []
        self._filling: Element | None = None
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, frozenset(self._around))
        self.elements.append(element)
        if tag in {"picture", "noscript"}:
            self._around.append(tag)
        if tag in {"style", "title"}:
            self._filling = element
        self._silent += tag in _MACHINE
        if tag in _BLOCKS:
            self.words.append(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}, frozenset(self._around)))

    def handle_endtag(self, tag: str) -> None:
        if tag in self._around:
            self._around.reverse()
            self._around.remove(tag)
            self._around.reverse()
        if tag in {"style", "title"}:
            self._filling = None
        if tag in _MACHINE:
            self._silent = max(0, self._silent - 1)
        if tag in _BLOCKS:
            self.words.append(" ")

    def handle_data(self, data: str) -> None:
        if self._filling is not None:
            self._filling.text += data
        if not self._silent:
            self.words.append(data)


def elements(html: str) -> list[Element]:
    """All start tags in the order of the page."""
    collector = _Collector()
    collector.feed(html)
    collector.close()
    return collector.elements


def text_of(html: str) -> str:
    """What a person reads, in one line.

    >>> text_of('<a href="https://example.org">Jeff &amp; Brian</a> from <b>Eastbourne</b>')
    'Jeff & Brian from Eastbourne'
    """
    collector = _Collector()
    collector.feed(html)
    collector.close()
    return " ".join("".join(collector.words).split())


def first_link(html: str) -> str:
    """The first `href` of a piece of HTML, with `https:` where it has no scheme of its own; "" = none."""
    link = next((element.get("href") for element in elements(html) if element.name == "a" and element.get("href")), "")
    return f"https:{link}" if link.startswith("//") else link


def srcset_entries(value: str) -> Iterator[tuple[str, float]]:
    """`(URL, size)` of a `srcset`; the size is a width or a density, 1 where none is said (WHATWG HTML, 4.8.4.2).

    >>> list(srcset_entries("a.jpg 320w, b.jpg?x=1,2 640w, c.jpg"))
    [('a.jpg', 320.0), ('b.jpg?x=1,2', 640.0), ('c.jpg', 1.0)]
    """
    rest = value.strip()
    while rest:
        url, _, rest = rest.partition(" ")
        if url.endswith(","):
            descriptor = ""
            url = url.rstrip(",")
        else:
            descriptor, _, rest = rest.partition(",")
        rest = rest.lstrip(" ,\t\r\n")
        if url:
            yield url, _size(descriptor)


def largest_of(srcset: str) -> str:
    """The URL of a `srcset` with the greatest width or density, the first of equals; "" = none.

    >>> largest_of("small.jpg 1x, big.jpg 2x")
    'big.jpg'
    """
    best, best_size = "", 0.0
    for url, size in srcset_entries(" ".join(srcset.split())):
        if size > best_size:
            best, best_size = url, size
    return best


def _size(descriptor: str) -> float:
    words = descriptor.split()
    for word in words:
        if word[-1] in "wx":
            try:
                return float(word[:-1])
            except ValueError:
                continue
    return 1.0

"""Sources that need no search engine: a list of URLs, and a folder of images on this machine."""

from __future__ import annotations

import bisect
import csv
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

from collect.errors import NotFoundError
from collect.licenses import licence_url, spdx_from_name
from collect.records import Candidate, Licence
from collect.sources.source import Page, SourceSettings, or_stated, page_of, stated_licence

PAGE_SIZE = 1000
ENDINGS = frozenset(
    {
        "jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "bmp", "tif", "tiff", "avif", "heic", "heif", "ppm", "pgm", "pbm", "jp2",
        "mpo", "ico",
    }
)  # fmt: skip
Rows = Iterator[tuple[int, dict[str, str]]]
_LINK_COLUMNS = ("page_url", "title", "class", "license", "license_url", "creator", "creator_url", "attribution")


def path_of(url: str) -> Path:
    """The path behind a `file:` URL, without its fragment."""
    return Path(unquote(urlsplit(urldefrag(url).url).path))


def read_file(url: str) -> bytes:
    """The bytes of a file at a `file:` URL.

    Raises:
        NotFoundError: it is gone or cannot be read.
    """
    path = path_of(url)
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}") from error


class UrlList:
    """`urls:FILE`: one URL per line, `#` begins a comment; or a CSV or TSV with a heading that has a column `url`.

    Further columns that are understood: `page_url title class license license_url creator creator_url attribution`. A
    `class` column gives a row to that class only.
    """

    terms = "open"

    def __init__(self, name: str, settings: SourceSettings) -> None:
        self.name = name
        self._path = existing(Path(name.partition(":")[2]))
        self._stated = stated_licence(settings)
        #: Where the last page ended, so that the next need not read the file from its beginning.
        self._open: tuple[int, Rows] | None = None

    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        """A thousand lines from the one after line `cursor`; what is no http(s) URL is counted in `detail`."""
        start, more = int(cursor or 0), False
        odd: list[int] = []
        candidates: list[Candidate] = []
        rows = self._open[1] if self._open and self._open[0] == start else self._rows()
        for line, row in rows:
            if line <= start:
                continue
            if len(candidates) == PAGE_SIZE:
                self._open, more = (start, itertools.chain([(line, row)], rows)), True
                break
            start = line
            if not row["url"].casefold().startswith(("http://", "https://")):
                odd.append(line)
            elif row.get("class") in {None, "", class_name}:
                candidates.append(self._candidate(row, query, class_name, line))
        detail = f"{self._path.name}: {len(odd)} lines are no http URLs, the first is line {odd[0]}" if odd else ""
        page = page_of(candidates, str(start) if more else None, detail=detail or f"{self._path.name} holds no URLs for {class_name}")
        return Page(page.candidates, page.outcome, page.next_cursor, (), detail or page.detail)

    def close(self) -> None:
        self._open = None

    def _rows(self) -> Rows:
        """`(line number, row)` of every line that says something; a row has at least `url`."""
        try:
            with self._path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                heading = file.readline()
                delimiter = "\t" if "\t" in heading else ","
                columns = [column.strip().casefold() for column in heading.strip().split(delimiter)]
                if "url" in columns:
                    for number, fields in enumerate(csv.reader(file, delimiter=delimiter), 2):
                        if fields:
                            row = dict(zip(columns, (field.strip() for field in fields), strict=False))
                            yield number, {"url": "", **row}
                    return
                for number, line in enumerate([heading, *file], 1):
                    url = line.strip()
                    if url and not url.startswith("#"):
                        yield number, {"url": url}
        except OSError as error:
            raise NotFoundError(f"{self._path} cannot be read: {error.strerror}") from error

    def _candidate(self, row: dict[str, str], query: str, class_name: str, line: int) -> Candidate:
        values = {key: row.get(key) or "" for key in _LINK_COLUMNS}
        spdx = spdx_from_name(values["license"], url=values["license_url"])
        licence = Licence(
            spdx=spdx,
            url=values["license_url"] or licence_url(spdx),
            creator=values["creator"],
            creator_url=values["creator_url"],
            title=values["title"],
            attribution=values["attribution"],
            evidence="user" if spdx else "",
            checked_at="",
        )
        return Candidate(
            url=row["url"],
            source=self.name,
            query=query,
            class_name=class_name,
            rank=line,
            page_url=values["page_url"],
            title=values["title"],
            licence=or_stated(licence, self._stated),
        )


class Folder:
    """`folder:DIR`: every image file below a folder; a subfolder named like the class holds that class alone."""

    terms = "open"

    def __init__(self, name: str, settings: SourceSettings) -> None:
        self.name = name
        self._folder = existing(Path(name.partition(":")[2]))
        self._stated = stated_licence(settings)
        self._listed: dict[Path, list[str]] = {}

    def search(self, query: str, class_name: str, cursor: str | None) -> Page:
        """A thousand files in the order of their paths, those after `cursor` (a path below the folder)."""
        own = self._folder / class_name
        every = self._names_below(own if own.is_dir() and own.resolve().parent == self._folder else self._folder)
        names = every[bisect.bisect_right(every, cursor) if cursor else 0 :]
        candidates = [
            Candidate(
                url=(self._folder / name).as_uri(),
                source=self.name,
                query=query,
                class_name=class_name,
                rank=place,
                title=Path(name).name,
                licence=self._stated,
            )
            for place, name in enumerate(names[:PAGE_SIZE])
        ]
        more = names[PAGE_SIZE - 1] if len(names) > PAGE_SIZE else None
        return page_of(candidates, more, detail=f"{self._folder} holds no image files{' beyond those listed' if cursor else ''}")

    def read(self, candidate: Candidate) -> bytes:
        """The bytes of a candidate's file."""
        return read_file(candidate.url)

    def close(self) -> None:
        self._listed.clear()

    def _names_below(self, folder: Path) -> list[str]:
        if folder not in self._listed:
            self._listed[folder] = sorted(path.relative_to(self._folder).as_posix() for path in _image_files(folder))
        return self._listed[folder]


def _image_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        for name in names:
            if not name.startswith(".") and Path(name).suffix[1:].casefold() in ENDINGS:
                yield Path(place) / name


def existing(path: Path) -> Path:
    """A path that a person wrote, made absolute.

    Raises:
        NotFoundError: nothing is there.
    """
    path = path.expanduser().resolve()
    if not path.exists():
        raise NotFoundError(f"there is no {path}; check the path after the colon")
    return path

"""Public datasets by name: fetched from where their makers publish them, then imported like any other labels.

A set is asked for as `NAME[/PART][:CLASS,CLASS…]`, such as `coco-2017/val:cat,dog`. Files are kept in `.cache/public` under
the root, so that a broken download goes on and a second import fetches nothing. A mirror is a folder on the web in which
each host is a folder: `MIRROR/images.cocodataset.org/annotations/…`.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import requests

from collect.errors import MissingServiceError, UsageError, unknown_name
from collect.files import safe_join, storage_errors

#: name -> function `fetch(wanted, web) -> Fetched`.
SETS = {
    "cifar-10": "annotate.public_crops:cifar_10",
    "coco-2017": "annotate.public_boxes:coco_2017",
    "imagenet": "annotate.public_crops:imagenet",
    "mnist": "annotate.public_crops:mnist",
    "open-images-v7": "annotate.public_boxes:open_images_v7",
    "oxford-pets": "annotate.public_boxes:oxford_pets",
    "svhn": "annotate.public_boxes:svhn",
    "visualqa": "annotate.public_boxes:visualqa",
}
_BLOCK = 1 << 20
_TIMEOUT_S = 60.0
_CONNECTIONS = 16


@dataclass(frozen=True)
class Wanted:
    """What is asked of a set. `part` "" = all of its parts, `classes` () = all, `limit` 0 = every image."""

    name: str
    part: str = ""
    classes: tuple[str, ...] = ()
    limit: int = 0

    def parts(self, valid: Sequence[str]) -> list[str]:
        """The parts to fetch.

        Raises:
            UsageError: the set has no such part.
        """
        if self.part and self.part not in valid:
            raise unknown_name(f"part of {self.name}", self.part, valid)
        return [self.part] if self.part else list(valid)

    def check_classes(self, there: Iterable[str]) -> None:
        """Hold the classes against those of the set.

        Raises:
            UsageError: it lacks one; names the nearest.
        """
        names = list(there)
        for name in self.classes:
            if name not in names:
                raise unknown_name(f"class of {self.name}", name, names)

    def take(self, items: Sequence[str]) -> list[str]:
        """The first `limit` of some items."""
        return list(items[: self.limit] if self.limit else items)


@dataclass(frozen=True)
class Fetched:
    """Labels and images as they now lie on the disk, and the licence where the labels name none."""

    folder: Path
    format: str
    licence: str = ""


def parse(text: str, limit: int = 0) -> Wanted:
    """What a person asks for.

    >>> parse("coco-2017/val:cat,hot dog")
    Wanted(name='coco-2017', part='val', classes=('cat', 'hot dog'), limit=0)

    Raises:
        UsageError: there is no such set.
    """
    head, _, classes = text.partition(":")
    name, _, part = head.partition("/")
    if name not in SETS:
        raise unknown_name("public set", name, SETS)
    return Wanted(name, part, tuple(entry.strip() for entry in classes.split(",") if entry.strip()), limit)


def fetch(wanted: Wanted, web: Web) -> Fetched:
    """Fetch a set.

    Raises:
        MissingServiceError: the network or the file is not there.
        UsageError: the set has no such part or class.
    """
    module, _, attribute = SETS[wanted.name].partition(":")
    function = cast("Callable[[Wanted, Web], Fetched]", getattr(importlib.import_module(module), attribute))
    return function(wanted, web)


@dataclass(frozen=True)
class Web:
    """Downloads into `cache`, from a mirror where one is given."""

    cache: Path
    mirror: str = ""
    user_agent: str = "boxwright"

    def get(self, url: str) -> Path:
        """A file, from the cache or the web; a part of it that is there already is not fetched again.

        Raises:
            MissingServiceError: it cannot be had.
        """
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"'{url}' is no address on the web")
        path = safe_join(self.cache / "files", url.partition("://")[2])
        if path.is_file():
            return path
        part = path.with_name(f"{path.name}.part")
        with storage_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._download(url, part)
        except requests.RequestException as error:
            raise MissingServiceError(f"{url} cannot be had: {error}; run this again (it goes on), or give --mirror") from error
        with storage_errors():
            part.replace(path)
        return path

    def _download(self, url: str, part: Path) -> None:
        address = f"{self.mirror.rstrip('/')}/{url.partition('://')[2]}" if self.mirror else url
        done = part.stat().st_size if part.exists() else 0
        headers = {"User-Agent": self.user_agent, "Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
        with requests.get(address, headers=headers, stream=True, timeout=_TIMEOUT_S) as reply:
            if reply.status_code == requests.codes.requested_range_not_satisfiable:
                part.unlink()
                raise requests.ConnectionError("what was there of it is longer than it is; thrown away")
            reply.raise_for_status()
            resumed = reply.status_code == requests.codes.partial_content
            expected = int(reply.headers.get("Content-Length", -1))
            written = 0
            with storage_errors(), part.open("ab" if resumed else "wb") as file:
                for block in reply.iter_content(_BLOCK):
                    file.write(block)
                    written += len(block)
            if expected not in {-1, written}:
                raise requests.ConnectionError(f"{written} of {expected} bytes came")

    def get_all(self, urls: Sequence[str]) -> list[Path]:
        """Several files at a time, in order."""
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            return list(pool.map(self.get, urls))

    def workspace(self, wanted: Wanted) -> Path:
        """An empty folder for the labels of one request."""
        classes = "-".join(wanted.classes)[:60].replace("/", "_").replace(" ", "_") or "all"
        folder = self.cache / "sets" / f"{wanted.name}-{wanted.part or 'all'}-{classes}-{wanted.limit}"
        with storage_errors():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        return folder


def link(source: Path, target: Path) -> None:
    """Let a downloaded file appear under another name, without a copy where the disk can."""
    with storage_errors():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)

"""What a site says about being read by machines: robots.txt, X-Robots-Tag, and the TDM reservation protocol.

robots.txt after RFC 9309: 4xx allows, 5xx and unreachable forbid, 500 KiB are read, five redirects followed, kept a day.
X-Robots-Tag: `noindex`, `noimageindex` and the opt-outs from machine learning (`noai`, `noimageai`, `noml`). TDMRep (W3C
community report, 2024): the header `tdm-reservation` beats `/.well-known/tdmrep.json`.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from multidict import CIMultiDictProxy
from protego import Protego
from yarl import URL

from collect.net.fetch import Lost, Reply
from collect.records import Reason, State

_AGENT = "boxwright"
_KEPT_S = 24 * 3600.0
_KEPT_AFTER_ERROR_S = 600.0
_KEPT_ORIGINS = 4096
_MAX_BYTES = 512_000
_UNREACHABLE = {Reason.DNS, Reason.CONNECTION, Reason.TLS, Reason.TIMEOUT, Reason.ADDRESS, Reason.CIRCUIT_OPEN, Reason.RATE_LIMITED}
_OPT_OUTS = {"noai", "noimageai", "noml", "noindex", "noimageindex", "none"}


class Gets(Protocol):
    """What fetches the two files: :class:`collect.net.fetch.Fetcher`."""

    async def fetch(self, url: str, *, max_bytes: int) -> Reply | Lost:
        """The reply to a GET, redirects followed."""


@dataclass(frozen=True)
class Rules:
    """What an origin's two files say. `robots` None = it has none; `lost` is set where it could not be read: all is forbidden."""

    until: float
    robots: Protego | None = None
    lost: Lost | None = None
    reservations: tuple[tuple[str, bool], ...] = ()

    def refusal(self, url: str) -> Lost | None:
        """Why a URL must not be fetched, or None.

        A site that cannot be reached is lost for the reason it cannot be reached; one that answers with 5xx forbids.
        """
        if self.lost is not None:
            if self.lost.reason in _UNREACHABLE:
                return replace(self.lost, detail=f"robots.txt: {self.lost.detail}")
            return Lost(State.DENIED, Reason.ROBOTS, f"robots.txt cannot be read ({self.lost.detail}), which forbids everything")
        if self.robots is not None and not self.robots.can_fetch(url, _AGENT):
            return Lost(State.DENIED, Reason.ROBOTS, "robots.txt forbids it")
        return None

    def crawl_delay_s(self) -> float:
        return float((self.robots.crawl_delay(_AGENT) if self.robots else None) or 0.0)

    def reserved(self, path: str) -> bool:
        """Whether tdmrep.json reserves a path; the first location that matches decides."""
        return next((reserved for pattern, reserved in self.reservations if _matches(pattern, path)), False)


class RobotsCache:
    """The rules of every origin met, fetched once a day; many URLs of an origin wait for the same fetch.

    A context manager, to be left before its fetcher is: what is still being fetched then has nobody left who waits for it.
    """

    def __init__(self, fetcher: Gets) -> None:
        self._fetcher = fetcher
        self._rules: OrderedDict[str, asyncio.Task[Rules]] = OrderedDict()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        for task in self._rules.values():
            task.cancel()
        await asyncio.gather(*self._rules.values(), return_exceptions=True)

    async def rules(self, url: URL) -> Rules:
        """The rules of a URL's origin."""
        origin = str(url.origin())
        task = self._rules.get(origin)
        if task is None or (task.done() and (task.cancelled() or task.exception() or task.result().until < time.monotonic())):
            task = self._rules[origin] = asyncio.create_task(self._load(origin))
            while len(self._rules) > _KEPT_ORIGINS:
                self._rules.popitem(last=False)
        else:
            self._rules.move_to_end(origin)
        return await asyncio.shield(task)

    async def _load(self, origin: str) -> Rules:
        reply = await self._fetcher.fetch(f"{origin}/robots.txt", max_bytes=_MAX_BYTES)
        moment = time.monotonic()
        if isinstance(reply, Lost):
            if reply.reason == Reason.TOO_MANY_BYTES:
                return Rules(moment + _KEPT_S)
            return Rules(moment + _KEPT_AFTER_ERROR_S, lost=reply)
        robots = None if reply.status >= 400 else Protego.parse(reply.body.decode("utf-8", "replace").lstrip("\ufeff"))
        return Rules(moment + _KEPT_S, robots, reservations=await self._reservations(origin))

    async def _reservations(self, origin: str) -> tuple[tuple[str, bool], ...]:
        reply = await self._fetcher.fetch(f"{origin}/.well-known/tdmrep.json", max_bytes=_MAX_BYTES)
        if isinstance(reply, Lost) or reply.status != 200:
            return ()
        return parse_tdmrep(reply.body)


def parse_tdmrep(body: bytes) -> tuple[tuple[str, bool], ...]:
    """`(location pattern, reserved)` per entry of a tdmrep.json; () where it is not one.

    >>> parse_tdmrep(b'[{"location": "/img/*", "tdm-reservation": 1}]')
    (('/img/*', True),)
    """
    try:
        entries = json.loads(body)
    except ValueError:
        return ()
    if not isinstance(entries, list):
        return ()
    return tuple((entry["location"], _is_one(entry.get("tdm-reservation"))) for entry in entries if _is_entry(entry))


def opted_out(headers: CIMultiDictProxy[str]) -> str:
    """The directive of X-Robots-Tag that forbids this use, or "".

    A directive behind another robot's name (`otherbot: noindex`) does not concern us; commas separate directives.
    """
    for value in headers.getall("X-Robots-Tag", []):
        agent = ""
        for part in value.split(","):
            name, colon, rest = part.partition(":")
            word = part.strip().lower()
            if colon and name.strip().lower() not in {"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"}:
                agent, word = name.strip().lower(), rest.strip().lower()
            if word in _OPT_OUTS and agent in {"", "*", _AGENT}:
                return f"X-Robots-Tag: {word}"
    return ""


def tdm_header(headers: CIMultiDictProxy[str]) -> bool | None:
    """What the header `tdm-reservation` says; None = nothing."""
    value = headers.get("tdm-reservation", "").strip()
    return {"1": True, "0": False}.get(value)


def _matches(pattern: str, path: str) -> bool:
    """TDMRep's locations are matched like robots.txt paths: prefix, `*` and a final `$`."""
    expression = re.escape(pattern.removesuffix("$")).replace(r"\*", ".*") + ("$" if pattern.endswith("$") else "")
    return re.match(expression, path) is not None


def _is_one(value: Any) -> bool:
    return str(value).strip() == "1"


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("location"), str)

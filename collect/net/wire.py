"""What a request gives to whoever asked: the head of the answer, then its body in pieces. The HTTP clients behind it know no more.

:mod:`collect.net.aiohttp_wire` is the client everybody has, :mod:`collect.net.curl_wire` the one for `--engine pycurl`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol, Self, cast

from multidict import CIMultiDictProxy
from yarl import URL

from collect.net.address import AddressGuard
from collect.records import Reason

#: Asked of every server: pictures, as they are.
FIELDS = {"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
#: Seconds that an idle connection is kept.
KEPT_S = 15
CLIENTS = {"aiohttp": "collect.net.aiohttp_wire:AiohttpWire", "pycurl": "collect.net.curl_wire:CurlWire"}


@dataclass(frozen=True)
class Answer:
    """The head of an HTTP answer."""

    url: URL
    status: int
    headers: CIMultiDictProxy[str]

    @property
    def content_length(self) -> int | None:
        """What the server announces, in bytes; None where it does not, or not in digits."""
        text = self.headers.get("Content-Length", "").strip()
        return int(text) if text.isascii() and text.isdigit() else None

    @property
    def content_type(self) -> str:
        """The media type alone, in lower case; "" where none is stated."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()


class Receiver(Protocol):
    """Takes an answer. Whatever these two raise ends the request and reaches its caller."""

    def answered(self, answer: Answer) -> bool:
        """The head has come; False = the body is not wanted."""

    def take(self, chunk: bytes) -> None:
        """The next bytes of the body, as they were sent (but for chunked transfer)."""


class WireError(Exception):
    """No whole answer came: `reason` is CONNECTION, TLS, DNS or TRUNCATED (in the midst of a body).

    `unheard`: no connection could be made, so a server that was there before may be down.
    """

    def __init__(self, reason: Reason, words: str, *, unheard: bool = False) -> None:
        super().__init__(words)
        self.reason, self.unheard = reason, unheard


class Wire(Protocol):
    """An HTTP client: no redirects, no cookies, no proxy of the environment, certificates verified.

    It connects only to what an :class:`AddressGuard` lets through, decided at the very address. An async context manager.
    """

    def __init__(self, guard: AddressGuard, user_agent: str, stall_s: float, connect_s: float) -> None:
        """`stall_s` is the longest silence, `connect_s` the longest that connecting may take."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exception: object) -> None: ...

    async def get(self, url: URL, receiver: Receiver) -> None:
        """One GET, told to the receiver.

        Raises:
            AddressRefusedError: the guard does not let the host's address through.
            TimeoutError: no connection, or silence, for too long.
            WireError: no whole answer came.
        """


def wire_named(name: str) -> type[Wire]:
    """The client of that name. Only the one that is used is imported: they cost a fifth of a second.

    Raises:
        MissingServiceError: its package is not installed.
    """
    module, _, attribute = CLIENTS[name].partition(":")
    return cast("type[Wire]", getattr(importlib.import_module(module), attribute))

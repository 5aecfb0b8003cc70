"""One URL, fetched: hops by hand under the guard, bytes counted while they stream, one deadline for everything.

Whatever happens ends as a :class:`Fetched` or a :class:`Lost`; nothing a server does raises.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Self

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from collect.net.address import AddressGuard, AddressRefusedError
from collect.net.domains import domain_of_host
from collect.net.throttle import DomainClosedError, Throttle
from collect.records import Reason, State

_REDIRECTS = {301, 302, 303, 307, 308}
_RETRIED_4XX = {408, 425, 429}
_GRACE_S = 5.0
_LONGEST_RETRY_AFTER_S = 24 * 3600.0
_OFFLINE = {socket.EAI_AGAIN}


@dataclass(frozen=True)
class FetchLimits:
    """Caps on one URL. `stall_s` is the longest silence; `min_bytes_per_s` the slowest body after five seconds."""

    max_bytes: int = 40_000_000
    deadline_s: float = 60.0
    stall_s: float = 20.0
    min_bytes_per_s: float = 1000.0
    max_redirects: int = 5


@dataclass(frozen=True)
class Reply:
    """An HTTP answer whose body was read (up to the cap) unless `wanted` said no."""

    status: int
    url: str
    redirects: int
    headers: CIMultiDictProxy[str]
    body: bytes


@dataclass(frozen=True)
class Lost:
    """Why a URL brought no bytes: state DENIED, GONE, INVALID or RETRY. `retry_after_s` is what the server asked for; `unheard`: no
    connection could be made, so a server that was there before may be down.
    """

    state: State
    reason: Reason
    detail: str = ""
    status: int = 0
    final_url: str = ""
    redirects: int = 0
    retry_after_s: float = 0.0
    unheard: bool = False


class LostError(Exception):
    """Carries a :class:`Lost` out of the depth of a request."""

    def __init__(self, lost: Lost) -> None:
        super().__init__(lost.detail)
        self.lost = lost


@dataclass
class _Hop:
    """Where a request stands, for the record of a loss."""

    url: URL
    redirects: int = 0
    status: int = 0
    started: float = field(default_factory=time.monotonic)


Check = Callable[[URL], Awaitable[None]]
Wanted = Callable[[aiohttp.ClientResponse], None]


class Fetcher:
    """The one HTTP session: shared TLS context, pinned addresses, no cookies, identity encoding, an honest User-Agent."""

    def __init__(self, guard: AddressGuard, throttle: Throttle, limits: FetchLimits, user_agent: str) -> None:
        self.guard, self.throttle, self.limits = guard, throttle, limits
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # aiohttp's own TLS context verifies, and is made once for the process.
        connector = aiohttp.TCPConnector(
            limit=0, resolver=self.guard, use_dns_cache=False, socket_factory=self.guard.open_socket, keepalive_timeout=15,
        )  # fmt: skip
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False,
            headers={"User-Agent": self._user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_read=self.limits.stall_s, sock_connect=self.limits.stall_s),
        )  # fmt: skip
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # lets TLS transports close

    async def fetch(self, url: str, check: Check | None = None, wanted: Wanted | None = None, max_bytes: int = 0) -> Reply | Lost:
        """GET a URL, following redirects.

        `check(url)` may refuse each hop before it is requested, `wanted(response)` the answer before its body is read;
        both refuse by raising :class:`LostError`. `max_bytes` overrides the cap.
        """
        try:
            hop = _Hop(URL(url))
        except ValueError as error:
            return Lost(State.DENIED, Reason.SCHEME, f"not a URL: {error}")
        try:
            return await self._follow(hop, check, wanted, max_bytes or self.limits.max_bytes)
        except DomainClosedError as closed:
            wait_s = max(0.0, closed.until - time.time())
            return self._lost(hop, State.RETRY, closed.reason, str(closed), wait_s)
        except AddressRefusedError as refused:
            reason = Reason.SCHEME if "scheme" in str(refused) else Reason.ADDRESS
            return self._lost(hop, State.DENIED, reason, str(refused))
        except LostError as error:
            given = error.lost
            return self._lost(hop, given.state, given.reason, given.detail, given.retry_after_s)
        except (TimeoutError, aiohttp.ServerTimeoutError):
            self._failed(hop)
            return self._lost(hop, State.RETRY, Reason.TIMEOUT, "no complete answer within the deadline")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if not isinstance(error, aiohttp.ClientPayloadError):
                self._failed(hop)
            state, reason = _classify(error)
            unheard = reason == Reason.CONNECTION and isinstance(error, aiohttp.ClientConnectorError)
            return replace(self._lost(hop, state, reason, _words(error)[:300]), unheard=unheard)

    async def _follow(self, hop: _Hop, check: Check | None, wanted: Wanted | None, max_bytes: int) -> Reply:
        remaining_s = self.limits.deadline_s
        while True:
            self.guard.check_url(hop.url)
            if check:
                await check(hop.url)
            if not self.guard.knows(hop.url):
                remaining_s -= await self._look_up(hop, remaining_s)
            async with self.throttle.turn(domain_of_host(hop.url.host or "")):
                hop.started = time.monotonic()
                async with asyncio.timeout(remaining_s):
                    answer = await self._exchange(hop, wanted, max_bytes)
                remaining_s -= time.monotonic() - hop.started
            if isinstance(answer, Reply):
                return answer
            hop.redirects += 1
            if hop.redirects > self.limits.max_redirects:
                raise LostError(Lost(State.GONE, Reason.REDIRECTS, f"more than {self.limits.max_redirects} redirects"))
            hop.url = answer

    async def _look_up(self, hop: _Hop, deadline_s: float) -> float:
        """Have the guard find a URL's host before its turn comes: a silent name server takes no other's. Returns seconds."""
        hop.started, host = time.monotonic(), hop.url.host or ""
        try:
            async with asyncio.timeout(deadline_s):
                await self.guard.resolve(host, hop.url.port or 0)
        except TimeoutError:
            raise
        except OSError as error:
            self._failed(hop)
            state = State.RETRY if error.errno in _OFFLINE else State.GONE
            raise LostError(Lost(state, Reason.DNS, f"cannot find {host}: {error.strerror or error}")) from error
        return time.monotonic() - hop.started

    async def _exchange(self, hop: _Hop, wanted: Wanted | None, max_bytes: int) -> Reply | URL:
        """One request: the next URL where it redirects, else the whole reply."""
        assert self._session is not None, "use the fetcher as a context manager"
        async with self._session.get(hop.url, allow_redirects=False) as response:
            hop.status = response.status
            latency_s = time.monotonic() - hop.started
            domain = domain_of_host(hop.url.host or "")
            if response.status in _REDIRECTS and "Location" in response.headers:
                self.throttle.succeeded(domain, latency_s)
                return hop.url.join(URL(response.headers["Location"]))
            if response.status in _RETRIED_4XX or response.status >= 500:
                raise LostError(self._busy(response, domain, latency_s))
            self.throttle.succeeded(domain, latency_s)
            if wanted:
                wanted(response)
            if response.content_length and response.content_length > max_bytes:
                raise LostError(Lost(State.INVALID, Reason.TOO_MANY_BYTES, f"{response.content_length} bytes announced"))
            body = await self._body(response, max_bytes)
            return Reply(response.status, str(hop.url), hop.redirects, response.headers, body)

    async def _body(self, response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
        unpack = _unpacker(response.headers.get("Content-Encoding", ""))
        parts: list[bytes] = []
        num_bytes = received = 0
        started = time.monotonic()
        async for chunk in response.content.iter_any():
            received += len(chunk)
            part = unpack(chunk, max_bytes - num_bytes + 1) if unpack else chunk
            num_bytes += len(part)
            if num_bytes > max_bytes:
                raise LostError(Lost(State.INVALID, Reason.TOO_MANY_BYTES, f"more than {max_bytes} bytes"))
            parts.append(part)
            took_s = time.monotonic() - started
            if took_s > _GRACE_S and received < took_s * self.limits.min_bytes_per_s:
                raise TimeoutError
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _busy(self, response: aiohttp.ClientResponse, domain: str, latency_s: float) -> Lost:
        """A status that asks to come again."""
        retry_after_s = retry_after(response.headers.get("Retry-After", ""))
        limited = response.status == 429
        if limited or retry_after_s:
            self.throttle.pause(domain, retry_after_s or 30.0)
        if not limited:
            self.throttle.failed(domain, latency_s)
        reason = Reason.RATE_LIMITED if limited else Reason.TIMEOUT if response.status == 408 else Reason.HTTP_5XX
        return Lost(State.RETRY, reason, f"HTTP {response.status}", retry_after_s=retry_after_s)

    def _failed(self, hop: _Hop) -> None:
        self.throttle.failed(domain_of_host(hop.url.host or ""), time.monotonic() - hop.started)

    def _lost(self, hop: _Hop, state: State, reason: Reason, detail: str, retry_after_s: float = 0.0) -> Lost:
        return Lost(state, reason, detail, hop.status, str(hop.url) if hop.redirects else "", hop.redirects, retry_after_s)


def retry_after(text: str) -> float:
    """Seconds a Retry-After header asks for (a number or an HTTP date), 0 where it says nothing; at most a day.

    >>> retry_after("120"), retry_after("soon"), retry_after("Wed, 21 Oct 2015 07:28:00 GMT")
    (120.0, 0.0, 0.0)
    """
    if re.fullmatch(r"\s*\d{1,9}\s*", text):
        return min(_LONGEST_RETRY_AFTER_S, float(text))
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(_LONGEST_RETRY_AFTER_S, max(0.0, seconds))


def _unpacker(encoding: str) -> Callable[[bytes, int], bytes] | None:
    """A decoder for servers that compress though `identity` was asked; never gives more than it is told to."""
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return None
    if name not in {"gzip", "x-gzip", "deflate"}:
        raise LostError(Lost(State.INVALID, Reason.NOT_AN_IMAGE, f"Content-Encoding {name} though identity was asked"))
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def unpack(chunk: bytes, max_length: int) -> bytes:
        try:
            return stream.decompress(chunk, max(1, max_length))
        except zlib.error as error:
            raise LostError(Lost(State.INVALID, Reason.BROKEN, f"the {name} encoding is broken: {error}")) from error

    return unpack


def _words(error: Exception) -> str:
    """An error for a person; aiohttp's own words about a connection name its TLS settings and forget the cause."""
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        number = error.os_error.errno or 0
        why = os.strerror(number) if number > 0 else error.os_error.strerror or str(error.os_error)
        return f"cannot connect to {error.host}:{error.port}: {why}"
    return f"{type(error).__name__}: {error}"


def _classify(error: Exception) -> tuple[State, Reason]:
    if isinstance(error, aiohttp.ClientPayloadError):
        return State.GONE, Reason.TRUNCATED
    if isinstance(error, aiohttp.ClientConnectorDNSError):  # the name was known a moment ago
        return State.RETRY, Reason.DNS
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return State.GONE, Reason.TLS
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return State.DENIED, Reason.SCHEME
    return State.GONE, Reason.CONNECTION

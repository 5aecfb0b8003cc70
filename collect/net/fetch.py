"""One URL, fetched: hops by hand under the guard, bytes counted while they stream, one deadline for everything.

Whatever happens ends as a :class:`Fetched` or a :class:`Lost`; nothing a server does raises.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Self

from multidict import CIMultiDictProxy
from yarl import URL

from collect.net.address import AddressGuard, AddressRefusedError
from collect.net.domains import domain_of_host
from collect.net.throttle import DomainClosedError, Throttle
from collect.net.wire import Answer, WireError, wire_named
from collect.records import Reason, State

_REDIRECTS = {301, 302, 303, 307, 308}
_RETRIED_4XX = {408, 425, 429}
_GRACE_S = 5.0
_LONGEST_RETRY_AFTER_S = 24 * 3600.0
_OFFLINE = {socket.EAI_AGAIN}


@dataclass(frozen=True)
class FetchLimits:
    """Caps on one URL. `stall_s` is the longest silence; `min_bytes_per_s` the slowest body after five seconds.

    `connect_s`: a host that swallows connections holds its turn for as long; three repetitions of a lost packet fit in.
    """

    max_bytes: int = 40_000_000
    deadline_s: float = 60.0
    stall_s: float = 20.0
    connect_s: float = 10.0
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
Wanted = Callable[[Answer], None]


class Fetcher:
    """Fetches URLs under a guard and a throttle, by the HTTP client named `client`. An async context manager.

    Raises:
        MissingServiceError: the client's package is not installed.
    """

    def __init__(self, guard: AddressGuard, throttle: Throttle, limits: FetchLimits, user_agent: str, client: str = "aiohttp") -> None:
        self.guard, self.throttle, self.limits = guard, throttle, limits
        self._wire = wire_named(client)(guard, user_agent, limits.stall_s, min(limits.connect_s, limits.stall_s))

    async def __aenter__(self) -> Self:
        await self._wire.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._wire.__aexit__(*exception)

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
            return self._lost(hop, State.RETRY, closed.reason, str(closed), closed.seconds)
        except AddressRefusedError as refused:
            reason = Reason.SCHEME if "scheme" in str(refused) else Reason.ADDRESS
            return self._lost(hop, State.DENIED, reason, str(refused))
        except LostError as error:
            given = error.lost
            return self._lost(hop, given.state, given.reason, given.detail, given.retry_after_s)
        except TimeoutError:
            self._failed(hop)
            return self._lost(hop, State.RETRY, Reason.TIMEOUT, "no complete answer within the deadline")
        except WireError as error:
            if error.reason != Reason.TRUNCATED:
                self._failed(hop)
            state = State.RETRY if error.reason == Reason.DNS else State.GONE
            return replace(self._lost(hop, state, error.reason, str(error)[:300]), unheard=error.unheard)
        except ValueError as error:
            return self._lost(hop, State.DENIED, Reason.SCHEME, f"not a URL: {error}"[:300])

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
        hop.started, host = time.monotonic(), hop.url.raw_host or ""
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
        receiving = _Receiving(self, hop, wanted, max_bytes)
        await self._wire.get(hop.url, receiving)
        return receiving.next_url or receiving.reply()

    def busy(self, answer: Answer, domain: str, latency_s: float) -> Lost:
        """A status that asks to come again; the throttle is told."""
        retry_after_s = retry_after(answer.headers.get("Retry-After", ""))
        limited = answer.status == 429
        if limited or retry_after_s:
            self.throttle.pause(domain, retry_after_s or 30.0)
        if not limited:
            self.throttle.failed(domain, latency_s)
        reason = Reason.RATE_LIMITED if limited else Reason.TIMEOUT if answer.status == 408 else Reason.HTTP_5XX
        return Lost(State.RETRY, reason, f"HTTP {answer.status}", retry_after_s=retry_after_s)

    def _failed(self, hop: _Hop) -> None:
        self.throttle.failed(domain_of_host(hop.url.host or ""), time.monotonic() - hop.started)

    def _lost(self, hop: _Hop, state: State, reason: Reason, detail: str, retry_after_s: float = 0.0) -> Lost:
        return Lost(state, reason, detail, hop.status, str(hop.url) if hop.redirects else "", hop.redirects, retry_after_s)


class _Receiving:
    """One answer as it comes: redirects, refusals and caps are told at the first byte that tells them."""

    def __init__(self, fetcher: Fetcher, hop: _Hop, wanted: Wanted | None, max_bytes: int) -> None:
        self._fetcher, self._hop, self._wanted, self._max_bytes = fetcher, hop, wanted, max_bytes
        self._parts: list[bytes] = []
        self._num_bytes = self._received = 0
        self.next_url: URL | None = None

    def answered(self, answer: Answer) -> bool:
        hop, throttle = self._hop, self._fetcher.throttle
        hop.status = answer.status
        latency_s, domain = time.monotonic() - hop.started, domain_of_host(hop.url.host or "")
        if answer.status in _REDIRECTS and "Location" in answer.headers:
            throttle.succeeded(domain, latency_s)
            self.next_url = hop.url.join(URL(answer.headers["Location"]))
            return False
        if answer.status in _RETRIED_4XX or answer.status >= 500:
            raise LostError(self._fetcher.busy(answer, domain, latency_s))
        throttle.succeeded(domain, latency_s)
        if self._wanted:
            self._wanted(answer)
        if (answer.content_length or 0) > self._max_bytes:
            raise LostError(Lost(State.INVALID, Reason.TOO_MANY_BYTES, f"{answer.content_length} bytes announced"))
        self._unpack = _unpacker(answer.headers.get("Content-Encoding", ""))
        self._answer, self._body_began = answer, time.monotonic()
        return True

    def take(self, chunk: bytes) -> None:
        self._received += len(chunk)
        part = self._unpack(chunk, self._max_bytes - self._num_bytes + 1) if self._unpack else chunk
        self._num_bytes += len(part)
        if self._num_bytes > self._max_bytes:
            raise LostError(Lost(State.INVALID, Reason.TOO_MANY_BYTES, f"more than {self._max_bytes} bytes"))
        self._parts.append(part)
        took_s = time.monotonic() - self._body_began
        if took_s > _GRACE_S and self._received < took_s * self._fetcher.limits.min_bytes_per_s:
            raise TimeoutError

    def reply(self) -> Reply:
        """What came, after its last byte."""
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        return Reply(self._answer.status, str(self._hop.url), self._hop.redirects, self._answer.headers, body)


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

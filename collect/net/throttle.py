"""Politeness: how many requests a registrable domain gets at a time, how far apart, and when it gets none.

The delay follows the domain's smoothed latency (as Scrapy's AutoThrottle does: latency / wanted concurrency); an error never
shortens it. `Retry-After` and a breaker that opens after failures in a row close a domain for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from collect.records import Reason

_FAILURES_TO_OPEN = 5
_FIRST_PAUSE_S = 60.0
_LONGEST_PAUSE_S = 3600.0
_LONGEST_DELAY_S = 30.0
_SMOOTHING = 0.5
_KEPT_DOMAINS = 20_000


class DomainClosedError(Exception):
    """The domain takes no requests for `seconds` from now; `reason` is RATE_LIMITED or CIRCUIT_OPEN."""

    def __init__(self, domain: str, seconds: float, reason: Reason) -> None:
        super().__init__(f"{domain} takes no requests for {seconds:.0f} s")
        self.seconds, self.reason = seconds, reason


@dataclass
class _Domain:
    slots: asyncio.Semaphore
    next_start: float = 0.0
    delay_s: float = 0.0
    floor_s: float = 0.0
    failures: int = 0
    closed_until: float = 0.0  # monotonic seconds, as all moments here: the clock on the wall may jump
    closed_for: Reason = Reason.NONE
    in_use: int = field(default=0)


class Throttle:
    """Grants turns. `total` requests at a time, `per_domain` of them to one domain; `polite=False` keeps only the total.

    A domain closed for no longer than `patience_s` is waited for; one closed for longer raises at once.
    """

    def __init__(self, total: int, per_domain: int, *, polite: bool = True, patience_s: float = 5.0) -> None:
        self._total, self._num_total = asyncio.Semaphore(total), total
        self._per_domain, self._polite, self._patience_s = per_domain, polite, patience_s
        self._domains: OrderedDict[str, _Domain] = OrderedDict()

    def widen(self, total: int) -> None:
        """Let more requests go at a time; never fewer than before."""
        for _ in range(total - self._num_total):
            self._total.release()
        self._num_total = max(total, self._num_total)

    @asynccontextmanager
    async def turn(self, domain: str) -> AsyncIterator[None]:
        """Hold one of the domain's slots for the length of one request.

        Raises:
            DomainClosedError: the domain asked for a longer pause, or its breaker is open.
        """
        if not self._polite:
            async with self._total:
                yield
            return
        state = self._state(domain)
        state.in_use += 1
        try:
            async with state.slots:
                await self._wait(domain, state)
                async with self._total:
                    yield
        finally:
            state.in_use -= 1

    async def _wait(self, domain: str, state: _Domain) -> None:
        moment = time.monotonic()
        closed_s = state.closed_until - moment
        if closed_s > self._patience_s:
            raise DomainClosedError(domain, closed_s, state.closed_for)
        start = max(moment + closed_s, state.next_start, moment)
        state.next_start = start + max(state.delay_s, state.floor_s)
        if start > moment:
            await asyncio.sleep(start - moment)

    def succeeded(self, domain: str, latency_s: float) -> None:
        """The domain answered, `latency_s` after the request went out."""
        if not self._polite:
            return
        state = self._state(domain)
        state.failures = 0
        wanted = latency_s / self._per_domain
        state.delay_s = min(_LONGEST_DELAY_S, state.delay_s * _SMOOTHING + wanted * (1 - _SMOOTHING))

    def failed(self, domain: str, latency_s: float = 0.0) -> None:
        """The domain did not answer, or with 5xx: the delay may only grow, and after some in a row the breaker opens."""
        if not self._polite:
            return
        state = self._state(domain)
        state.failures += 1
        state.delay_s = min(_LONGEST_DELAY_S, max(state.delay_s, latency_s / self._per_domain))
        if state.failures >= _FAILURES_TO_OPEN:
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (state.failures - _FAILURES_TO_OPEN))
            self._close(state, time.monotonic() + pause_s, Reason.CIRCUIT_OPEN)

    def pause(self, domain: str, seconds: float) -> None:
        """The domain said Retry-After."""
        if self._polite:
            self._close(self._state(domain), time.monotonic() + seconds, Reason.RATE_LIMITED)

    def crawl_delay(self, domain: str, seconds: float) -> None:
        """The domain's robots.txt asks for a delay between requests."""
        if self._polite:
            state = self._state(domain)
            state.floor_s = max(state.floor_s, min(seconds, _LONGEST_DELAY_S))

    def _close(self, state: _Domain, until: float, reason: Reason) -> None:
        if until > state.closed_until:
            state.closed_until, state.closed_for = until, reason

    def _state(self, domain: str) -> _Domain:
        state = self._domains.get(domain)
        if state is None:
            state = self._domains[domain] = _Domain(asyncio.Semaphore(self._per_domain))
            if len(self._domains) > _KEPT_DOMAINS:
                self._forget()
        else:
            self._domains.move_to_end(domain)
        return state

    def _forget(self) -> None:
        """Drop the half used least lately, so that memory stays flat whatever the number of domains."""
        moment = time.monotonic()
        for domain in list(self._domains)[: _KEPT_DOMAINS // 2]:
            state = self._domains[domain]
            if not state.in_use and state.closed_until < moment:
                del self._domains[domain]

"""HTTP by aiohttp: one session, one TLS context for the process, every socket opened by the address guard."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from collect.net.address import AddressGuard
from collect.net.wire import FIELDS, KEPT_S, Answer, Receiver, WireError
from collect.records import Reason


class _Resolver(AbstractResolver):
    """The guard's names, in aiohttp's form; both families come, whichever is asked for: each address must pass."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:  # noqa: ARG002
        return [
            ResolveResult(hostname=host, host=place, port=port, family=found, proto=socket.IPPROTO_TCP, flags=socket.AI_NUMERICHOST)
            for found, place in await self._guard.resolve(host, port)
        ]

    async def close(self) -> None:
        """Nothing is held."""


class AiohttpWire:
    """A :class:`collect.net.wire.Wire` on aiohttp."""

    def __init__(self, guard: AddressGuard, user_agent: str, stall_s: float, connect_s: float) -> None:
        self._guard, self._fields = guard, {"User-Agent": user_agent, **FIELDS}
        self._timeout = aiohttp.ClientTimeout(total=None, sock_read=stall_s, sock_connect=connect_s)

    async def __aenter__(self) -> Self:
        # aiohttp's own TLS context verifies, and is made once for the process.
        connector = aiohttp.TCPConnector(
            limit=0, resolver=_Resolver(self._guard), use_dns_cache=False, keepalive_timeout=KEPT_S,
            socket_factory=lambda info: self._guard.open_socket(*info[:3], info[4]),
        )  # fmt: skip
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False, headers=self._fields,
            timeout=self._timeout,
        )  # fmt: skip
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.close()
        await asyncio.sleep(0)  # lets TLS transports close

    async def get(self, url: URL, receiver: Receiver) -> None:
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if receiver.answered(Answer(url, response.status, response.headers)):
                    async for chunk in response.content.iter_any():
                        receiver.take(chunk)
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise _told(error) from error


def _told(error: Exception) -> WireError:
    """An error in our words; aiohttp's own about a connection name its TLS settings and forget the cause."""
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, aiohttp.ClientPayloadError):
        return WireError(Reason.TRUNCATED, words)
    if isinstance(error, aiohttp.ClientConnectorDNSError):  # the name was known a moment ago
        return WireError(Reason.DNS, words)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return WireError(Reason.TLS, words)
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno or 0
        why = os.strerror(number) if number > 0 else error.os_error.strerror or str(error.os_error)
        return WireError(Reason.CONNECTION, f"cannot connect to {error.host}:{error.port}: {why}", unheard=True)
    return WireError(Reason.CONNECTION, words)

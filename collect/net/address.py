"""The address guard: what may be connected to, decided where the connection is made.

Three places, each enough for its own kind of trick: `check_url` (scheme, credentials, literal addresses), `resolve` (every
address of a name must be public, else none is used: DNS rebinding) and `open_socket`, through which every connection of the
session passes with the address it will really use.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from yarl import URL

from collect.errors import UsageError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: An address of a name: its family, and its text.
Place = tuple[socket.AddressFamily, str]
Lookup = Callable[[str, int], Awaitable[list[tuple[Any, ...]]]]

_PORTS = {80, 443}
_KNOWN_S, _KNOWN_NAMES = 300.0, 10_000
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
# `is_global` says yes to some of these on some Python versions; they never carry a public web server.
_NEVER = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "224.0.0.0/3",
        "::/96", "fe80::/10", "fec0::/10", "fc00::/7", "ff00::/8", "2001::/23", "2001:db8::/32",
    )
)  # fmt: skip


class AddressRefusedError(Exception):
    """A URL, name or address that the guard does not let through; the message says why."""


class AddressGuard:
    """Lets through public addresses on ports 80 and 443, and what `allow` names (addresses or networks, on any port).

    `lookup` takes the place of the system's resolver: `(host, port) -> getaddrinfo's list`.

    Raises:
        UsageError: an entry of `allow` is no address and no network.
    """

    def __init__(self, allow: Iterable[str] = (), lookup: Lookup | None = None) -> None:
        self._allowed = [_network(entry) for entry in allow]
        self._lookup = lookup or _system_lookup
        self._known: dict[tuple[str, int], tuple[float, list[Place]]] = {}

    def knows(self, url: URL) -> bool:
        """Whether :meth:`resolve` need not ask for a URL's host: it is an address, or was asked for in the last minutes."""
        host = url.raw_host or ""
        known = self._known.get((host, url.port or 0))
        return is_literal(host) if known is None else known[0] > time.monotonic()

    def check_url(self, url: URL) -> None:
        """Refuse what needs no resolving: other schemes, no host, odd ports, literal addresses that are not public."""
        if url.scheme not in {"http", "https"}:
            raise AddressRefusedError(f"the scheme '{url.scheme}' is neither http nor https")
        if not url.host:
            raise AddressRefusedError("the URL has no host")
        try:
            literal = _parsed(url.host)
        except ValueError:
            if _is_odd_spelling(url.host):
                raise AddressRefusedError(f"'{url.host}' is an odd way to write an IP address") from None
            if url.port not in _PORTS and not self._allowed:
                raise AddressRefusedError(f"port {url.port} is neither 80 nor 443") from None
            return
        self.check_address(str(literal), url.port or 0)

    def check_address(self, address: str, port: int) -> None:
        """Refuse an IP address (and port) that is neither public nor allowed."""
        parsed = _parsed(address.partition("%")[0])
        if any(parsed in network for network in self._allowed):
            return
        why = not_public(parsed)
        if why:
            raise AddressRefusedError(f"{address} is {why}")
        if port not in _PORTS:
            raise AddressRefusedError(f"port {port} is neither 80 nor 443")

    async def resolve(self, host: str, port: int = 0) -> list[Place]:
        """Every address of a name, of both families, all of them let through: the only ones to connect to. Known for some minutes.

        Raises:
            AddressRefusedError: one of them is not public: a name that mixes both is an attack or a mistake.
            OSError: the name does not resolve.
        """
        until, places = self._known.get((host, port), (0.0, []))
        if until > time.monotonic():
            return places
        places = []
        for family, _type, _proto, _name, place in await self._lookup(host, port):
            self.check_address(place[0], port)
            places.append((family, place[0]))
        if len(self._known) >= _KNOWN_NAMES:
            self._known.clear()
        self._known[host, port] = time.monotonic() + _KNOWN_S, places
        return places

    def open_socket(self, family: int, kind: int, proto: int, place: Sequence[Any]) -> socket.socket:
        """A socket, not yet connected: the last look, at the very address (`place`: host, port, …) about to be connected to."""
        self.check_address(place[0], place[1])
        return socket.socket(family, kind, proto)


def not_public(address: Address) -> str:
    """Why an address is not on the public internet, or "" where it is; addresses inside addresses are looked at too.

    >>> not_public(ipaddress.ip_address("93.184.215.14")), not_public(ipaddress.ip_address("::ffff:10.0.0.1"))
    ('', 'an IPv6 wrapping of 10.0.0.1, which is not public')
    """
    if isinstance(address, ipaddress.IPv6Address):
        for inner in _embedded(address):
            if not_public(inner):
                return f"an IPv6 wrapping of {inner}, which is not public"
        if address.ipv4_mapped or address.sixtofour or address.teredo or any(address in network for network in _NAT64):
            return "" if address.sixtofour else "an IPv6 wrapping of an IPv4 address"
    if address.is_loopback:
        return "this machine"
    if address.is_link_local:
        return "link-local"
    if address.is_private or not address.is_global or any(address in network for network in _NEVER if network.version == address.version):
        return "not a public address"
    return ""


def _embedded(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _NAT64) or int(address) >> 32 == 0:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [inner for inner in found if inner is not None]


def _is_odd_spelling(host: str) -> bool:
    """Whether a host that is no dotted quad is an IPv4 address all the same: `127.1`, `0x7f.0.0.1`, `2130706433`."""
    try:
        socket.inet_aton(host)
    except (OSError, UnicodeError):
        return False
    return True


@lru_cache(maxsize=4096)
def _parsed(address: str) -> Address:
    """An IP address from its text; ValueError where it is none. A collection asks for the same few again and again."""
    return ipaddress.ip_address(address)


def is_literal(host: str) -> bool:
    """Whether a URL's host is an IP address rather than a name."""
    try:
        _parsed(host)
    except ValueError:
        return False
    return True


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError as error:
        raise UsageError(f"'{entry}' is no IP address or network; such are 127.0.0.1 and 10.0.0.0/8") from error


async def _system_lookup(host: str, port: int) -> list[tuple[Any, ...]]:
    """What `getaddrinfo` finds, in a thread of its own.

    A name whose servers are silent takes ten seconds and more. The loop's own threads are six on two cores, so six such names
    would hold up all others; and nobody waits for a daemon at the end. There are as many as there are URLs under way.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[tuple[Any, ...]]] = loop.create_future()

    def look() -> None:
        try:
            found, error = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), None
        except (OSError, UnicodeError) as unknown:
            found, error = [], unknown
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, found, error)

    def tell(found: list[tuple[Any, ...]], error: Exception | None) -> None:
        if answer.done():  # nobody waits any more
            return
        if error:
            answer.set_exception(error)
        else:
            answer.set_result(found)

    threading.Thread(target=look, name="lookup", daemon=True).start()
    return await answer

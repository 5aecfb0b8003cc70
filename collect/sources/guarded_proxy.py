"""A forward proxy on loopback that lets a browser reach public addresses only.

A browser resolves names, follows redirects and loads parts of a page by itself, so looking at a URL before the navigation
is not enough. Here every connection it makes is resolved once, checked and pinned to the address that was checked.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import socketserver
import threading
from collections.abc import Iterable
from urllib.parse import urlsplit

from collect.net.address import AddressGuard, AddressRefusedError

_HEAD_BYTES = 64 * 1024
_CONNECT_S = 15.0
_IDLE_S = 60.0
log = logging.getLogger(__name__)


class GuardedProxy:
    """A running proxy; `url` is what the browser is told.

    `trusted` are `(host, port)` that the user named (a base URL): they are not checked. `refused` says, for each host and
    port that was refused, why.
    """

    def __init__(self, guard: AddressGuard, trusted: Iterable[tuple[str, int]] = ()) -> None:
        self._guard, self._trusted = guard, frozenset(trusted)
        self.refused: dict[str, str] = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to a host, at an address that was checked.

        Raises:
            AddressRefusedError: one of its addresses is not let through.
            OSError: it does not resolve or answer.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        try:
            for *_, place in found:
                if (host, port) not in self._trusted:
                    self._guard.check_address(str(place[0]), port)
        except AddressRefusedError as error:
            self.refused[f"{host}:{port}"] = str(error)
            log.info("the browser was kept from %s:%d: %s", host, port, error)
            raise
        return _first_that_answers([str(place[0]) for *_, place in found], port)


def _first_that_answers(addresses: list[str], port: int) -> socket.socket:
    problem: OSError = OSError("it has no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout=_CONNECT_S)
        except OSError as error:
            problem = error
    raise problem


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    proxy: GuardedProxy


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            head, rest = self._read_head()
            first_line, _, fields = head.partition(b"\r\n")
            words = first_line.split(b" ")
            if len(words) != 3:
                return
            method, target = words[0].decode("latin-1"), words[1].decode("latin-1")
            try:
                self._pass_on(method, target, fields, rest)
            except AddressRefusedError:
                self.request.sendall(b"HTTP/1.1 403 Refused by the address guard\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            except (OSError, ValueError):
                self.request.sendall(b"HTTP/1.1 502 Not reachable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def _read_head(self) -> tuple[bytes, bytes]:
        self.request.settimeout(_IDLE_S)
        data = b""
        while b"\r\n\r\n" not in data and len(data) < _HEAD_BYTES:
            chunk = self.request.recv(8192)
            if not chunk:
                break
            data += chunk
        head, _, rest = data.partition(b"\r\n\r\n")
        return head, rest

    def _pass_on(self, method: str, target: str, fields: bytes, rest: bytes) -> None:
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            with self.server.proxy.connect(host.strip("[]"), int(port)) as upstream:
                self.request.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                _relay(self.request, upstream, once=False)
            return
        parts = urlsplit(target)
        with self.server.proxy.connect(parts.hostname or "", parts.port or 80) as upstream:
            path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
            upstream.sendall(f"{method} {path} HTTP/1.1\r\n".encode("latin-1") + _own_fields(fields) + rest)
            _relay(self.request, upstream, once=True)


def _own_fields(fields: bytes) -> bytes:
    """Header fields as a server wants them: one request a connection, nothing said to the proxy."""
    kept = [field for field in fields.split(b"\r\n") if not field.lower().startswith((b"proxy-", b"connection:"))]
    return b"\r\n".join([*kept, b"Connection: close", b"", b""])


def _relay(browser: socket.socket, upstream: socket.socket, *, once: bool) -> None:
    """Copy both ways until either side ends or both are silent for a minute.

    `once` = one request: what the browser sends after the answer began may be for another host, so the connection ends there.
    """
    answered = False
    while True:
        ready, _, _ = select.select([browser, upstream], [], [], _IDLE_S)
        if not ready:
            return
        for side in ready:
            if side is browser and once and answered:
                return
            data = side.recv(65536)
            if not data:
                return
            answered = answered or side is upstream
            (upstream if side is browser else browser).sendall(data)

"""HTTP by libcurl's multi interface, driven by the event loop: fewer CPU-seconds an image than aiohttp (`--engine pycurl`).

libcurl says which sockets it waits for and how long, and is told which are ready (its `multi_socket` interface); connections are
kept between requests. Where it connects to is decided here: names by what the guard found, every socket opened by the guard.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Self

from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from collect.errors import MissingServiceError
from collect.net.address import AddressGuard, is_literal
from collect.net.wire import FIELDS, KEPT_S, Answer, Receiver, WireError
from collect.records import Reason

try:
    import pycurl
except ImportError as error:
    raise MissingServiceError(
        "--engine pycurl needs PycURL, which is not installed; `pip install 'boxwright[pycurl]'` brings it"
    ) from error

_BUFFER_BYTES = 128 * 1024
_KEPT_CONNECTIONS = 512
_TLS_ERRORS = {
    pycurl.E_SSL_CONNECT_ERROR, pycurl.E_SSL_ENGINE_NOTFOUND, pycurl.E_SSL_ENGINE_SETFAILED, pycurl.E_SSL_CERTPROBLEM, pycurl.E_SSL_CIPHER,
    pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_USE_SSL_FAILED, pycurl.E_SSL_ENGINE_INITFAILED, pycurl.E_SSL_CACERT_BADFILE,
    pycurl.E_SSL_SHUTDOWN_FAILED, pycurl.E_SSL_CRL_BADFILE, pycurl.E_SSL_ISSUER_ERROR, pycurl.E_SSL_PINNEDPUBKEYNOTMATCH,
    pycurl.E_SSL_INVALIDCERTSTATUS,
}  # fmt: skip


class CurlWire:
    """A :class:`collect.net.wire.Wire` on libcurl."""

    def __init__(self, guard: AddressGuard, user_agent: str, stall_s: float, connect_s: float) -> None:
        self._guard, self._stall_s, self._connect_s = guard, stall_s, connect_s
        self._fields = [f"User-Agent: {user_agent}", *(f"{name}: {value}" for name, value in FIELDS.items())]
        self._idle: list[_Transfer] = []
        self._busy: dict[Any, _Transfer] = {}  # by libcurl's handle
        self._timer: asyncio.Handle | None = None
        self._watch: asyncio.Handle | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._wait_for)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._wait_s)
        self._multi.setopt(pycurl.M_MAXCONNECTS, _KEPT_CONNECTIONS)
        return self

    async def __aexit__(self, *exception: object) -> None:
        for handle in (self._timer, self._watch):
            if handle:
                handle.cancel()
        for transfer in list(self._busy.values()):
            self._end(transfer)
            transfer.curl.close()
        for transfer in self._idle:
            transfer.curl.close()
        self._multi.close()

    async def get(self, url: URL, receiver: Receiver) -> None:
        pins = []
        host, port = url.raw_host or "", url.port or 0
        if not is_literal(host):
            places = await self._guard.resolve(host, port)
            pins.append(f"+{host}:{port}:" + ",".join(f"[{text}]" if family == socket.AF_INET6 else text for family, text in places))
        transfer = self._idle.pop() if self._idle else _Transfer(self._guard, self._fields, self._connect_s)
        done = transfer.begin(url, pins, receiver, self._loop)
        self._busy[transfer.curl] = transfer
        if self._watch is None:
            self._watch = self._loop.call_later(self._stall_s / 4, self._look_for_silence)
        try:
            self._multi.add_handle(transfer.curl)
            await done
        finally:
            self._end(transfer)
            self._idle.append(transfer)

    def _end(self, transfer: _Transfer) -> None:
        """Take a transfer back from libcurl, which closes its connection where it is not through."""
        if self._busy.pop(transfer.curl, None):
            self._multi.remove_handle(transfer.curl)
            transfer.close_sockets()

    # What libcurl asks of the event loop

    def _wait_for(self, what: int, number: int, _multi: object, _data: object) -> None:
        """Wait for a socket to become ready (`what`: to read, to write, both), or no longer."""
        loop = self._loop
        if what & pycurl.POLL_IN:
            loop.add_reader(number, self._act, number, pycurl.CSELECT_IN)
        else:
            loop.remove_reader(number)
        if what & pycurl.POLL_OUT:
            loop.add_writer(number, self._act, number, pycurl.CSELECT_OUT)
        else:
            loop.remove_writer(number)

    def _wait_s(self, milliseconds: int) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if milliseconds >= 0:
            self._timer = self._loop.call_later(milliseconds / 1000, self._act, pycurl.SOCKET_TIMEOUT, 0)

    def _act(self, number: int, ready: int) -> None:
        """Let libcurl do what can be done now; tell those who wait for what is through."""
        self._multi.socket_action(number, ready)
        left = 1
        while left:
            left, through, failed = self._multi.info_read()
            for curl in through:
                self._tell(self._busy[curl], 0, "")
            for curl, code, words in failed:
                self._tell(self._busy[curl], code, words)

    def _tell(self, transfer: _Transfer, code: int, words: str) -> None:
        self._end(transfer)
        transfer.through(code, words)

    def _look_for_silence(self) -> None:
        """Give up transfers of which nothing was heard for too long; libcurl's own limit is in whole seconds, and starts late."""
        latest = self._loop.time() - self._stall_s
        for transfer in [transfer for transfer in self._busy.values() if transfer.heard_at < latest]:
            self._end(transfer)
            transfer.fail(TimeoutError())
        self._watch = self._loop.call_later(self._stall_s / 4, self._look_for_silence) if self._busy else None


class _Transfer:
    """One of libcurl's handles, used for one request after the other."""

    def __init__(self, guard: AddressGuard, fields: list[str], connect_s: float) -> None:
        self._guard = guard
        self.curl = curl = pycurl.Curl()
        for option, value in (
            (pycurl.HTTPHEADER, fields),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.PROXY, ""),
            (pycurl.PATH_AS_IS, 1),
            (pycurl.NOSIGNAL, 1),
            (pycurl.CONNECTTIMEOUT_MS, round(connect_s * 1000)),
            (pycurl.MAXAGE_CONN, KEPT_S),
            (pycurl.BUFFERSIZE, _BUFFER_BYTES),
            (pycurl.OPENSOCKETFUNCTION, self._open),
            (pycurl.HEADERFUNCTION, self._field),
            (pycurl.WRITEFUNCTION, self._chunk),
        ):
            curl.setopt(option, value)
        self._trusts = False
        self._opened: list[socket.socket] = []  # PycURL connects copies of them

    def begin(self, url: URL, pins: list[str], receiver: Receiver, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Prepare a request; the future is done when its answer has come."""
        self._url, self._receiver, self._now = url, receiver, loop.time
        self._lines: list[bytes] = []
        self._error: BaseException | None = None
        self._answered = self._stopped = False
        self.heard_at = loop.time()
        self._done = loop.create_future()
        if url.scheme == "https" and not self._trusts:
            self._trust()
        self.curl.setopt(pycurl.URL, str(url))
        self.curl.setopt(pycurl.RESOLVE, pins)
        return self._done

    def through(self, code: int, words: str) -> None:
        """Libcurl is done with it; `code` 0 = all came."""
        if code and not self._stopped:
            self.fail(self._error or self._told(code, words))
        elif not self._done.done():
            self._done.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Let who waits for it know."""
        if not self._done.done():
            self._done.set_exception(error)

    def close_sockets(self) -> None:
        """Close what was opened for libcurl, which has its own copies."""
        while self._opened:
            self._opened.pop().close()

    def _trust(self) -> None:
        """The authorities that Python trusts on this machine: SSL_CERT_FILE, the system's, else certifi's."""
        paths = ssl.get_default_verify_paths()
        if paths.cafile:
            self.curl.setopt(pycurl.CAINFO, paths.cafile)
        elif paths.capath:
            self.curl.setopt(pycurl.CAPATH, paths.capath)
        else:
            import certifi

            self.curl.setopt(pycurl.CAINFO, certifi.where())
        self._trusts = True

    # What libcurl tells

    def _open(self, _purpose: int, address: Any) -> socket.socket | int:
        try:
            opened = self._guard.open_socket(*address)
            self._opened.append(opened)
            return opened
        except OSError as error:
            self._error = self._cannot_connect(error.strerror or str(error))
        except Exception as error:  # reaches whoever asked, not libcurl
            self._error = error
        return int(pycurl.SOCKET_BAD)

    def _field(self, line: bytes) -> int | None:
        self.heard_at = self._now()
        if self._answered:  # a trailer
            return None
        if line not in {b"\r\n", b"\n"}:
            self._lines.append(line)
            return None
        status, headers = _head(self._lines)
        self._lines = []
        if status < 200:  # a word on the way
            return None
        self._answered = True
        try:
            if not self._receiver.answered(Answer(self._url, status, headers)):
                self._stopped = True
                return -1
        except Exception as error:
            self._error = error
            return -1
        return None

    def _chunk(self, data: bytes) -> int | None:
        self.heard_at = self._now()
        try:
            self._receiver.take(data)
        except Exception as error:
            self._error = error
            return -1
        return None

    def _told(self, code: int, words: str) -> Exception:
        """One of libcurl's errors in our words."""
        if code == pycurl.E_OPERATION_TIMEDOUT:
            return TimeoutError(words)
        if code in _TLS_ERRORS:
            return WireError(Reason.TLS, words)
        if code == pycurl.E_COULDNT_RESOLVE_HOST:
            return WireError(Reason.DNS, words)
        if code == pycurl.E_COULDNT_CONNECT:
            number = int(self.curl.getinfo(pycurl.OS_ERRNO))
            return self._cannot_connect(os.strerror(number) if number else words)
        return WireError(Reason.TRUNCATED if self._answered else Reason.CONNECTION, words)

    def _cannot_connect(self, why: str) -> WireError:
        return WireError(Reason.CONNECTION, f"cannot connect to {self._url.host}:{self._url.port}: {why}", unheard=True)


def _head(lines: Sequence[bytes]) -> tuple[int, CIMultiDictProxy[str]]:
    """The status and the fields of a head; libcurl has checked its form."""
    first, *rest = [line.decode("utf-8", "surrogateescape") for line in lines]
    fields: CIMultiDict[str] = CIMultiDict()
    for line in rest:
        name, colon, value = line.partition(":")
        if colon:
            fields.add(name.strip(), value.strip())
    return int(first.split(None, 2)[1]), CIMultiDictProxy(fields)

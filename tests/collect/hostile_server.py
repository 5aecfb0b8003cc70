"""A real HTTP server on a loopback address in a thread of its own, whose answers a test scripts, kind or hostile."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

Handler = Callable[[str, dict[str, str], asyncio.StreamWriter], Awaitable[bool | None]]


class HostileServer:
    """`handler(path, headers, writer)` writes the raw answer; it returns True where the connection may be used again."""

    def __init__(self, handler: Handler, address: str = "127.0.0.1", pem: Path | None = None) -> None:
        """Over TLS where `pem` names a certificate and its key."""
        self.handler, self._address, self._pem = handler, address, pem
        self.num_connections = 0
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, self._address, 0, ssl=self._tls()))
            self.port = self._server.sockets[0].getsockname()[1]
            ready.set()
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        ready.wait(10)
        return self

    def __exit__(self, *exception: object) -> None:
        async def stop() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{'https' if self._pem else 'http'}://{host}:{self.port}{path}"

    def _tls(self) -> ssl.SSLContext | None:
        if self._pem is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._pem)
        return context

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            again: bool | None = True
            while again:
                head = await reader.readuntil(b"\r\n\r\n")
                line, *rest = head.decode("latin-1").split("\r\n")
                path = line.split(" ")[1]
                headers = dict(entry.split(": ", 1) for entry in rest if ": " in entry)
                self.requests.append(path)
                self.headers.append(headers)
                again = await self.handler(path, headers, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def answer(body: bytes, *, status: str = "200 OK", headers: str = "Content-Type: image/jpeg\r\n") -> bytes:
    """A whole, honest HTTP answer."""
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body

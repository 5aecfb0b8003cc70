"""A loopback site that answers as a test tells it and remembers what it was asked."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest


@dataclass
class Asked:
    """One request: path, parameters, headers in lower case, body."""

    path: str
    parameters: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    url: str = ""


@dataclass
class Reply:
    """What is answered; `document` becomes JSON."""

    body: bytes | str = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    document: Any = None
    mime: str = "text/html; charset=utf-8"

    def payload(self) -> bytes:
        if self.document is not None:
            return json.dumps(self.document).encode()
        return self.body.encode() if isinstance(self.body, str) else self.body


class Site:
    """Routes by path; `/prefix/*` by prefix. `asked` holds every request in order."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.routes: dict[str, Callable[[Asked], Reply]] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                asked = Asked(
                    parts.path,
                    dict(parse_qsl(parts.query, keep_blank_values=True)),
                    {key.lower(): value for key, value in self.headers.items()},
                    self.rfile.read(length) if length else b"",
                    self.path,
                )
                site.asked.append(asked)
                reply = site.answer(asked)
                payload = reply.payload()
                self.send_response(reply.status)
                mime = "application/json" if reply.document is not None else reply.mime
                for key, value in {"Content-Type": mime, "Content-Length": str(len(payload)), **reply.headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(payload)

            do_POST = do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # a browser hangs up as it likes

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def route(self, path: str, reply: Reply | Callable[[Asked], Reply]) -> None:
        self.routes[path] = reply if callable(reply) else lambda _asked: reply

    def answer(self, asked: Asked) -> Reply:
        for path, make in self.routes.items():
            if path == asked.path or (path.endswith("*") and asked.path.startswith(path[:-1])):
                return make(asked)
        return Reply(b"not here", 404)

    def count(self, prefix: str) -> int:
        return sum(asked.path.startswith(prefix) for asked in self.asked)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(autouse=True)
def _browser_or_skip(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("browser") and not shutil.which("chromedriver"):
        pytest.skip("no chromedriver; run `sudo apt-get install -y chromium chromium-driver`")


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.stop()


@pytest.fixture
def reply() -> type[Reply]:
    """The class of answers, since test modules under importlib cannot import each other."""
    return Reply

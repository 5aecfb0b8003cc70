"""The demo's small internet: real HTTP on 127.0.0.1, with search services, albums, an image host and robots.txt.

    with Site() as site:
        site.base_url                    # http://127.0.0.1:PORT, for `[collect] base_urls` of the sources
        site.truth(sha256_or_url)        # what a perfect reviewer would draw

Search services: `/v7.0/images/search` (Bing Image Search v7; any key), `/images/search` and `/images/async` (Bing Images'
page), `/v1/images/` (Openverse). Image hosts: `/photos/`, `/mirror/` (equal bytes), `/reposts/` (smaller, cut, encoded
again), `/broken/`, `/private/` (forbidden by robots.txt).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import cv2
import numpy as np

from collect.demo import wire
from collect.demo.catalogue import Offer, offers
from collect.demo.scenes import Box, Scene, make_scenes
from collect.errors import NotFoundError, PortInUseError
from collect.records import Licence

ROBOTS = b"User-agent: *\nDisallow: /private/\nAllow: /\n"


class Reply(NamedTuple):
    """What one request is answered with."""

    status: int
    mime: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Site:
    """The running site; a context manager. `requests` counts what was asked of each path.

    `fragments=False` answers `/images/async` with nothing unless Bing's page itself asks, as Bing does to some clients: the
    scraper then needs its browser. `port` 0 = any that is free.

    Raises:
        PortInUseError: something else listens on `port`.
    """

    def __init__(
        self, num_scenes: int = 300, seed: int = 0, scenes: list[Scene] | None = None, *, fragments: bool = True, port: int = 0
    ) -> None:
        self.fragments = fragments
        self.offers: dict[str, Offer] = {offer.path: offer for offer in offers(make_scenes(num_scenes, seed) if scenes is None else scenes)}
        self.requests: Counter[str] = Counter()
        self._boxes = {hashlib.sha256(offer.body).hexdigest(): offer.boxes for offer in self.offers.values()}
        self._lock = threading.Lock()
        try:
            self._server = _Server(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise PortInUseError(f"port {port} is taken; choose another, or 0 for any free one") from error
        self._server.site = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="demo-site", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def truth(self, key: str) -> tuple[Box, ...]:
        """The boxes of an image given by the sha256 of its bytes, or by its URL.

        Raises:
            NotFoundError: the site never offered it.
        """
        offer = self.offers.get(urlsplit(key).path)
        if offer is not None:
            return offer.boxes
        if key not in self._boxes:
            raise NotFoundError(f"the demo's site never offered {key}")
        return self._boxes[key]

    # What happens to pictures on the web after they were collected, for `boxwright recheck`.

    def take_down(self, path: str) -> None:
        """From now on the path is answered with 410."""
        self.offers[path] = replace(self.offers[path], status=410, body=b"", mime="text/plain")

    def opt_out(self, path: str) -> None:
        """From now on the path's answers reserve the rights of text and data mining."""
        self.offers[path] = replace(self.offers[path], headers=(("tdm-reservation", "1"),))

    def relicense(self, path: str, licence: Licence) -> None:
        """From now on the searches state another licence for the path."""
        self.offers[path] = replace(self.offers[path], licence=licence)

    def answer(self, target: str, headers: dict[str, str]) -> Reply:
        """The answer to a GET."""
        parts = urlsplit(target)
        path, parameters = unquote(parts.path), dict(parse_qsl(parts.query))
        with self._lock:
            self.requests[path] += 1
            asked = self.requests[path]
        if path in self.offers:
            return _picture(self.offers[path], asked)
        if path == "/v7.0/images/search" and not headers.get("ocp-apim-subscription-key"):
            return _json(401, wire.bing_error("InvalidAuthorization", "AuthorizationMissing", "Authorization is required."))
        listed = list(self.offers.values())
        if path == "/v7.0/images/search":
            return _json(*wire.bing_api(self.base_url, listed, parameters))
        if path == "/v1/images/":
            return _json(*wire.openverse(self.base_url, listed, parameters))
        if path.startswith("/v1/images/"):
            return _json(*wire.openverse_detail(self.base_url, listed, path.removeprefix("/v1/images/").strip("/")))
        if path == "/images/async" and not (self.fragments or "/images/search" in headers.get("referer", "")):
            return _html("")
        return self._page(path, parameters, listed)

    def _page(self, path: str, parameters: dict[str, str], listed: list[Offer]) -> Reply:
        if path == "/robots.txt":
            return Reply(200, "text/plain", ROBOTS)
        if path == "/images/search":
            return _html(wire.bing_page(self.base_url, listed, parameters))
        if path == "/images/async":
            return _html(wire.bing_fragment(self.base_url, listed, parameters))
        if path == "/th" and parameters.get("id") in self.offers:
            return Reply(200, "image/jpeg", _thumbnail(self.offers[parameters["id"]]))
        shown = [offer for offer in listed if offer.page == path]
        if shown:
            return _html(wire.album_page(path.strip("/").replace("/", ", "), shown))
        return Reply(404, "text/plain", b"nothing here\n")


def _picture(offer: Offer, asked: int) -> Reply:
    if offer.delay_s:
        time.sleep(offer.delay_s)
    if asked <= offer.failures:
        return Reply(503, "text/plain", b"try again\n", (("Retry-After", "1"),))
    return Reply(offer.status, offer.mime, offer.body, offer.headers)


def _thumbnail(offer: Offer) -> bytes:
    picture = cv2.imdecode(np.frombuffer(offer.body or b"\0", np.uint8), cv2.IMREAD_REDUCED_COLOR_4)
    return b"" if picture is None else bytes(cv2.imencode(".jpg", picture)[1])


def _json(status: int, document: dict[str, Any]) -> Reply:
    return Reply(status, "application/json", json.dumps(document).encode())


def _html(text: str) -> Reply:
    return Reply(200, "text/html; charset=utf-8", text.encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    site: Site


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each keep-alive answer waits 40 ms for an acknowledgement
    wbufsize = -1

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that was killed or had enough
            super().handle()

    def do_GET(self) -> None:
        site = cast(_Server, self.server).site
        reply = site.answer(self.path, {name.lower(): value for name, value in self.headers.items()})
        self.send_response(reply.status)
        for name, value in (("Content-Type", reply.mime), ("Content-Length", str(len(reply.body))), *reply.headers):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)
        self.wfile.flush()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what was asked is in `Site.requests`."""


def main() -> None:
    """`python -m collect.demo.site`: the site alone, until Ctrl-C, to try `boxwright collect` on without a network."""
    parser = argparse.ArgumentParser(prog="python -m collect.demo.site", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 = any that is free")
    parser.add_argument("--scenes", type=int, default=300, help="how many pictures to make")
    words = parser.parse_args()
    with Site(words.scenes, port=words.port) as site:
        sys.stdout.write(f"{site.base_url}\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()

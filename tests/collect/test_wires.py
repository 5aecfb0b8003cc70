"""Both HTTP clients tell the same of the same answers, and keep to the same rules."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collect.net.address import AddressGuard
from collect.net.fetch import Fetcher, FetchLimits, Lost, Reply
from collect.net.throttle import Throttle
from collect.records import Reason, State
from tests.collect.certificates import certificate
from tests.collect.hostile_server import HostileServer, answer

BODY = bytes(range(256)) * 1200


async def site(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> bool | None:
    match path:
        case "/chunked":
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:70_000], BODY[70_000:]))
            head = b"HTTP/1.1 200 OK\r\nX-A: one\r\nx-a: two\r\nContent-Type: image/JPEG; q=1\r\nTransfer-Encoding: chunked\r\n\r\n"
            writer.write(head + chunks + b"0\r\nX-Trailer: late\r\n\r\n")
        case "/on-the-way":
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(BODY))
        case "/moved":
            writer.write(answer(b"moved", status="302 Found", headers="Location: /b%20c?d=%C3%A9\r\n"))
        case "/silent":
            await asyncio.sleep(60)
        case "/silent-in-body":
            writer.write(answer(BODY)[:1000])
            await writer.drain()
            await asyncio.sleep(60)
        case _:
            writer.write(answer(BODY, headers="Set-Cookie: a=b\r\nX-Name: \xfcber\r\n"))
    await writer.drain()
    return True


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer(site) as running:
        yield running


def fetch(client: str, urls: list[str], *, at_once: bool = False, lookup: Any = None, **times: float) -> list[Reply | Lost]:
    limits = FetchLimits(deadline_s=20, **{"stall_s": 5.0, **times})

    async def run() -> list[Reply | Lost]:
        guard = AddressGuard(("127.0.0.0/8",), lookup)
        async with Fetcher(guard, Throttle(8, 8, polite=False), limits, "test/1", client) as fetcher:
            if at_once:
                return list(await asyncio.gather(*map(fetcher.fetch, urls)))
            return [await fetcher.fetch(url) for url in urls]

    return asyncio.run(run())


def test_an_answer_is_told_whole(client: str, server: HostileServer) -> None:
    chunked, hinted, moved = fetch(client, [server.url("/chunked"), server.url("/on-the-way"), server.url("/moved")])
    assert isinstance(chunked, Reply)
    assert isinstance(hinted, Reply)
    assert isinstance(moved, Reply)
    assert (chunked.status, chunked.body, chunked.headers.getall("X-A")) == (200, BODY, ["one", "two"])
    assert (hinted.status, hinted.body) == (200, BODY)
    assert (moved.status, moved.redirects, moved.url, moved.body) == (200, 1, server.url("/b%20c?d=%C3%A9"), BODY)
    assert server.requests[-1] == "/b%20c?d=%C3%A9"


def test_connections_are_kept_cookies_are_not_and_no_proxy_of_the_environment_is_asked(
    client: str, server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    replies = fetch(client, [server.url(f"/{number}") for number in range(5)])
    assert [reply.body for reply in replies if isinstance(reply, Reply)] == [BODY] * 5
    assert server.num_connections == 1
    for sent in server.headers:
        assert sent["User-Agent"] == "test/1"
        assert sent["Accept-Encoding"] == "identity"
        assert "Cookie" not in sent


def test_names_are_connected_to_where_the_guard_found_them(client: str, server: HostileServer) -> None:
    """Their addresses are the guard's own, the host's field is the name, whatever other resolvers say."""

    async def lookup(host: str, port: int) -> list[tuple[Any, ...]]:
        assert host == "xn--caf-dma.test"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    (reply,) = fetch(client, [server.url("/a", "café.test")], lookup=lookup)
    assert isinstance(reply, Reply)
    assert server.headers[0]["Host"] == f"xn--caf-dma.test:{server.port}"


@pytest.mark.parametrize("path", ["/silent", "/silent-in-body"])
def test_silence_ends_while_others_go_on(client: str, server: HostileServer, path: str) -> None:
    urls = [server.url(path), *(server.url(f"/{number}") for number in range(20))]
    silent, *others = fetch(client, urls, stall_s=0.5, at_once=True)
    assert isinstance(silent, Lost)
    assert (silent.state, silent.reason) == (State.RETRY, Reason.TIMEOUT)
    assert all(isinstance(other, Reply) for other in others)


def test_who_no_longer_waits_takes_his_request_back(client: str, server: HostileServer) -> None:
    async def run() -> bytes:
        throttle = Throttle(8, 8, polite=False)
        async with Fetcher(AddressGuard(("127.0.0.0/8",)), throttle, FetchLimits(), "test/1", client) as fetcher:
            waiting = asyncio.create_task(fetcher.fetch(server.url("/silent-in-body")))
            while not server.requests:
                await asyncio.sleep(0.01)
            waiting.cancel()
            assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
            reply = await fetcher.fetch(server.url("/a"))  # by the handle that was freed
            assert isinstance(reply, Reply)
            return reply.body

    assert asyncio.run(run()) == BODY


def test_a_closed_port_is_told_with_its_cause(client: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        (lost,) = fetch(client, [f"http://127.0.0.1:{port}/a"])
    assert isinstance(lost, Lost)
    assert (lost.state, lost.reason, lost.unheard) == (State.GONE, Reason.CONNECTION, True)
    assert lost.detail == f"cannot connect to 127.0.0.1:{port}: Connection refused"


def test_a_host_that_swallows_connections_is_given_up_soon(client: str) -> None:
    """Its queue of connections is full, so the kernel drops what knocks."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for knocks in (first, second):
            knocks.setblocking(False)
            knocks.connect_ex(full.getsockname())
        began = time.monotonic()
        (lost,) = fetch(client, [f"http://127.0.0.1:{full.getsockname()[1]}/a"], connect_s=0.5)
    assert isinstance(lost, Lost)
    assert (lost.state, lost.reason) == (State.RETRY, Reason.TIMEOUT)
    assert time.monotonic() - began < 4


def test_certificates_are_verified(client: str, tmp_path: Path) -> None:
    """One that nobody vouches for is refused; one that SSL_CERT_FILE names is taken (in a process of its own: it is read once)."""
    pem = certificate(tmp_path, ["127.0.0.1"])
    with HostileServer(site, pem=pem) as server:
        (lost,) = fetch(client, [server.url("/a")])
        assert isinstance(lost, Lost)
        assert (lost.state, lost.reason) == (State.GONE, Reason.TLS)
        code = (
            "import sys; from tests.collect.test_wires import fetch; reply, wrong = fetch(sys.argv[1], sys.argv[2:]); "
            "print(len(reply.body), reply.status, wrong.reason)"
        )
        arguments = [sys.executable, "-c", code, client, server.url("/a"), server.url("/a", "127.0.0.2")]
        told = subprocess.run(arguments, env=os.environ | {"SSL_CERT_FILE": str(pem)}, capture_output=True, text=True, check=True)
    assert told.stdout.split() == [str(len(BODY)), "200", "connection"]  # nobody listens on the second


def test_only_the_client_that_is_used_is_loaded() -> None:
    """Each costs a fifth of a second at start."""
    code = "import sys; import collect.gather, collect.commands.collect; print('aiohttp' in sys.modules, 'pycurl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "False"]

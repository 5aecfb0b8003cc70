"""Servers that misbehave: each URL ends in its typed state within its deadline while the others go on."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from collect.admission import RetryPolicy
from collect.ledger import Ledger
from collect.pipeline import DownloadSettings, Pipeline
from collect.records import Licence
from collect.workspace import Workspace
from tests.collect.collecting import FREE, became, find, jpeg, new_dataset, words
from tests.collect.hostile_server import HostileServer, answer

PICTURE = jpeg(1)
BOMB = gzip.compress(bytes(50_000_000))  # made here, for a server that computes keeps all others waiting past their deadline
GOOD = [jpeg(100 + number) for number in range(20)]
QUICK = RetryPolicy(max_attempts=2, first_s=0.1, longest_s=0.2)
LOCAL = DownloadSettings(("127.0.0.1",), polite=False, stall_s=2.0, retries=QUICK)


async def misbehave(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> bool | None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n"
    match path.split("?", maxsplit=1)[0]:
        case "/drop":
            return None
        case "/stall":
            await asyncio.sleep(30)
        case "/stall-in-body":
            writer.write(head + b"Content-Length: 5000\r\n\r\n" + PICTURE[:100])
            await writer.drain()
            await asyncio.sleep(30)
        case "/trickle":
            writer.write(head + b"Content-Length: 5000\r\n\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.2)
        case "/promises-more":
            writer.write(head + f"Content-Length: {len(PICTURE) + 50}\r\n\r\n".encode() + PICTURE)
        case "/promises-less":
            writer.write(head + f"Content-Length: {len(PICTURE) // 2}\r\n\r\n".encode() + PICTURE)
        case "/loop":
            writer.write(answer(b"", status="302 Found", headers="Location: /loop\r\n"))
            return True
        case "/to-private":
            writer.write(answer(b"", status="302 Found", headers="Location: http://169.254.169.254/latest/meta-data/\r\n"))
            return True
        case "/to-file":
            writer.write(answer(b"", status="302 Found", headers="Location: file:///etc/passwd\r\n"))
            return True
        case "/html":
            writer.write(answer(b"<html>no image</html>", headers="Content-Type: text/html; charset=utf-8\r\n"))
            return True
        case "/html-as-jpeg":
            writer.write(answer(b"\n <!DOCTYPE html><title>no image</title>"))
            return True
        case "/busy":
            writer.write(answer(b"", status="429 Too Many Requests", headers="Retry-After: 0\r\n"))
            return True
        case "/error":
            writer.write(answer(b"", status="503 Service Unavailable"))
            return True
        case "/gone":
            writer.write(answer(b"", status="410 Gone"))
            return True
        case "/endless":
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
                await writer.drain()
        case "/announces-too-much":
            writer.write(head + b"Content-Length: 99999999999\r\n\r\n")
        case "/bomb":
            writer.write(answer(BOMB, headers="Content-Type: image/png\r\nContent-Encoding: gzip\r\n"))
        case "/zipped":
            writer.write(answer(gzip.compress(jpeg(2)), headers="Content-Type: image/jpeg\r\nContent-Encoding: gzip\r\n"))
        case "/empty":
            writer.write(answer(b""))
            return True
        case "/nonsense":
            writer.write(b"\x00\xff I am no HTTP server\r\n\r\n")
        case "/headers":
            writer.write(b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n")
        case "/good":
            number = int(path.split("?")[1])
            writer.write(answer(GOOD[number]))
            return True
        case _:
            writer.write(answer(b"", status="404 Not Found"))
            return True
    await writer.drain()
    return None


ENDS = {
    "/drop": "GONE(connection)",
    "/stall": "GONE(timeout)",
    "/stall-in-body": "GONE(timeout)",
    "/trickle": "GONE(timeout)",
    "/promises-more": "GONE(truncated)",
    "/promises-less": "GONE(connection)",  # what follows is no second answer
    "/loop": "GONE(redirects)",
    "/to-private": "DENIED(address)",
    "/to-file": "DENIED(scheme)",
    "/html": "INVALID(html)",
    "/html-as-jpeg": "INVALID(html)",
    "/busy": "GONE(rate_limited)",
    "/error": "GONE(http_5xx)",
    "/gone": "GONE(http_4xx)",
    "/endless": "INVALID(too_many_bytes)",
    "/announces-too-much": "INVALID(too_many_bytes)",
    "/bomb": "INVALID(too_many_bytes)",
    "/zipped": "KEPT",
    "/empty": "INVALID(empty)",
    "/nonsense": "GONE(connection)",
    "/headers": "GONE(connection)",
}
#: libcurl takes no more than was promised and leaves the judgement to the decoder, and heads of up to 300 KB.
ENDS_OF_PYCURL = ENDS | {"/promises-less": "INVALID(broken)", "/headers": "INVALID(empty)"}


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer(misbehave) as running:
        yield running


def drain_all(pipeline: Pipeline, ledger: Ledger, within_s: float) -> None:
    """Drain until no retry is left."""
    until = time.monotonic() + within_s
    while ledger.next_due() is not None:
        assert time.monotonic() < until, "URLs are left over"
        pipeline.drain()
        time.sleep(0.05)


def test_every_misbehaviour_ends_in_its_state_while_others_go_on(client: str, server: HostileServer, workspace: Workspace) -> None:
    ends = ENDS_OF_PYCURL if client == "pycurl" else ENDS
    dataset, made = new_dataset(workspace, deadline_s=3.0, max_megabytes=1.0, concurrency=16)
    with Ledger(dataset.ledger) as ledger:
        good = [server.url(f"/good?{number}") for number in range(len(GOOD))]
        find(ledger, [*map(server.url, ENDS), *good])
        with Pipeline(dataset, made, ledger, replace(LOCAL, client=client)) as pipeline:
            drain_all(pipeline, ledger, 30)
        assert {path: words(ledger, server.url(path)) for path in ends} == ends
        assert {words(ledger, url) for url in good} == {"KEPT"}
        assert server.requests.count("/busy") == server.requests.count("/stall") == 2  # bounded by max_attempts
        assert not [path for path in server.requests if "meta-data" in path]


def test_a_million_dead_hosts_cannot_hold_up_the_living(client: str, server: HostileServer, workspace: Workspace) -> None:
    """Domains take turns: one good URL behind many that stall is fetched long before they are done."""
    dataset, made = new_dataset(workspace, deadline_s=3.0, concurrency=8, per_domain=2)
    names = {f"dead{number}.test": "127.0.0.1" for number in range(3)}

    async def lookup(host: str, port: int) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (names.get(host, "127.0.0.1"), port))]

    settings = DownloadSettings(("127.0.0.1",), polite=True, stall_s=0.5, lookup=lookup, client=client)
    with Ledger(dataset.ledger) as ledger:
        find(ledger, [server.url(f"/stall?{number}", host) for host in names for number in range(40)])
        good = server.url("/good?1", "living.test")
        find(ledger, [good])
        with Pipeline(dataset, made, ledger, settings) as pipeline:
            pipeline.drain(should_stop=lambda: pipeline.progress.states["KEPT"] > 0)
        assert words(ledger, good) == "KEPT", became(ledger, good)
        assert ledger.counts().states.get("FOUND", 0) > 50


def test_the_licence_is_asked_before_anything_is_fetched(client: str, server: HostileServer, workspace: Workspace) -> None:
    dataset, made = new_dataset(workspace)
    with Ledger(dataset.ledger) as ledger:
        find(ledger, [server.url("/good?1")], Licence("CC-BY-NC-4.0"))
        find(ledger, [server.url("/good?2")], Licence(""))
        find(ledger, [server.url("/good?3")], Licence("CC-BY-SA-4.0"))
        with Pipeline(dataset, made, ledger, replace(LOCAL, client=client)) as pipeline:
            pipeline.drain()
        assert [words(ledger, server.url(f"/good?{number}")) for number in (1, 2, 3)] == [
            "DENIED(licence)",
            "QUARANTINED(licence_unknown)",
            "KEPT",
        ]
        assert "/good?1" not in server.requests
        # The same bytes under another URL, this time with a licence, free the image from quarantine.
        find(ledger, [server.url("/good?2", "localhost")], FREE)
        with Pipeline(dataset, made, ledger, DownloadSettings(("127.0.0.1", "::1"), polite=False, client=client)) as pipeline:
            pipeline.drain()
        assert words(ledger, server.url("/good?2")) == "KEPT"
        image = next(iter(ledger.images()))
        assert ledger.num_images() == 2
        assert image.licence.spdx


def test_without_leave_this_machine_is_not_reached(client: str, server: HostileServer, workspace: Workspace) -> None:
    dataset, made = new_dataset(workspace)
    spellings = ["127.0.0.1", "localhost", "127.1", "0x7f.0.0.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "①②⑦.0.0.1"]
    with Ledger(dataset.ledger) as ledger:
        urls = [server.url("/good?1", host) for host in spellings]
        find(ledger, urls)
        with Pipeline(dataset, made, ledger, DownloadSettings(polite=False, client=client)) as pipeline:
            pipeline.drain()
        assert {words(ledger, url) for url in urls} == {"DENIED(address)"}
    assert server.requests == []

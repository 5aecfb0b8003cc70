"""The address guard, robots.txt and the opt-outs, and how often a domain is asked."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from collect.errors import UsageError
from collect.ledger import Ledger
from collect.net.address import AddressGuard, AddressRefusedError, not_public
from collect.net.domains import registrable_domain
from collect.net.fetch import Fetcher, FetchLimits, retry_after
from collect.net.robots import RobotsCache, opted_out, parse_tdmrep
from collect.net.throttle import DomainClosedError, Throttle
from collect.pipeline import DownloadSettings, Pipeline
from collect.records import Reason
from collect.version import user_agent
from collect.workspace import Workspace
from tests.collect.collecting import became, find, jpeg, new_dataset, words
from tests.collect.hostile_server import HostileServer, answer

NOT_PUBLIC = [
    "127.0.0.1", "127.255.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255",
    "224.0.0.1", "198.18.0.1", "192.0.2.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:8.8.8.8",
    "64:ff9b::7f00:1", "64:ff9b::808:808", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "::127.0.0.1", "2001:db8::1",
]  # fmt: skip
PUBLIC = ["93.184.215.14", "8.8.8.8", "2606:4700::1111", "2a00:1450:4001:831::200e"]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_off_the_public_internet_are_told(address: str) -> None:
    assert not_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    assert not_public(ipaddress.ip_address(address)) == ""


class Recorder(AddressGuard):
    """The guard with its resolver scripted and a recorder in place of the connect."""

    def __init__(self, names: dict[str, list[str]], allow: tuple[str, ...] = ()) -> None:
        super().__init__(allow, self.answers)
        self.names, self.asked, self.connected = names, [], []

    async def answers(self, host: str, port: int) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        return [
            (socket.AF_INET6 if ":" in place else socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port)) for place in self.names[host]
        ]

    def open_socket(self, family: int, kind: int, proto: int, place: Any) -> socket.socket:
        self.check_address(place[0], place[1])
        self.connected.append(tuple(place[:2]))
        raise OSError("recorded, not connected")


def fetch_all(guard: AddressGuard, urls: list[str], client: str) -> list[Any]:
    async def run() -> list[Any]:
        async with Fetcher(guard, Throttle(4, 2, polite=False), FetchLimits(deadline_s=5), "test", client) as fetcher:
            return [await fetcher.fetch(url) for url in urls]

    return asyncio.run(run())


def test_a_name_is_connected_to_only_where_all_its_addresses_are_public(client: str) -> None:
    guard = Recorder({"good.test": ["93.184.215.14"], "mixed.test": ["93.184.215.14", "10.0.0.1"], "inner.test": ["fd00::1"]})
    lost = fetch_all(guard, ["http://good.test/a", "http://mixed.test/a", "https://inner.test/a", "http://good.test:8080/a"], client)
    assert [entry.reason for entry in lost] == [Reason.CONNECTION, Reason.ADDRESS, Reason.ADDRESS, Reason.ADDRESS]
    assert guard.connected == [("93.184.215.14", 80)]
    assert guard.asked == ["good.test", "mixed.test", "inner.test"]


def test_a_redirect_is_looked_at_like_a_first_url(client: str) -> None:
    """A server that may be reached (127.0.0.2) redirects to what may not: another port of this machine among them."""

    async def redirect(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> bool:
        writer.write(answer(b"", status="301 Moved", headers=f"Location: {unquote(path[1:])}\r\n"))
        await writer.drain()
        return True

    with HostileServer(redirect, "127.0.0.2") as server, HostileServer(redirect) as other:
        targets = [
            "http://169.254.169.254/latest",
            "http://10.0.0.1/",
            "http://[::1]/",
            "http://2852039166/",
            other.url("/"),
            "ftp://127.0.0.2/",
        ]
        lost = fetch_all(AddressGuard(("127.0.0.2",)), [server.url(f"/{target}", "127.0.0.2") for target in targets], client)
        assert [entry.reason for entry in lost] == [Reason.ADDRESS] * 5 + [Reason.SCHEME]
        assert other.requests == []


def test_the_guard_knows_schemes_ports_and_its_own_allow_list() -> None:
    guard = AddressGuard(["10.0.0.0/8"])
    guard.check_address("10.9.9.9", 8080)
    guard.check_url(URL("http://10.9.9.9:8080/"))
    for url in ("http://127.0.0.1/", "file:///etc/passwd", "http://[fe80::1]/", "http://93.184.215.14:22/"):
        with pytest.raises(AddressRefusedError):
            guard.check_url(URL(url))
    with pytest.raises(UsageError, match="no IP address or network"):
        AddressGuard(["localhost"])


def test_names_whose_servers_are_silent_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    known, over = socket.getaddrinfo, threading.Event()

    def getaddrinfo(host: str, *rest: Any, **named: Any) -> Any:
        if host.startswith("silent"):
            over.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return known("127.0.0.1" if host == "live.test" else host, *rest, **named)

    async def ask() -> None:
        guard = AddressGuard(("127.0.0.1",))
        silent = [asyncio.create_task(guard.resolve(f"silent{number}.test")) for number in range(40)]
        await asyncio.sleep(0)  # all of them ask first
        try:
            assert [text for _family, text in await asyncio.wait_for(guard.resolve("live.test", 80), 10)] == ["127.0.0.1"]
        finally:
            over.set()
        assert {type(error) for error in await asyncio.gather(*silent, return_exceptions=True)} == {socket.gaierror}

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    asyncio.run(ask())


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (["noai"], "X-Robots-Tag: noai"),
        (["all", "noindex, nofollow"], "X-Robots-Tag: noindex"),
        (["otherbot: noindex"], ""),
        (["otherbot: noindex", "boxwright: noimageai"], "X-Robots-Tag: noimageai"),
        (["max-snippet: 20, nofollow"], ""),
        (["NOML"], "X-Robots-Tag: noml"),
    ],
)
def test_x_robots_tag(values: list[str], word: str) -> None:
    headers = CIMultiDictProxy(CIMultiDict([("X-Robots-Tag", value) for value in values]))
    assert opted_out(headers) == word


def test_tdmrep_that_is_none_reserves_nothing() -> None:
    assert parse_tdmrep(b"<html>") == parse_tdmrep(b"{}") == parse_tdmrep(b'[1, {"location": 2}]') == ()


ROBOTS = b"User-agent: *\nDisallow: /private/\nAllow: /private/free*\nUser-agent: boxwright\nDisallow: /ours\nDisallow: /private/\n"


async def site(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> bool:
    host = headers["Host"].partition(":")[0]
    number = sum(path.encode()) * 7
    extra = {"/tagged": "X-Robots-Tag: noai\r\n", "/freed/x": "tdm-reservation: 0\r\n", "/held": "tdm-reservation: 1\r\n"}.get(path, "")
    if path == "/robots.txt":
        answers = {"error.test": answer(b"", status="500 Oops"), "none.test": answer(b"", status="403 Forbidden")}
        writer.write(answers.get(host) or answer(ROBOTS, headers="Content-Type: text/plain\r\n"))
    elif path == "/.well-known/tdmrep.json" and host == "reserved.test":
        writer.write(answer(b'[{"location": "/freed", "tdm-reservation": 1}, {"location": "/kept*", "tdm-reservation": 1}]'))
    elif path.startswith("/."):
        writer.write(answer(b"", status="404 Not Found"))
    elif "leads-to" in path:
        there = f"http://plain.test:{headers['Host'].partition(':')[2]}/{path.partition('leads-to-')[2]}"
        writer.write(answer(b"", status="302 Found", headers=f"Location: {there}\r\n"))
    else:
        writer.write(answer(jpeg(number), headers=f"Content-Type: image/jpeg\r\n{extra}"))
    await writer.drain()
    return True


async def here(host: str, port: int) -> list[tuple[Any, ...]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer(site) as running:
        yield running


def test_rules_that_nobody_waits_for_any_more_are_not_fetched_on() -> None:
    """As at Ctrl-C: their fetcher's session is closed next, and what still used it would end in a traceback."""

    async def stalls(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(60)
        return False

    async def ask(site: HostileServer) -> None:
        guard = AddressGuard(("127.0.0.1",))
        async with Fetcher(guard, Throttle(4, 2, polite=False), FetchLimits(deadline_s=30), "test") as fetcher:
            async with RobotsCache(fetcher) as robots:
                waiting = asyncio.create_task(robots.rules(URL(site.url("/a"))))
                while not site.requests:
                    await asyncio.sleep(0.01)
                waiting.cancel()
            assert asyncio.all_tasks() - {asyncio.current_task(), waiting} == set()

    with HostileServer(stalls) as site:
        asyncio.run(ask(site))
    assert site.requests == ["/robots.txt"]


def test_what_sites_say_is_done(server: HostileServer, workspace: Workspace) -> None:
    expected = {
        ("plain.test", "/a"): "KEPT",
        ("plain.test", "/ours"): "DENIED(robots)",
        ("plain.test", "/private/b"): "DENIED(robots)",
        ("plain.test", "/tagged"): "DENIED(opt_out)",
        ("plain.test", "/held"): "DENIED(opt_out)",
        ("error.test", "/c"): "DENIED(robots)",
        ("none.test", "/d"): "KEPT",
        ("reserved.test", "/freed/x"): "KEPT",
        ("reserved.test", "/kept/y"): "DENIED(opt_out)",
        # Rules hold at every hop: the next host's robots.txt, and a reservation wherever it leads.
        ("none.test", "/leads-to-e"): "KEPT",
        ("none.test", "/leads-to-private/e"): "DENIED(robots)",
        ("reserved.test", "/kept/leads-to-f"): "DENIED(opt_out)",
    }
    dataset, made = new_dataset(workspace)
    with Ledger(dataset.ledger) as ledger:
        find(ledger, [server.url(path, host) for host, path in expected])
        with Pipeline(dataset, made, ledger, DownloadSettings(("127.0.0.1",), lookup=here)) as pipeline:
            pipeline.drain()
        assert {key: words(ledger, server.url(key[1], key[0])) for key in expected} == expected
        assert became(ledger, server.url("/a", "plain.test")).robots == "allowed"
    assert server.requests.count("/robots.txt") == 4
    assert not {"/ours", "/private/e"} & set(server.requests)
    assert {headers["User-Agent"] for headers in server.headers} == {user_agent("")}
    assert {headers["Accept-Encoding"] for headers in server.headers} == {"identity"}


def test_a_domain_gets_so_many_requests_at_a_time_and_no_more() -> None:
    async def run() -> int:
        throttle, now, most = Throttle(16, 2), 0, 0

        async def one() -> None:
            nonlocal now, most
            async with throttle.turn("a.test"):
                now += 1
                most = max(most, now)
                await asyncio.sleep(0.01)
                now -= 1

        await asyncio.gather(*(one() for _ in range(8)))
        return most

    assert asyncio.run(run()) == 2


def test_errors_never_shorten_the_delay_and_open_the_breaker() -> None:
    async def run() -> None:
        throttle = Throttle(4, 2, patience_s=0.5)
        throttle.succeeded("a.test", 2.0)
        state = throttle._state("a.test")
        before = state.delay_s
        assert before > 0
        throttle.failed("a.test", 0.001)
        assert state.delay_s == before
        for _ in range(4):
            throttle.failed("a.test", 0.001)
        with pytest.raises(DomainClosedError) as closed:
            async with throttle.turn("a.test"):
                pass
        assert closed.value.reason == Reason.CIRCUIT_OPEN
        assert 50 < closed.value.seconds < 70
        async with throttle.turn("b.test"):  # another domain is not concerned
            pass

    asyncio.run(run())


def test_retry_after_closes_a_domain_for_as_long_as_it_says(workspace: Workspace) -> None:
    async def busy(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> bool:
        status = "404 Not Found" if path.endswith((".txt", ".json")) else "429 Too Many Requests"
        writer.write(answer(b"", status=status, headers="Retry-After: 1800\r\n"))
        await writer.drain()
        return True

    dataset, made = new_dataset(workspace, per_domain=1)
    with HostileServer(busy) as server, Ledger(dataset.ledger) as ledger:
        urls = [server.url(f"/{number}", "busy.test") for number in range(5)]
        find(ledger, urls)
        with Pipeline(dataset, made, ledger, DownloadSettings(("127.0.0.1",), lookup=here)) as pipeline:
            pipeline.drain()
        assert {words(ledger, url) for url in urls} == {"RETRY(rate_limited)"}
        due = ledger.next_due()
        assert due is not None
        assert due - time.time() > 1700
        assert len([path for path in server.requests if not path.endswith((".txt", ".json"))]) == 1


def test_retry_after_is_read_in_both_forms() -> None:
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    assert 95 < retry_after(later) <= 100
    assert (retry_after("7"), retry_after("-1"), retry_after(""), retry_after("99999999")) == (7, 0, 0, 86400)


def test_registrable_domains() -> None:
    assert registrable_domain("https://a.b.example.co.uk/x") == "example.co.uk"
    assert registrable_domain("http://someone.github.io/") == "someone.github.io"
    assert registrable_domain("http://[2606:4700::1]/") == "2606:4700::1"
    assert registrable_domain("http://intranet/") == "intranet"
    assert registrable_domain("http://[broken/") == ""

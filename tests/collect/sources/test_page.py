"""`page:URL`: the parser on real pages and hard cases, the guarded proxy, and the real browser on loopback pages."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collect.errors import MissingServiceError, UsageError
from collect.net.address import AddressGuard, AddressRefusedError
from collect.sources.browser import Browser
from collect.sources.chromium import find_browser
from collect.sources.guarded_proxy import GuardedProxy
from collect.sources.http import Declined
from collect.sources.markup import elements, largest_of, srcset_entries, text_of
from collect.sources.page import opt_out
from collect.sources.page_images import parse_page
from collect.sources.source import Outcome, SourceSettings, open_source

BASE = "https://site.example/dir/page.html"


def urls(html, **more):
    return [shown.url for shown in parse_page(html, BASE, **more)]


def test_parse_page__real_result_page(real_data):
    found = urls((real_data / "pages/ecosia/images_results.html").read_text())
    assert len(found) == len(set(found))
    assert all(url.startswith("https://") for url in found)
    assert sum("bing.net" in url or "bing.com" in url for url in found) >= 24


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<img src="a.jpg">', ["dir/a.jpg"]),
        ('<base href="/other/"><img src="a.jpg">', ["other/a.jpg"]),
        ('<img src="small.jpg" srcset="small.jpg 320w, big.jpg 1280w, mid.jpg 640w">', ["dir/big.jpg"]),
        ('<img src="p.gif" data-src="real.jpg">', ["dir/real.jpg"]),
        ('<img src="data:image/gif;base64,R0lGOD" data-original="real.jpg">', ["dir/real.jpg"]),
        ('<img src="p.gif" data-srcset="x1.jpg 1x, x3.jpg 3x">', ["dir/x3.jpg"]),
        ('<picture><source srcset="w.webp 800w, w2.webp 1600w"><source srcset="j.jpg 900w"><img src="f.jpg"></picture>', ["dir/w2.webp"]),
        ('<picture><source srcset="w.webp 800w"></picture><img src="b.jpg">', ["dir/b.jpg"]),
        ('<a href="full.png?x=1"><img src="thumb.png"></a>', ["dir/full.png?x=1", "dir/thumb.png"]),
        ('<div style="background-image: url(&quot;bg.png&quot;)"></div>', ["dir/bg.png"]),
        ("<style>.hero{background:#fff url(hero.webp) no-repeat} @font-face{src:url(f.woff)}</style>", ["dir/hero.webp"]),
        ('<div data-bg="lazy.jpg"></div>', ["dir/lazy.jpg"]),
        ('<meta property="og:image" content="//cdn.example/og.jpg">', ["//cdn.example/og.jpg"]),
        ('<meta name="twitter:image" content="/t.jpg">', ["t.jpg"]),
        ('<link rel="preload" as="image" imagesrcset="s.jpg 1x, l.jpg 2x"><video poster="v.jpg"></video>', ["dir/l.jpg", "dir/v.jpg"]),
        ('<noscript><img src="n.jpg"></noscript>', ["dir/n.jpg"]),
        ('<img src="pixel.gif" width=1 height=1><img src="data:x"><img src="javascript:x"><img src="http://[bad"><img>', []),
        ('<img src="same.jpg"><img src="same.jpg#x">', ["dir/same.jpg"]),
    ],
)  # fmt: skip
def test_parse_page__places(html, expected):
    absolute = [f"https:{url}" if url.startswith("//") else f"https://site.example/{url}" for url in expected]
    assert urls(html) == absolute


def test_parse_page__computed_backgrounds_and_titles():
    found = parse_page(
        '<img src="a.jpg" alt="A cat" width="640" height="480px">', BASE, ['url("https://cdn.example/b.jpg"), url(c.png)', "none"]
    )
    assert [shown.url for shown in found] == [
        "https://site.example/dir/a.jpg",
        "https://cdn.example/b.jpg",
        "https://site.example/dir/c.png",
    ]
    assert (found[0].title, found[0].width, found[0].height) == ("A cat", 640, 480)


@settings(deadline=None)
@given(st.text())
def test_markup__takes_any_text(text):
    parse_page(text, BASE)
    assert "\n" not in text_of(text)
    elements("<img " + text)


@settings(deadline=None)
@given(st.lists(st.tuples(st.from_regex(r"[a-z0-9/:.?=&%-]{1,30}[a-z]", fullmatch=True), st.integers(1, 5000)), min_size=1, max_size=8))
def test_srcset__round_trip(entries):
    text = ",\n ".join(f"{url} {width}w" for url, width in entries)
    assert list(srcset_entries(" ".join(text.split()))) == [(url, float(width)) for url, width in entries]
    widest = max(width for _, width in entries)
    assert largest_of(text) == next(url for url, width in entries if width == widest)


@pytest.mark.parametrize(
    ("html", "words"),
    [
        ('<meta name="robots" content="noai, noimageai">', "meta robots: noai, noimageai"),
        ('<META NAME="Robots" CONTENT="NoIndex">', "meta robots: noindex"),
        ('<meta name="robots" content="index, follow">', ""),
        ('<meta name="description" content="noai">', ""),
    ],
)
def test_opt_out(html, words):
    assert opt_out(html) == words


def test_open_source__no_page():
    with pytest.raises(UsageError, match="page:https"):
        open_source("page:ftp://x", SourceSettings())
    with pytest.raises(UsageError, match="no IP address"):
        open_source("page:https://x.example", SourceSettings(allow_addresses=("localhost",)))


def test_find_browser__says_how_to_get_one(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "chromedriver" else f"/usr/bin/{name}")
    with pytest.raises(MissingServiceError, match=r"chromedriver not found.*apt-get install -y chromium chromium-driver"):
        find_browser()


# The proxy


@pytest.fixture
def proxy():
    made = []

    def make(*allow, trusted=()):
        made.append(GuardedProxy(AddressGuard(allow), trusted))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_proxy__refuses_private_names_and_addresses_without_connecting(proxy, monkeypatch):
    connected = []
    monkeypatch.setattr(socket, "create_connection", lambda place, **_: connected.append(place))
    names = {"inside.example": ["93.184.215.14", "10.0.0.7"], "outside.example": ["93.184.215.14"]}
    lookup = socket.getaddrinfo

    def resolve(host, port, **more):
        if host in names:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in names[host]]
        return lookup(host, port, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    guarded = proxy()
    for host in ("127.0.0.1", "169.254.169.254", "10.1.2.3", "::1", "::ffff:127.0.0.1", "localhost", "inside.example"):
        with pytest.raises(AddressRefusedError):
            guarded.connect(host, 80)
        assert f"{host}:80" in guarded.refused
    assert connected == []
    guarded.connect("outside.example", 443)
    assert connected == [("93.184.215.14", 443)]


def fetch(proxy_url, url):
    import requests

    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, proxies={"http": proxy_url, "https": proxy_url}, timeout=5)


def test_proxy__passes_on_what_is_allowed(proxy, site, reply):
    site.route("/x", reply("hello"))
    assert fetch(proxy("127.0.0.1").url, f"{site.url}/x?a=b").text == "hello"
    assert site.asked[0].parameters == {"a": "b"}
    assert not any(name.startswith("proxy-") for name in site.asked[0].headers)


def test_proxy__trusts_one_place_only(proxy, site, reply):
    site.route("/x", reply("hello"))
    port = int(site.url.rpartition(":")[2])
    assert fetch(proxy(trusted=[("127.0.0.1", port)]).url, f"{site.url}/x").status_code == 200
    assert fetch(proxy(trusted=[("127.0.0.1", port + 1)]).url, f"{site.url}/x").status_code == 403
    assert len(site.asked) == 1


def test_proxy__a_second_request_goes_to_no_server_of_the_first(proxy, raw_server):
    first, seen = raw_server
    place = urlsplit(proxy("127.0.0.1").url)
    head = f"GET {first}/one HTTP/1.1\r\nHost: x\r\nProxy-Connection: keep-alive\r\n\r\n".encode()
    with socket.create_connection((place.hostname, place.port), timeout=5) as connection:
        connection.sendall(head)
        assert connection.recv(65536).endswith(b"ok")
        connection.sendall(b"GET http://other.example/two HTTP/1.1\r\nHost: other.example\r\n\r\n")
        assert connection.recv(65536) == b""
    assert b"/one" in seen[0]
    assert b"Connection: close" in seen[0]
    assert b"two" not in b"".join(seen)


@pytest.fixture
def raw_server():
    """A server that answers once and keeps the connection open, whatever it was asked; and what it received."""
    seen = []
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(5)
            seen.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            seen.append(connection.recv(65536))

    thread = threading.Thread(target=run)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
    listener.close()
    thread.join()


# The real browser

GALLERY = """<!doctype html><html><head><meta property="og:image" content="/img/og.jpg"><link rel=stylesheet href="/style.css">
<link rel="preload" as="image" href="/img/preload.jpg"><link rel=icon href="/img/icon.ico"></head><body>
<h1>Gallery</h1><img src="/img/first.jpg" alt="First"><img src="/img/no-ending">
<picture><source srcset="/img/p1.webp 800w, /img/p2.webp 1600w"><img src="/img/p0.jpg"></picture>
<div class=css></div><div id=grid></div><div style="height:4000px"></div><img id=lazy data-late="/img/late.jpg">
<svg><image href="/img/svg.png"/></svg>
<script>
const grid = document.querySelector('#grid');
new Image().src = '/img/prefetched.jpg'; fetch('/img/fetched.jpg').catch(() => 0);
for (let i = 0; i < 3; i++) grid.insertAdjacentHTML('beforeend', `<img src="/img/js${i}.jpg">`);
new IntersectionObserver((seen, me) => { if (seen[0].isIntersecting) { lazy.src = lazy.dataset.late; me.disconnect(); } }).observe(lazy);
</script></body></html>"""


@pytest.mark.browser
def test_browser__reads_everything_and_loads_no_image(site, reply):
    site.route("/gallery", reply(GALLERY))
    site.route("/style.css", reply(".css { width: 9px; height: 9px; background-image: url(img/from-css.png) }", mime="text/css"))
    site.route("/img/*", reply(b"\xff\xd8\xff", mime="image/jpeg"))
    source = open_source(f"page:{site.url}/gallery", SourceSettings(allow_addresses=("127.0.0.1",), license="CC-BY-4.0", timeout_s=20))
    try:
        page = source.search("cat", "cat", None)
    finally:
        source.close()
    names = {candidate.url.rpartition("/")[2] for candidate in page.candidates}
    wanted = {"og.jpg", "no-ending", "preload.jpg", "first.jpg", "p2.webp", "from-css.png", "js0.jpg", "js1.jpg", "js2.jpg", "late.jpg"}
    assert wanted <= names
    assert {candidate.licence.spdx for candidate in page.candidates} == {"CC-BY-4.0"}
    assert {candidate.page_url for candidate in page.candidates} == {f"{site.url}/gallery"}
    assert page.dry
    assert site.count("/style.css") == 1
    assert [asked.path for asked in site.asked if asked.path.startswith("/img/")] == []
    assert all("boxwright/" in asked.headers["user-agent"] for asked in site.asked)


@pytest.mark.browser
def test_browser__outcomes(site, reply, real_data):
    port = site.url.rpartition(":")[2]
    told = SourceSettings(allow_addresses=("127.0.0.1",), timeout_s=20)
    site.route("/none", reply("<p>only words</p>"))
    site.route("/captcha", reply((real_data / "pages/ecosia/search_captcha.html").read_bytes()))
    site.route("/opt-out", reply('<meta name=robots content=noai><img src="/img/a.jpg">'))
    site.route("/tagged", reply('<img src="/img/a.jpg">', headers={"X-Robots-Tag": "noimageai"}))
    site.route("/reserved", reply('<img src="/img/a.jpg">', headers={"tdm-reservation": "1"}))
    site.route("/robots.txt", reply("User-agent: *\nDisallow: /private/", mime="text/plain"))
    site.route("/.well-known/tdmrep.json", reply(document=[{"location": "/mined/*", "tdm-reservation": 1}]))
    site.route("/away", reply(status=302, headers={"Location": f"http://[::1]:{port}/x"}))
    expected = {
        "none": (Outcome.EMPTY, "no images"),
        "missing": (Outcome.BLOCKED, "404"),
        "captcha": (Outcome.BLOCKED, "captcha"),
        "opt-out": (Outcome.BLOCKED, "noai"),
        "tagged": (Outcome.BLOCKED, "X-Robots-Tag: noimageai"),
        "reserved": (Outcome.BLOCKED, "TDM-Reservation"),
        "private/page": (Outcome.BLOCKED, "robots.txt forbids it"),
        "mined/page": (Outcome.BLOCKED, "tdmrep.json"),
        "away": (Outcome.BLOCKED, "kept from ::1"),
    }
    source = open_source(f"page:{site.url}/none", told)
    try:
        for path, (outcome, words) in expected.items():
            source.url = f"{site.url}/{path}"  # one browser for all
            page = source.search("cat", "cat", None)
            assert page.outcome is outcome, (path, page.detail)
            assert words in page.detail
    finally:
        source.close()
    assert site.count("/private/") == site.count("/mined/") == 0


@pytest.mark.browser
def test_browser__refuses_what_is_not_public(site, reply):
    site.route("/secret", reply('<img src="/img/a.jpg">'))
    source = open_source(f"page:{site.url}/secret", SourceSettings(timeout_s=20))
    try:
        page = source.search("cat", "cat", None)
    finally:
        source.close()
    assert page.outcome is Outcome.BLOCKED
    assert "--allow-address" in page.detail
    assert site.asked == []


@pytest.mark.browser
def test_browser__one_that_died_is_started_anew(site, reply):
    site.route("/page", reply('<img src="/img/a.jpg">'))
    browser = Browser(SourceSettings(allow_addresses=("127.0.0.1",), timeout_s=20))
    try:
        browser.open(f"{site.url}/page")
        os.kill(browser._chromium.process_id, signal.SIGKILL)
        with pytest.raises(Declined, match=r"the browser"):
            browser.html()
        assert browser.opened == ""
        browser.open(f"{site.url}/page")
        assert "/img/a.jpg" in browser.html()
    finally:
        browser.close()


@pytest.mark.browser
def test_browser__closed_from_another_thread_stays_closed(site, reply):
    hold = threading.Event()
    site.route("/slow", lambda asked: reply("<p>words</p>" if hold.wait(10) else ""))
    browser, found = Browser(SourceSettings(allow_addresses=("127.0.0.1",), timeout_s=20)), []

    def read():
        try:
            browser.open(f"{site.url}/slow")
        except Declined as declined:
            found.append(declined.page)

    thread = threading.Thread(target=read)
    thread.start()
    deadline = time.monotonic() + 20
    while not site.asked and time.monotonic() < deadline:
        time.sleep(0.05)
    number = browser._chromium.process_id
    browser.close()
    hold.set()
    thread.join()
    assert [page.outcome for page in found] == [Outcome.BLOCKED]
    assert not _alive(number)
    with pytest.raises(Declined, match="closed"):
        browser.open(f"{site.url}/slow")


LONELY = """
import sys, time
from collect.sources.browser import Browser
from collect.sources.source import SourceSettings
browser = Browser(SourceSettings(allow_addresses=("127.0.0.1",)))
browser.open(sys.argv[1])
chromium = browser._chromium
print(chromium.process_id, chromium.driver.service.process.pid, chromium.profile, flush=True)
time.sleep(60)
"""


@pytest.mark.browser
def test_browser__leaves_nothing_when_we_are_killed(site, reply):
    site.route("/page", reply("<p>words</p>"))
    with subprocess.Popen([sys.executable, "-c", LONELY, f"{site.url}/page"], stdout=subprocess.PIPE, text=True) as process:
        browser, driver, profile = process.stdout.readline().split()
        assert Path(f"/proc/{browser}").exists()
        process.kill()
    deadline = time.monotonic() + 10
    while (gone := [Path(place).exists() for place in (f"/proc/{browser}", f"/proc/{driver}", profile)]) and any(gone):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert not any(_alive(number) for number in (browser, driver))
    assert not Path(profile).exists()


def _alive(number):
    """Whether a process lives; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

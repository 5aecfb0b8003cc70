"""The contract, the table, and the HTTP client that all search clients share."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from importlib import metadata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collect.definition import parse
from collect.errors import UsageError
from collect.sources.http import MAX_BYTES, Client, Declined, retry_after_s
from collect.sources.source import PREFIXED, SOURCES, Outcome, Page, SourceSettings, common_tags, open_source, settings_for

KEYS = {"flickr": "k", "bing-api": "k", "brave": "k", "serpapi": "k", "openverse": "id:secret"}
API = [name for name in SOURCES if name not in {"bing-images", "google-images"}]


def test_page__no_images_is_never_ok():
    with pytest.raises(ValueError, match="cannot be OK"):
        Page((), Outcome.OK)


@pytest.mark.parametrize("outcome", [Outcome.BLOCKED, Outcome.CONSENT, Outcome.LAYOUT_CHANGED])
def test_page__a_refusal_leaves_the_query_open(outcome):
    assert not Page((), outcome).dry
    assert Page((), Outcome.EMPTY).dry


@pytest.mark.parametrize("name", [*SOURCES, *(f"{prefix}X" for prefix in PREFIXED if prefix != "video:")])
def test_open_source__every_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "X").mkdir()
    name = name.replace("page:X", "page:https://site.example/")
    source = open_source(name, SourceSettings(key=KEYS.get(name)))
    assert source.name == name
    assert source.terms in {"open", "restricted"}
    source.close()
    source.close()


def test_open_source__restricted_ones_say_so():
    restricted = {name for name in SOURCES if open_source(name, SourceSettings(key=KEYS.get(name))).terms == "restricted"}
    assert restricted == {"bing-api", "bing-images", "google-images", "brave", "serpapi"}


def test_open_source__from_another_package(monkeypatch):
    entry = metadata.EntryPoint("mine", "collect.sources.openverse:Openverse", "boxwright.sources")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry] if group == "boxwright.sources" else [])
    assert open_source("mine", SourceSettings()).name == "mine"
    with pytest.raises(UsageError, match="did you mean 'mine'"):
        open_source("mined", SourceSettings())


def test_settings_for(tmp_path):
    text = (
        'name = "d"\ncontact = "mailto:me@example.org"\n[[class]]\nid = 1\nname = "cat"\n[collect]\n'
        'licenses = ["CC-BY"]\nmin_side_px = 99\nbase_urls = { "bing-api" = "https://gate.example" }\n'
    )
    definition = parse(tmp_path / "dataset.toml", text)
    settings = settings_for("bing-api", definition, {"BOXWRIGHT_BING_API_KEY": "k"})
    assert settings == SourceSettings(
        base_url="https://gate.example", key="k", contact="mailto:me@example.org", licenses=("CC-BY",), min_side_px=99
    )
    assert settings_for("flickr", definition, {"BOXWRIGHT_FLICKR_KEY": ""}).key is None


def test_common_tags__none_of_the_query_itself():
    from collect.records import Candidate

    found = [Candidate(f"u{n}", "s", tags=("Cat", "sofa", f"t{n}")) for n in range(10)]
    assert common_tags(found, "cat") == ("cat sofa",)
    assert common_tags(found[:2], "cat") == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["results", "value", "photos", "photo", "query", "pages", "imageinfo", "images_results", "url", "properties", "id",
                         "contentUrl", "original", "extmetadata", "continue", "stat", "licenses", "license", "access_token", "error"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in API if name != "open-images"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=JSON)
def test_search__any_answer_ends_in_a_typed_page(name, site, reply, document):
    site.routes["/*"] = lambda _asked: reply(document=document)
    source = open_source(name, SourceSettings(base_url=site.url, key=KEYS.get(name), polite=False, timeout_s=5))
    page = source.search("q", "c", None)
    source.close()
    assert (page.outcome is Outcome.OK) == bool(page.candidates)


# The HTTP client


def client(site, **more):
    return Client("bing-api", SourceSettings(base_url=site.url, polite=False, **{"timeout_s": 2, **more}))


def test_client__redirects_are_not_followed_with_the_key(site, reply):
    site.route("/a", reply(status=307, headers={"Location": f"{site.url}/b"}))
    with pytest.raises(Declined, match="redirects"):
        client(site).document(f"{site.url}/a", {}, {"X-Key": "secret"})
    assert site.count("/b") == 0


@pytest.fixture
def raw():
    """A server that sends chosen bytes, one piece after another with a pause between."""
    threads, listeners = [], []

    def serve(pieces, pause_s):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                try:
                    for piece in pieces:
                        connection.sendall(piece)
                        time.sleep(pause_s)
                except OSError:
                    pass

        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/x"

    yield serve
    for listener in listeners:
        listener.close()
    for thread in threads:
        thread.join(5)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("pieces", "pause_s", "words"),
    [
        ([HEAD + b"\r\n"] + [b" "] * 40, 0.1, "without end"),
        ([HEAD + b"Content-Length: 100\r\n\r\n{}"], 0.0, "broke off"),
        ([HEAD + b"Content-Length: 100\r\n\r\n{}"], 1.5, "too long"),
        ([b"no http at all\r\n\r\n"], 0.0, "no connection"),
    ],
    ids=["trickle", "truncated", "stall", "no http"],
)
def test_client__bad_servers(raw, site, pieces, pause_s, words):
    with pytest.raises(Declined, match=words):
        client(site, timeout_s=1).document(raw(pieces, pause_s))


def test_client__bomb(site, reply):
    bomb = gzip.compress(b" " * (MAX_BYTES + 1))
    site.route("/bomb", reply(bomb, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(Declined, match="without end"):
        client(site, timeout_s=30).document(f"{site.url}/bomb")


def test_client__base_url_that_is_none(site):
    with pytest.raises(Declined, match="no http address"):
        client(site).get("ftp:/nowhere")


def test_client__pauses_between_requests_where_polite(site, reply):
    site.route("/x", reply(document={}))
    one = Client("openverse", SourceSettings(base_url=site.url), interval_s=0.2)
    began = time.monotonic()
    for _ in range(3):
        one.get(f"{site.url}/x")
    assert time.monotonic() - began >= 0.4


def test_client__lines_of_a_large_text(site, reply):
    site.route("/list", reply("\n".join(f"line {number} ü" for number in range(50_000))))
    lines = list(client(site).lines(f"{site.url}/list"))
    assert len(lines) == 50_000
    assert lines[0] == "line 0 ü\n"
    assert lines[-1] == "line 49999 ü"


def test_retry_after__a_date():
    from email.utils import formatdate

    assert 50 < retry_after_s(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert retry_after_s("soon") == 0

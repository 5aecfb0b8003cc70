"""What the pipeline makes of files and downloads: duplicates, caps, finds, interrupts."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from collect.ledger import Ledger
from collect.pipeline import DownloadSettings, Pipeline, Progress
from collect.records import Candidate, Licence, Reason, State
from collect.workspace import Workspace
from tests.collect.collecting import FREE, became, encoded, find, jpeg, new_dataset, picture, words
from tests.collect.hostile_server import HostileServer, answer

LOCAL = DownloadSettings(("127.0.0.1",), polite=False)


async def pictures(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> bool:
    writer.write(answer(jpeg(int(path.split("/")[1]))))
    await writer.drain()
    return True


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer(pictures) as running:
        yield running


def test_files_are_judged_like_downloads_and_never_twice(workspace: Workspace, tmp_path: Path) -> None:
    dataset, made = new_dataset(workspace)
    image = picture(1, (300, 200))
    (tmp_path / "a.jpg").write_bytes(encoded(image, "JPEG"))
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    (tmp_path / "c.png").write_bytes(encoded(image.resize((150, 100)), "PNG"))
    (tmp_path / "d.jpg").write_bytes(b"no image")

    def candidate(name: str) -> Candidate:
        return Candidate((tmp_path / name).as_uri(), "folder", name, "thing", licence=FREE)

    with Ledger(dataset.ledger) as ledger, Pipeline(dataset, made, ledger) as pipeline:
        taken = {
            name: pipeline.take_file(tmp_path / name, candidate(name), "film") for name in ("a.jpg", "b.jpg", "c.png", "d.jpg", "e.jpg")
        }
        states = [(settlement.state, settlement.reason) for settlement in taken.values()]
        assert states == [
            (State.KEPT, Reason.NONE),
            (State.DUPLICATE, Reason.EXACT),
            (State.DUPLICATE, Reason.NEAR),
            (State.INVALID, Reason.NOT_AN_IMAGE),
            (State.GONE, Reason.FILE_MISSING),
        ]
        kept = next(iter(ledger.images()))
        assert kept.group == "film"
        assert dataset.image_path(kept.sha256, "jpg").read_bytes() == (tmp_path / "a.jpg").read_bytes()
        assert {find["query"] for find in ledger.finds_of(kept.sha256)} == {"a.jpg", "b.jpg"}
        assert taken["c.png"].duplicate_of == kept.sha256
        assert pipeline.take_file(tmp_path / "a.jpg", candidate("a.jpg")).state == State.KEPT
        assert ledger.num_images() == 1


def test_a_file_whose_sha1_is_stated_and_held_is_not_fetched_again(server: HostileServer, workspace: Workspace, tmp_path: Path) -> None:
    dataset, made = new_dataset(workspace)
    (tmp_path / "own.jpg").write_bytes(jpeg(3))

    def stated(ledger: Ledger, path: str, number: int) -> str:
        sha1 = hashlib.sha1(jpeg(number)).hexdigest()
        ledger.add_finds([(Candidate(server.url(path), "wikimedia", "q", "thing", sha1=sha1, licence=FREE), "127.0.0.1")])
        return server.url(path)

    with Ledger(dataset.ledger) as ledger, Pipeline(dataset, made, ledger, LOCAL) as pipeline:
        find(ledger, [server.url("/1/flickr")])
        find(ledger, [server.url("/2/blog")], Licence())
        pipeline.drain()
        pipeline.take_file(tmp_path / "own.jpg", Candidate((tmp_path / "own.jpg").as_uri(), "folder", "own.jpg", "thing", licence=FREE))
        again = [stated(ledger, f"/{number}/commons", number) for number in (1, 2, 3)]
        new = stated(ledger, "/4/commons", 4)
        # Found by a source that states no sha1 first, and waiting still.
        both = server.url("/1/both")
        find(ledger, [both])
        stated(ledger, "/1/both", 1)
        pipeline.drain()
        assert sorted(server.requests) == ["/1/flickr", "/2/blog", "/4/commons"]
        assert [words(ledger, url) for url in again] == ["DUPLICATE(exact)"] * 3
        assert words(ledger, both) == "DUPLICATE(exact)"
        assert words(ledger, new) == "KEPT"
        held = {
            find["url"]: image.state for image in ledger.images(State.KEPT, State.QUARANTINED) for find in ledger.finds_of(image.sha256)
        }
        assert set(held.values()) == {State.KEPT}  # the licence on Commons freed what the blog had shown without one
        assert held.keys() >= {*again, new, both}


def test_a_cap_per_domain_holds(server: HostileServer, workspace: Workspace) -> None:
    dataset, made = new_dataset(workspace, max_per_domain=3)
    with Ledger(dataset.ledger) as ledger:
        find(ledger, [server.url(f"/{number}") for number in range(8)])
        with Pipeline(dataset, made, ledger, LOCAL) as pipeline:
            pipeline.drain()
        assert ledger.num_images() == 3
        assert ledger.counts().reasons == {"DENIED(cap)": 5}


def test_a_logo_that_many_hosts_show_is_a_placeholder_and_a_photo_is_not(workspace: Workspace) -> None:
    drawing = Image.new("L", (200, 200), 250)
    ImageDraw.Draw(drawing).rectangle((60, 90, 140, 110), fill=60)
    drawing.paste(Image.linear_gradient("L").resize((40, 40)).point(lambda grey: 60 + grey // 3), (10, 10))  # too shaded to be sure
    logo = encoded(drawing, "PNG")

    async def logo_or_photo(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> bool:
        writer.write(answer(logo if path.endswith("logo.png") else jpeg(7)))
        await writer.drain()
        return True

    dataset, made = new_dataset(workspace)
    with ExitStack() as stack, Ledger(dataset.ledger) as ledger:
        hosts = [stack.enter_context(HostileServer(logo_or_photo, f"127.0.0.{number}")) for number in range(1, 7)]
        urls = [host.url(path, f"127.0.0.{number}") for number, host in enumerate(hosts, 1) for path in ("/logo.png", "/photo.jpg")]
        find(ledger, urls)
        with Pipeline(dataset, made, ledger, DownloadSettings(("127.0.0.0/29",), polite=False)) as pipeline:
            pipeline.drain()
        assert ledger.num_images() == 1
        (photo,) = ledger.images()
        assert len(ledger.urls_of(photo.sha256)) == 6
        assert ledger.counts().reasons == {"DUPLICATE(exact)": 10, "INVALID(placeholder)": 1}


def test_after_an_interrupt_everything_goes_on(server: HostileServer, workspace: Workspace) -> None:
    dataset, made = new_dataset(workspace, concurrency=4)
    urls = [server.url(f"/{number}") for number in range(60)]

    def interrupt(progress: Progress) -> None:
        if progress.states["KEPT"] >= 5:
            raise KeyboardInterrupt

    with Ledger(dataset.ledger) as ledger:
        find(ledger, urls)
        with Pipeline(dataset, made, ledger, LOCAL) as pipeline, pytest.raises(KeyboardInterrupt):
            while True:
                pipeline.drain(should_stop=lambda: pipeline.progress.states["KEPT"] >= 5, on_progress=interrupt)
        states = ledger.counts().states
        assert set(states) <= {"KEPT", "FOUND"}
        with Pipeline(dataset, made, ledger, LOCAL) as pipeline:
            pipeline.drain()
        assert {words(ledger, url) for url in urls} == {"KEPT"}
    assert len(server.requests) - len(urls) <= 8


def test_a_server_that_gave_images_is_down_and_not_gone(workspace: Workspace) -> None:
    dataset, made = new_dataset(workspace)
    with Ledger(dataset.ledger) as ledger:
        with HostileServer(pictures) as server, Pipeline(dataset, made, ledger, LOCAL) as pipeline:
            find(ledger, [server.url("/1")])
            pipeline.drain()
        later, never = server.url("/2"), server.url("/3", "127.0.0.2")
        find(ledger, [later, never])
        settings = DownloadSettings(("127.0.0.0/8",), polite=False)
        with Pipeline(dataset, made, ledger, settings) as pipeline:
            pipeline.drain()
        assert [words(ledger, url) for url in (server.url("/1"), later, never)] == ["KEPT", "RETRY(connection)", "GONE(connection)"]
        assert ledger.next_due() is not None


def test_silent_names_take_no_turn_from_others(workspace: Workspace, server: HostileServer) -> None:
    starved: list[str] = []

    async def lookup(host: str, port: int) -> list[tuple[object, ...]]:
        until = time.monotonic() + 5
        while host.startswith("silent"):
            if server.requests:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            if time.monotonic() > until:
                starved.append(host)
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            await asyncio.sleep(0.02)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    dataset, made = new_dataset(workspace)
    silent = [server.url("/1", f"silent{number}.a{number}.test") for number in range(60)]  # more than are asked at a time
    with Ledger(dataset.ledger) as ledger:
        find(ledger, [*silent, server.url("/1", "photos.z.test")])
        with Pipeline(dataset, made, ledger, DownloadSettings(("127.0.0.1",), polite=False, lookup=lookup)) as pipeline:
            pipeline.drain()
        assert starved == []
        assert {words(ledger, url) for url in silent} == {"GONE(dns)"}
        assert words(ledger, server.url("/1", "photos.z.test")) == "KEPT"
        assert became(ledger, silent[0]).detail == "cannot find silent0.a0.test: Name or service not known"


def test_a_drain_waits_for_its_last_urls_without_spinning(workspace: Workspace, server: HostileServer) -> None:
    dataset, made = new_dataset(workspace)
    looks = 0

    def should_stop() -> bool:
        nonlocal looks
        looks += 1
        return False

    with Ledger(dataset.ledger) as ledger, Pipeline(dataset, made, ledger, LOCAL) as pipeline:
        find(ledger, [server.url(f"/{number}") for number in range(20)])
        pipeline.drain(should_stop)
        assert ledger.counts().states == {"KEPT": 20}
    assert looks < 300  # once per settled batch and each quarter of a second; it was tens of thousands

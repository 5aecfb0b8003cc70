"""What was received whole and not settled outlives its process, and nothing else does."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from collect import spool
from collect.admission import Arrival
from collect.errors import StorageError
from collect.ledger import Ledger
from collect.ledger_rows import Lease
from collect.pipeline import DownloadSettings, Pipeline
from collect.records import Licence
from collect.spool import Spool
from collect.workspace import Dataset, Workspace
from tests.collect.collecting import find, jpeg, new_dataset, words
from tests.collect.hostile_server import HostileServer, answer

LOCAL = DownloadSettings(("127.0.0.1",), polite=False)


@pytest.fixture
def dataset(workspace: Workspace) -> Dataset:
    return new_dataset(workspace)[0]


@pytest.fixture
def server() -> Iterator[HostileServer]:
    async def pictures(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> bool:
        writer.write(answer(jpeg(int(path[1:]))))
        await writer.drain()
        return True

    with HostileServer(pictures) as running:
        yield running


def _lease(number: int) -> Lease:
    return Lease(number, f"http://example.org/{number}", "example.org", 1, "urls", "thing", Licence(), "", "", "")


def _arrival(number: int, body: bytes = b"body") -> Arrival:
    return Arrival(_lease(number), body * number, status=200, final_url="http://example.org/é", redirects=1, etag='"e"', robots="allowed")


def _taken_up(dataset: Dataset, *waiting: int) -> Spool:
    """As the next process finds it."""
    another = Spool(dataset)
    another.take_up(lambda url: int(url.rsplit("/", 1)[1]) in waiting)
    return another


def _files(dataset: Dataset) -> list[Path]:
    return sorted((dataset.images / ".arrived").glob("*"))


def test_what_is_not_settled_comes_back_as_it_was_and_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_FULL_BYTES", 200)  # so that several files are used
    killed = Spool(dataset)
    for number in range(1, 9):
        killed.keep(_arrival(number))
    killed.settled([2, 3])
    assert len(_files(dataset)) > 2
    resumed = _taken_up(dataset, 1, 4, 5, 6, 7)  # the commit of 8 came before the kill
    assert resumed.recall(_lease(2)) is None
    assert resumed.recall(_lease(8)) is None
    for number in (7, 1, 4, 5, 6):
        assert resumed.recall(_lease(number)) == _arrival(number)
        assert resumed.recall(_lease(number)) is None
    resumed.keep(_arrival(9))
    assert _taken_up(dataset, 9).recall(_lease(9)) == _arrival(9)
    resumed.settled([1, 4, 5, 6, 7, 9])
    resumed.close(lambda _url: False)
    assert not (dataset.images / ".arrived").exists()


def test_a_half_written_end_counts_for_nothing_wherever_it_stops(dataset: Dataset) -> None:
    killed = Spool(dataset)
    killed.keep(_arrival(1))
    (file,) = _files(dataset)
    whole = file.stat().st_size
    killed.keep(_arrival(2))
    for length in range(whole, file.stat().st_size):
        written = file.read_bytes()
        file.write_bytes(written[:length])
        resumed = _taken_up(dataset, 1, 2)
        assert resumed.recall(_lease(2)) is None
        assert resumed.recall(_lease(1)) == _arrival(1)
        file.write_bytes(written)
    assert _taken_up(dataset, 1, 2).recall(_lease(2)) == _arrival(2)


def test_after_a_power_cut_the_spool_is_not_trusted(dataset: Dataset) -> None:
    Spool(dataset).keep(_arrival(1))
    (file,) = _files(dataset)
    file.rename(file.with_suffix(".another-run-of-this-machine"))
    assert _taken_up(dataset, 1).recall(_lease(1)) is None
    assert _files(dataset) == []


def test_a_full_disk_is_an_error_and_what_was_written_stays_whole(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = Spool(dataset)
    killed.keep(_arrival(1))
    real = os.write

    def half(descriptor: int, parts: tuple[bytes, ...]) -> int:
        real(descriptor, b"".join(parts)[:9])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "writev", half)
        with pytest.raises(StorageError):
            killed.keep(_arrival(2))
    killed.keep(_arrival(3))
    resumed = _taken_up(dataset, 1, 2, 3)
    assert [resumed.recall(_lease(number)) is not None for number in (1, 2, 3)] == [True, False, True]


def test_what_was_received_is_judged_by_the_rules_of_today(server: HostileServer, workspace: Workspace) -> None:
    dataset, made = new_dataset(workspace)
    urls = [server.url(f"/{number}") for number in range(3)]
    with Ledger(dataset.ledger) as ledger:
        find(ledger, urls[:2])
        find(ledger, urls[2:], Licence("CC-BY-ND-4.0"))
        killed = Spool(dataset)
        for number, lease in enumerate(ledger.lease(3)):
            killed.keep(Arrival(lease, jpeg(number), status=200, robots="not asked (impolite)"))
        stricter = replace(made, collect=replace(made.collect, licenses=("CC0-1.0",)))
        with Pipeline(dataset, stricter, ledger, LOCAL) as pipeline:
            pipeline.drain()
        assert server.requests == []
        assert [words(ledger, url) for url in urls] == ["KEPT", "KEPT", "DENIED(licence)"]
    assert len([path for path in dataset.images.rglob("*") if path.is_file()]) == 2

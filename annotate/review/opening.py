"""A whole review from start to end: database, dataset, change stream, server, and the way back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from annotate.journal import Journal, Verdict
from annotate.review import dataset as app_dataset
from annotate.review import mongod, queue, server
from annotate.review.dataset import Origin
from annotate.review.effort import effort, release_hours, write_report
from annotate.review.session import Session, close_all, open_session, safe_name
from annotate.review.verdicts import Outcome
from annotate.review.watch import Watch
from annotate.state import Labels, current
from collect.console import Console
from collect.definition import load
from collect.errors import CorruptError, UsageError
from collect.ledger import Ledger
from collect.workspace import Dataset, Workspace


@dataclass(frozen=True)
class Options:
    """What `boxwright review` was asked for. `run` names a run whose detections are shown, None = none."""

    name: str
    reviewer: str
    port: int = 0
    open_browser: bool = False
    run: str | None = None


def outlook(console: Console, options: Options) -> dict[str, Any]:
    """What a review would show (`--dry-run`); nothing is started or written.

    Raises:
        NotFoundError: there is no such dataset.
    """
    dataset = console.workspace.dataset(options.name)
    load(dataset)
    images = pending = 0
    if dataset.ledger.exists():
        with Ledger(dataset.ledger) as ledger:
            names = [record.sha256 for record in ledger.images()]
        labels: Labels = {}
        if dataset.labels.exists():
            with Journal(dataset.labels) as journal:
                labels = current(journal)
        images, pending = len(names), sum(name not in labels or labels[name].verdict == Verdict.PENDING for name in names)
    console.out(
        f"would show {images:,} images to {options.reviewer}, {pending:,} of them without a verdict, at http://{server.ADDRESS}:{options.port}"
    )
    return {"reviewer": options.reviewer, "images": images, "pending": pending, "port": options.port}


def review(console: Console, options: Options) -> None:
    """Serve the App until Ctrl-C or SIGTERM.

    Raises:
        UsageError, NotFoundError, PortInUseError, MissingServiceError: see the message; nothing is lost.
    """
    dataset = console.workspace.dataset(options.name)
    if not options.reviewer.strip():
        raise UsageError("a reviewer needs a name; give one with --reviewer NAME")
    with server.claim(options.port) as listener, prepared(console, dataset, options) as (session, app, streams):
        place = server.Place(listener, app.slug)
        watch = Watch(session, streams=streams)
        watch.start()
        try:
            with _until_a_signal() as (loop, stop):  # from before the address is known: whoever reads it may end the review
                _tell(console, session, place, options)
                server.serve(session, place, dataset.images, stop, loop)
        finally:
            watch.stop()
    with Journal(dataset.labels) as journal:
        costs = release_hours(dataset, journal)
        report = dataset.folder / "review-report.html"
        write_report(report, dataset.name, effort(journal), costs)
    console.say(f"\nEverything is in {dataset.labels}, what it cost in {report}. Run the same command again to go on.")


@contextmanager
def prepared(console: Console, dataset: Dataset, options: Options) -> Iterator[tuple[Session, Any, bool]]:
    """The session of a review with its App dataset, on a running database."""
    definition = load(dataset)
    with Ledger(dataset.ledger) as ledger:
        ledger.require_images(dataset.name)
    if options.run:
        console.workspace.run_path(options.run, dataset.name)  # a wrong name is told before anything is started
    with mongod.running(console.workspace.root) as database:
        console.say("starting the FiftyOne App …")
        name = f"boxwright-{safe_name(options.reviewer)}"
        with _readable(database, name):
            fo = app_dataset.connect(console.workspace.root, database.uri, name)
        try:
            with _readable(database, name):
                _take_over(fo, console.workspace, dataset, private=database.ours)
            with Journal(dataset.labels) as journal:
                since, head = journal.head()
                cards = queue.cards(console.workspace, dataset, definition, journal, options.reviewer, options.run)
            origin = Origin(str(console.workspace.root), dataset.name, options.reviewer, since, head)
            with _readable(database, name):
                app = app_dataset.build(fo, origin, definition, cards)
            session = open_session(app)
            session.tell_of(cards)
            del cards
            yield session, app, database.streams
        finally:
            close_all()
            app_dataset.disconnect()


@contextmanager
def _readable(database: mongod.Database, name: str) -> Iterator[None]:
    """Say what to do about a database that mongod serves and FiftyOne cannot read: damaged inside, or of a newer FiftyOne.

    Raises:
        CorruptError: that is so. Nothing in the journal hangs on it.
    """
    from pymongo.errors import PyMongoError

    try:
        yield
    except (PyMongoError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of a file; FiftyOne's own words about versions have no number
        why = (str(error) or type(error).__name__).splitlines()[0]
        which = f"end every review and delete {database.folder}" if database.folder else f"drop the database '{name}' at {database.uri}"
        raise CorruptError(
            f"the App's database cannot be read ({why}). Should it say so again, {which}: it is made anew from the journal,"
            " which has every verdict and every stroke that was reported"
        ) from error


def _take_over(fo: Any, workspace: Workspace, dataset: Dataset, *, private: bool) -> None:
    """Bring edits that a killed review left in the App into the journal, before the App's dataset is made anew.

    A `private` database lies in the workspace: where it names another one, it was moved or copied with it. A database from
    outside may hold what was reviewed in another place, whose journal that belongs to, if it is still there.
    """
    if not fo.dataset_exists(dataset.name):
        return
    old = fo.load_dataset(dataset.name)
    origin = dict((old.info or {}).get("boxwright") or {})
    if not origin.get("root"):
        return
    if private and origin["root"] != str(workspace.root):
        old.info = {**old.info, "boxwright": {**origin, "root": str(workspace.root)}}
        old.save()
    if private or dataset.name in Workspace.at(origin["root"]).dataset_names():
        open_session(old).reconcile()
        close_all()


def _tell(console: Console, session: Session, place: server.Place, options: Options) -> None:
    url = place.url()
    waiting = session.samples.count_documents(session.waiting)
    if console.as_json:
        _line({"url": url, "reviewer": session.reviewer, "images": session.samples.estimated_document_count(), "pending": waiting})
    else:
        console.out(url)
    console.say(f"{waiting} image(s) wait for {session.reviewer}. Press ? in the App for the keys, Ctrl-C here to end.")
    if not _has_display():
        port = place.port
        console.say(
            f"There is no display here. From your own machine: `ssh -N -L {port}:127.0.0.1:{port} USER@THIS-MACHINE`,"
            " then open the address above."
        )
    elif options.open_browser:
        webbrowser.open(url)
    session.listeners.append(lambda outcome: _report(console, session, outcome))


def _has_display() -> bool:
    return sys.platform in {"darwin", "win32"} or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _report(console: Console, session: Session, outcome: Outcome) -> None:
    """One line per verdict; words about whatever was refused, restored or changed by others."""
    if outcome.verdict:
        document = {"image": outcome.image, "verdict": outcome.verdict, "reviewer": session.reviewer, "events": outcome.counts()}
        if console.as_json:
            _line(document)
        else:
            acts = ", ".join(f"{count} {kind}" for kind, count in outcome.counts().items() if kind != "verdict")
            console.out(f"{outcome.verdict.ljust(12)} {outcome.image[:12]}  {acts}")
    for refusal in outcome.refused:
        console.say(f"{outcome.image[:12]}: {refusal.why}")
    for note in outcome.notes:
        console.say(note)


def _line(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


@contextmanager
def _until_a_signal() -> Iterator[tuple[asyncio.AbstractEventLoop, asyncio.Event]]:
    """An event loop, and the event that Ctrl-C and SIGTERM set in it."""
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, stop.set)
    try:
        yield loop, stop
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
        _close(loop)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """End what the server's libraries left running, so that nothing complains at exit."""
    loop.set_exception_handler(lambda _loop, _context: None)
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:  # none where nobody ever opened the page
        loop.run_until_complete(asyncio.wait(tasks))
    loop.close()

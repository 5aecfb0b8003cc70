"""The change stream of our mongod, into the journal: every box that the App stores is there milliseconds later.

The stream tells each stored state of a sample in order, so the journal gets every single draw, move, relabel and delete.
Where the server has no change streams (an outside one that is no replica set), the samples' times of change are asked for
four times a second instead; steps between two looks then arrive as one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

from annotate.review.session import Session
from collect.errors import BoxwrightError

LOG = logging.getLogger(__name__)
POLL_S = 0.25


class Watch:
    """Listens in a thread of its own from `start` to `stop`."""

    def __init__(self, session: Session, *, streams: bool) -> None:
        self._session, self._streams = session, streams
        self._ended = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="boxwright-watch", daemon=True)
        self.failure: BoxwrightError | None = None

    def start(self) -> None:
        """Listen; returns when nothing stored from now on can be missed, and takes over what was stored before."""
        self._thread.start()
        self._ready.wait(30)
        self._session.reconcile()

    def stop(self) -> None:
        """Take over what is stored by now, and end."""
        self._ended.set()
        self._thread.join(10)
        self._session.reconcile()

    def _run(self) -> None:
        from pymongo.errors import PyMongoError

        while not self._ended.is_set():
            try:
                for document in self._documents():
                    self._session.note(document)
            except PyMongoError as error:
                # The next stream starts now, so whatever was stored in between is looked for.
                LOG.warning("the change stream broke off and is opened again: %s", error)
                self._ended.wait(0.5)
                self._reconcile_after_break()
            except BoxwrightError as error:
                LOG.error("an edit could not be written to the journal: %s", error)
                self.failure = error
                self._ended.wait(1.0)

    def _reconcile_after_break(self) -> None:
        from pymongo.errors import PyMongoError

        try:
            self._session.reconcile()
        except PyMongoError as error:
            LOG.warning("the database does not answer: %s", error)

    def _documents(self) -> Iterator[dict[str, Any]]:
        return self._streamed() if self._streams else self._polled()

    def _streamed(self) -> Iterator[dict[str, Any]]:
        pipeline = [{"$match": {"operationType": {"$in": ["replace", "update"]}}}]
        with self._session.samples.watch(pipeline, full_document="updateLookup", max_await_time_ms=200) as stream:
            self._ready.set()
            while not self._ended.is_set():
                change = stream.try_next()
                # A replace carries the document as it was stored, an update the one that is there now.
                if change is not None and change.get("fullDocument"):
                    yield change["fullDocument"]

    def _polled(self) -> Iterator[dict[str, Any]]:
        newest = self._session.samples.find_one({}, {"last_modified_at": 1}, sort=[("last_modified_at", -1)])
        since = newest["last_modified_at"] if newest else None
        self._ready.set()
        while not self._ended.wait(POLL_S):
            where = {"last_modified_at": {"$gte": since}} if since else {}
            for document in self._session.samples.find(where, sort=[("last_modified_at", 1)]):
                since = document["last_modified_at"]
                yield document

"""The next image of the queue is fetched before it is asked for.

Opening a sample costs FiftyOne's server some 60 ms of Python. While a person looks at one image the same query is run for the
next one that waits, and its answer kept; it is given out only if the sample is still, to the last field, what it was.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import anyio.to_thread

from annotate.review.asgi import Application, Copy, Message, Receive, Scope, Send, read_body, replay, resized
from annotate.review.preserve import opened_sample
from annotate.review.session import Session
from collect.errors import BoxwrightError

LOG = logging.getLogger(__name__)
#: So long a sample must have been open before the next one is fetched: what the page itself asks for comes first.
QUIET_S = 0.25
KEPT = 4


@dataclass
class _Kept:
    document: dict[str, Any]
    answer: Copy


class Ahead:
    """Wraps FiftyOne's server for one session."""

    def __init__(self, application: Application, session: Session) -> None:
        self._application, self._session = application, session
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._fetching: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an opened sample from what was fetched, where that still holds; pass on everything else."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != "/graphql":
            await self._application(scope, receive, send)
            return
        body = await read_body(receive)
        sample = opened_sample(body)
        if sample is None:
            await self._application(scope, replay(body, receive), send)
            return
        if self._fetching is not None:
            self._fetching.cancel()
        kept = self._kept.pop(_key(body), None)
        if kept is not None and kept.document == await anyio.to_thread.run_sync(self._document, sample):
            await kept.answer.replay(send)
        else:
            await self._application(scope, replay(body, receive), send)
        self._fetching = asyncio.create_task(self._fetch(dict(scope), body, sample))

    def _document(self, sample: str) -> dict[str, Any] | None:
        try:
            return self._session.document(sample)
        except BoxwrightError:
            return None

    async def _fetch(self, scope: Scope, body: bytes, sample: str) -> None:
        from pymongo.errors import PyMongoError

        await asyncio.sleep(QUIET_S)
        try:
            following = await anyio.to_thread.run_sync(self._session.next_pending, sample)
            if following is None:
                return
            wanted = json.loads(body)
            wanted["variables"]["filter"]["id"] = following
            query = json.dumps(wanted, separators=(",", ":")).encode()
            document = await anyio.to_thread.run_sync(self._document, following)
            answer = Copy(None)
            await self._application(resized(scope, len(query)), replay(query, _never), answer)
        except (PyMongoError, BoxwrightError) as error:
            LOG.debug("the next image was not fetched ahead: %s", error)
            return
        if answer.status == 200 and document is not None:
            self._kept[_key(query)] = _Kept(document, answer)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)


def _key(body: bytes) -> bytes:
    """A query regardless of how its JSON is spaced and ordered."""
    return json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")).encode()


async def _never() -> Message:
    await asyncio.sleep(3600)
    return {"type": "http.disconnect"}

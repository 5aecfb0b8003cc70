"""What the keys script asks for, answered without the detour through FiftyOne's operators.

An operator call costs FiftyOne 30 ms and more of Python before ours begins, and it works on the sample that the server takes
for the open one. A key's request names the image that stands in front of the person, and goes straight to the functions
that the operators call too. It stands behind the guard like everything else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import anyio.to_thread

from annotate.review import progress
from annotate.review.asgi import Application, Receive, Scope, Send, answer, read_body
from annotate.review.session import Session
from annotate.review.verdicts import Outcome
from collect.errors import BoxwrightError, UsageError

LOG = logging.getLogger(__name__)
PREFIX = "/boxwright/"
VERDICTS = ("accept", "reject", "needs_boxes", "mark_negative")


class Shortcuts:
    """Wraps an application: `POST /boxwright/ACT` with `{"sample": ID, …}` is answered here, all else passed on."""

    def __init__(self, application: Application, session: Session) -> None:
        self._application, self._session = application, session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the result as JSON, or with `{"error": …}` in a sentence for the person."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._application(scope, receive, send)
            return
        status, document = 405, {"error": "only POST is answered here"}
        if scope["method"] == "POST":
            body = await read_body(receive)
            status, document = await anyio.to_thread.run_sync(self._answer, scope["path"].removeprefix(PREFIX), body)
        await answer(send, status, json.dumps(document, default=str).encode(), "application/json")

    def _answer(self, act: str, body: bytes) -> tuple[int, dict[str, Any]]:
        from pymongo.errors import PyMongoError

        try:
            given = json.loads(body or b"{}")
            sample = str(given.get("sample") or "") or None
            return 200, self._act(act)(sample, given)
        except (ValueError, AttributeError, TypeError) as error:
            return 400, {"error": f"this is not a request of the keys script ({error})"}
        except BoxwrightError as error:
            return 409, {"error": str(error)}
        except PyMongoError as error:
            LOG.warning("the database did not answer a key: %s", error)
            return 503, {"error": "the database does not answer; it is being started again, press the key again in a moment"}

    def _act(self, act: str) -> Callable[[str | None, dict[str, Any]], dict[str, Any]]:
        if act in VERDICTS:
            return lambda sample, given: self._told(sample, self._session.judge(sample or "", act, given.get("seconds")))
        acts: dict[str, Callable[[str | None, dict[str, Any]], dict[str, Any]]] = {
            "undo": lambda sample, _: self._told(sample, self._session.undo(sample)),
            "keep": self._keep,
            "next_image": lambda sample, _: self._told(sample, Outcome("")),
            "guide": lambda sample, _: progress.guide(self._session, sample),
            "twins": lambda sample, _: {"images": self._session.abreast(sample or ""), "of": len(self._session.twins(sample or ""))},
        }
        if act not in acts:
            raise UsageError(f"the review knows no '{act}'")
        return acts[act]

    def _told(self, sample: str | None, *outcomes: Outcome) -> dict[str, Any]:
        return progress.told(self._session, sample, outcomes)

    def _keep(self, sample: str | None, given: dict[str, Any]) -> dict[str, Any]:
        """Keep one of those shown side by side; the person goes on to it, from wherever they are. `more` of its group wait unseen."""
        outcomes = self._session.keep(sample or "", [str(each) for each in given.get("shown") or []])
        more = sum(twin["waits"] for twin in self._session.twins(sample or "") if twin["id"] != sample)
        return progress.told(self._session, given.get("here"), outcomes, target=sample) | {"more": more}

"""No box is lost unseen: an ASGI wrapper between the guard and FiftyOne's server.

The App patches a sample by array index and then removes the boxes that it does not show. In a view that filters labels it
therefore deletes the hidden ones with the first edit. Two things stand against that here. The query with which the App
opens a sample loses those stages of the view that change labels, so an opened image always shows all its boxes. And every
patch is held against the boxes that the App was given: a box that it removes without having shown it is put back at once,
the journal gets a `restore` by `guard`, and the person is told.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

import anyio.to_thread

from annotate.review.asgi import Application, Copy, Receive, Scope, Send, read_body, replay, resized
from annotate.review.session import Session

LOG = logging.getLogger(__name__)
#: Stages that choose, order or project samples and leave every label as it is stored.
HARMLESS = frozenset(
    {
        "Concat", "Exclude", "ExcludeBy", "ExcludeFields", "ExcludeGroupSlices", "Exists", "GeoNear", "GeoWithin", "GroupBy", "Limit",
        "Match", "MatchFrames", "MatchLabels", "MatchTags", "Select", "SelectBy", "SelectFields", "SelectGroupSlices", "Shuffle", "Skip",
        "SortBy", "SortBySimilarity", "Take", "ToPatches", "ToEvaluationPatches", "ToFrames", "ToClips", "ToTrajectories",
    }
)  # fmt: skip
_WHY = "a view was hiding them while you edited this image"


class Preserve:
    """Wraps FiftyOne's server for one session."""

    def __init__(self, application: Application, session: Session) -> None:
        self._application, self._session = application, session
        self._seen: dict[str, set[str]] = {}
        self._told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on everything but opened samples and patches, which are looked at."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == "/graphql":
            await self._query(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] == "PATCH" and _sample_of(scope["path"]):
            await self._patch(scope, receive, send)
        else:
            await self._application(scope, receive, send)

    async def _query(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        sample = opened_sample(body)
        if sample is None:
            await self._application(scope, replay(body, receive), send)
            return
        body, hiding = show_all_labels(body)
        if hiding and not self._told:
            self._told = True
            self._session.warn(f"the view filters labels ({', '.join(hiding)}); an opened image shows all its boxes all the same")
        answer = Copy(send)
        await self._application(resized(scope, len(body)), replay(body, receive), answer)
        self._seen[sample] = set(_served_boxes(answer.body))

    async def _patch(self, scope: Scope, receive: Receive, send: Send) -> None:
        sample, body = _sample_of(scope["path"]), await read_body(receive)
        before = await anyio.to_thread.run_sync(self._session.stored_boxes, sample)
        after = patched_ids([str(box["_id"]) for box in before], body)
        self._seen.setdefault(sample, self._visible(sample, before)).update(after[1])
        removed = {str(box["_id"]) for box in before} - set(after[0])
        unseen = removed - self._seen[sample]
        if not unseen:
            await self._application(scope, replay(body, receive), send)
            return
        hidden = [box for box in before if str(box["_id"]) in unseen]
        with self._session.lock:  # the change stream must not take the loss for the person's word
            answer = Copy(None)
            await self._application(scope, replay(body, receive), answer)
            if answer.status == 200:
                self._session.put_back(sample, hidden, _WHY)
        await answer.replay(send)

    def _visible(self, sample: str, before: list[dict[str, Any]]) -> set[str]:
        """The boxes that the App's present view shows of a sample which was not opened through our query."""
        from fiftyone.server.events import get_state

        view = get_state().view
        everything = {str(box["_id"]) for box in before}
        if view is None or all(stage.__class__.__name__ in HARMLESS for stage in view._stages):
            return everything
        try:
            shown = view.select(sample).first()
        except ValueError:
            return set()  # the view shows nothing of it
        return {box.id for box in shown.boxes.detections} if shown.boxes else set()


def show_all_labels(body: bytes) -> tuple[bytes, list[str]]:
    """A sample query without the stages that change labels, and the names of those stages."""
    document = json.loads(body)
    stages = document["variables"].get("view") or []
    names = [str(stage.get("_cls", "")).rpartition(".")[2] for stage in stages]
    hiding = [name for name in names if name not in HARMLESS]
    if not hiding:
        return body, []
    document["variables"]["view"] = [stage for stage, name in zip(stages, names, strict=True) if name in HARMLESS]
    return json.dumps(document).encode(), hiding


def patched_ids(ids: list[str], body: bytes) -> tuple[list[str], set[str]]:
    """The ids of `boxes` after a JSON patch (RFC 6902), and those that the patch itself brought."""
    result, brought = list(ids), set()
    for step in _steps(body):
        path = str(step.get("path", "")).strip("/").split("/")
        kind = step.get("op")
        if path[0] != "boxes" or len(path) > 3:
            continue
        if len(path) < 3:
            result = [] if kind == "remove" else _ids_of(step.get("value"))
            brought |= set(result) - set(ids)
            continue
        place = len(result) if path[2] == "-" else int(path[2])
        fresh = [] if kind == "remove" else _ids_of({"detections": [step.get("value")]})
        result[place : place + (0 if kind == "add" else 1)] = fresh
        brought |= set(fresh)
    return result, brought


def _steps(body: bytes) -> list[dict[str, Any]]:
    try:
        steps = json.loads(body)
    except ValueError:
        return []
    return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []


def _ids_of(value: Any) -> list[str]:
    items = value.get("detections") if isinstance(value, dict) else value
    return [_oid(item.get("_id")) for item in items or [] if isinstance(item, dict)]


def _oid(value: Any) -> str:
    return str(value.get("$oid", "")) if isinstance(value, dict) else str(value or "")


def _sample_of(path: str) -> str:
    """The sample id of `/dataset/ID/sample/ID`; "" for other paths (a label patched by its id hides nothing)."""
    parts = path.strip("/").split("/")
    return parts[3] if len(parts) == 4 and parts[0] == "dataset" and parts[2] == "sample" else ""


def opened_sample(body: bytes) -> str | None:
    """The id of the sample that a GraphQL request opens, None where it is another request."""
    try:
        document = json.loads(body)
        query, variables = document["query"], document["variables"]
        number = variables["filter"]["id"]
    except (ValueError, KeyError, TypeError):
        return None
    return str(number) if "sample(" in query and number else None


def _served_boxes(body: bytes) -> Iterable[str]:
    try:
        boxes = json.loads(body)["data"]["sample"]["sample"]["boxes"]["detections"]
    except (ValueError, KeyError, TypeError):
        return []
    return [_oid(box.get("_id")) for box in boxes]

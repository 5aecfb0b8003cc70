"""The App without a browser: operators by `execute_operator`, edits as the App stores them, patches through the real server."""

from __future__ import annotations

import asyncio
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import boxwright
from annotate.coco import write_document
from annotate.journal import Event, Journal, Kind, Status, Verdict, box_event, new_box_id, verdict_event
from annotate.review import ahead, lookalikes, mongod, queue, session
from annotate.review import dataset as app_dataset
from annotate.review.asgi import answer, read_body
from annotate.review.dataset import Origin, sample_id
from annotate.review.lookalikes import Pair
from annotate.review.preserve import Preserve, opened_sample, patched_ids, show_all_labels
from annotate.review.session import Session
from annotate.review.shortcuts import Shortcuts
from annotate.review.watch import Watch
from annotate.state import of_image
from collect import definition as definitions
from collect.ledger import Ledger
from collect.records import ImageRecord, Licence, Reason, State
from collect.workspace import Dataset, Workspace

pytestmark = [pytest.mark.mongod, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # FiftyOne's and its libraries' own
IMAGES = [f"{digit}" * 64 for digit in "123"]
HIDING = {
    "_cls": "fiftyone.core.stages.FilterLabels",
    "kwargs": [["field", "boxes"], ["filter", {"$eq": ["$$this.label", "crab"]}], ["only_matches", True], ["trajectories", False]],
}


@pytest.fixture(scope="module")
def fiftyone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """FiftyOne on a mongod of its own; one connection per process is all it can have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FIFTYONE_DATABASE_URI", raising=False)
        root = tmp_path_factory.mktemp("mongo")
        with mongod.running(root) as database:
            with warnings.catch_warnings():  # third parties' warnings about their own code, on import
                warnings.simplefilter("ignore")
                fo = app_dataset.connect(root, database.uri, "boxwright-test")
            yield fo
            app_dataset.disconnect()


@pytest.fixture
def dataset(workspace: Workspace) -> Dataset:
    made = workspace.new_dataset("beach")
    definitions.create(made, definitions.template("beach", [(1, "gull"), (2, "crab")]))
    with Ledger(made.ledger) as ledger:
        ledger.add_images(
            ImageRecord(
                image, "jpg", 200, 100, 1, "", 9, State.KEPT, Reason.NONE, Licence(spdx="CC0-1.0", creator="me"), "folder", "beach", "gull",
                "http://127.0.0.1/x", "", "", "2026", quality={"blurred": 0.8},
            )
            for image in IMAGES
        )  # fmt: skip
    for image in IMAGES:
        path = made.image_path(image, "jpg")
        path.parent.mkdir(parents=True)
        Image.new("RGB", (200, 100), "teal").save(path)
    with Journal(made.labels) as journal:
        journal.append(
            box_event(Kind.PROPOSE, "model:m", IMAGES[0], new_box_id(), Status.PROPOSED, name, (x, 10, 40, 50), score)
            for name, x, score in (("gull", 10, 0.9), ("crab", 80, 0.4))
        )
    return made


@pytest.fixture
def opened(fiftyone: Any, workspace: Workspace, dataset: Dataset) -> Iterator[tuple[Any, Session]]:
    definition = definitions.load(dataset)
    with Journal(dataset.labels) as journal:
        seq, head = journal.head()
        cards = queue.cards(workspace, dataset, definition, journal, "ann")
    app = app_dataset.build(fiftyone, Origin(str(workspace.root), dataset.name, "ann", seq, head), definition, cards)
    review = session.open_session(app)
    review.tell_of(cards)
    yield app, review
    session.close_all()
    fiftyone.delete_dataset(app.name)


def run(app: Any, name: str, **params: Any) -> dict[str, Any]:
    import fiftyone.operators as foo

    sample = params.pop("sample", None)
    selected = params.pop("selected", [])
    context = {"dataset": app, "current_sample": sample, "selected": selected, "params": params}
    result = foo.execute_operator(f"@boxwright/review/{name}", ctx=context)
    return dict(result.result)


def kinds(dataset: Dataset, after: int = 2) -> list[tuple[str, str]]:
    with Journal(dataset.labels) as journal:
        return [(event.kind, event.status) for event in journal.events(after=after)]


def test_the_dataset_says_what_a_reviewer_needs(opened: tuple[Any, Session], dataset: Dataset) -> None:
    app, review = opened
    first = app[sample_id(IMAGES[0])]
    with Journal(dataset.labels) as journal:
        ids = list(of_image(journal, IMAGES[0]).boxes)
    assert [box.id for box in first.boxes.detections] == ids, "pre-filled under the proposals' own ids"
    assert not set(ids) & {box.id for box in first.proposals.detections}
    assert first.boxes.detections[0].bounding_box == pytest.approx([0.05, 0.1, 0.2, 0.5])
    assert (first.review, first.licence, first.source, first.quality, first.prefilled) == (
        "pending",
        "CC0-1.0",
        "folder",
        ["blurred"],
        True,
    )
    assert app.label_schemas["boxes"]["classes"] == ["gull", "crab"]
    assert [entry["name"] for entry in app.label_schemas["boxes"]["attributes"]] == ["occluded", "truncated", "crowd"]
    assert app.active_label_schemas == ["boxes"]
    for name in app.list_saved_views():
        stages = {type(stage).__name__ for stage in app.load_saved_view(name)._stages}
        assert stages == {"Match"}, "a saved view only chooses images"
    assert review.next_pending(None) == sample_id(IMAGES[0])


def test_the_plugin_registers_without_an_error(opened: tuple[Any, Session]) -> None:
    from fiftyone.plugins.context import build_plugin_contexts

    (context,) = [context for context in build_plugin_contexts() if context.name == "@boxwright/review"]
    assert context.errors == []
    names = {operator.name for operator in context.instances}
    assert names >= {
        "accept",
        "reject",
        "needs_boxes",
        "mark_negative",
        "undo",
        "next_image",
        "relabel_all",
        "accept_above",
        "progress",
    }


def test_operators__verdicts_undo_and_where_to_go(opened: tuple[Any, Session], dataset: Dataset) -> None:
    app, _ = opened
    one, two, _three = map(sample_id, IMAGES)
    result = run(app, "accept", sample=one, seconds=4.0)
    assert (result["verdict"], result["next"], result["steps"], result["left"]) == ("accepted", two, 1, 2)
    assert kinds(dataset) == [("accept", "present"), ("accept", "present"), ("verdict", "accepted")]
    app.reload()
    assert (app[one].review, app[one].reviewer) == ("accepted", "ann")
    assert run(app, "reject", sample=two)["verdict"] == "rejected"
    undone = run(app, "undo")
    assert (undone["verdict"], undone["next"]) == ("pending", two)
    assert run(app, "needs_boxes", selected=list(map(sample_id, IMAGES[1:])))["images"] == 2
    assert run(app, "next_image", sample=one)["next"] is None


def test_operators__negative_relabel_and_above(opened: tuple[Any, Session], dataset: Dataset) -> None:
    app, _ = opened
    one = sample_id(IMAGES[0])
    assert run(app, "accept_above", score=0.5)["events"] == 1
    assert kinds(dataset) == [("accept", "present")]
    run(app, "relabel_all", sample=one, category="crab")
    app.reload()
    assert {box.label for box in app[one].boxes.detections} == {"crab"}
    run(app, "mark_negative", sample=one)
    app.reload()
    assert app[one].boxes.detections == []
    with Journal(dataset.labels) as journal:
        state = of_image(journal, IMAGES[0])
    assert (state.verdict, state.present(), state.proposed()) == ("accepted", [], [])
    run(app, "undo", sample=one)
    app.reload()
    assert len(app[one].boxes.detections) == 2, "an undone negative shows its boxes again"


def test_operators__bad_input_is_a_sentence(opened: tuple[Any, Session], dataset: Dataset, fiftyone: Any) -> None:
    from fiftyone.operators.executor import ExecutionError

    app, _ = opened
    one = sample_id(IMAGES[0])
    with pytest.raises(ExecutionError, match="select some in the grid first"):
        run(app, "accept")
    with pytest.raises(ExecutionError, match="Invalid enum value"):
        run(app, "relabel_all", sample=one, category="walrus")
    with pytest.raises(ExecutionError, match="Invalid value type"):
        run(app, "accept_above", sample=one, score="lots")
    with pytest.raises(ExecutionError, match="no verdict"):
        run(app, "undo", sample=one)
    dataset.image_path(IMAGES[0], "jpg").unlink()
    with pytest.raises(ExecutionError, match="the file of this image has gone"):
        run(app, "accept", sample=one)
    foreign = fiftyone.Dataset()
    with pytest.raises(ExecutionError, match="not made by `boxwright review`"):
        run(foreign, "accept", sample=one)
    assert kinds(dataset) == []


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert holds()


def store(review: Session, change: dict[str, Any]) -> None:
    """Store an edit the way the App's server does: the whole document, with a new time."""
    document = review.document(sample_id(IMAGES[0]))
    document["boxes"]["detections"] = change["boxes"](document["boxes"]["detections"])
    document["last_modified_at"] = app_dataset.moment()
    review.samples.replace_one({"_id": document["_id"]}, document)
    time.sleep(0.005)  # two edits of a person are never within one millisecond


@pytest.mark.parametrize("streams", [True, False])
def test_watch__each_stored_edit_is_an_event(opened: tuple[Any, Session], dataset: Dataset, streams: bool) -> None:
    from bson import ObjectId

    _, review = opened
    watch = Watch(review, streams=streams)
    watch.start()
    drawn = {"_id": ObjectId(), "_cls": "Detection", "label": "gull", "bounding_box": [0.5, 0.5, 0.6, 0.1], "occluded": True}

    def wait_for(count: int) -> None:
        until(lambda: len(kinds(dataset)) == count)

    store(review, {"boxes": lambda boxes: [*boxes, drawn]})
    if not streams:
        wait_for(1)
    store(review, {"boxes": lambda boxes: [*boxes[:2], {**drawn, "bounding_box": [0.5, 0.4, 0.6, 0.1]}]})
    if not streams:
        wait_for(2)
    store(review, {"boxes": lambda boxes: [boxes[0], {**boxes[1], "label": "gull"}, boxes[2]]})
    if not streams:
        wait_for(3)
    store(review, {"boxes": lambda boxes: boxes[1:]})
    wait_for(4)
    watch.stop()
    assert kinds(dataset) == [("draw", "present"), ("edit", "present"), ("edit", "present"), ("delete", "gone")]
    with Journal(dataset.labels) as journal:
        events = list(journal.events(after=2))
    assert {event.actor for event in events} == {"reviewer:ann"}
    assert events[0].xywh == pytest.approx((100, 50, 100, 10)), "clipped to the image"
    assert events[0].details == {"attributes": {"occluded": True}}
    assert events[2].category == "gull"


def test_what_a_killed_review_left_in_the_app_is_taken_over(opened: tuple[Any, Session], dataset: Dataset) -> None:
    app, review = opened
    store(review, {"boxes": lambda boxes: boxes[1:]})
    session.close_all()
    assert kinds(dataset) == []
    assert session.open_session(app).reconcile() == 1
    assert kinds(dataset) == [("delete", "gone")]


def test_verdicts_and_the_change_stream_do_not_write_twice(opened: tuple[Any, Session], dataset: Dataset) -> None:
    app, review = opened
    watch = Watch(review, streams=True)
    watch.start()
    store(review, {"boxes": lambda boxes: boxes[1:]})
    run(app, "accept", sample=sample_id(IMAGES[0]))
    watch.stop()
    assert kinds(dataset) == [("delete", "gone"), ("accept", "present"), ("verdict", "accepted")]


def key(review: Session, act: str, sample: str = "", **given: Any) -> tuple[int, dict[str, Any]]:
    """What the keys script gets for one key."""
    body = {"sample": sample, **given}
    return asyncio.run(_request(Shortcuts(_nothing, review), "POST", f"/boxwright/{act}", body))


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(f"{scope['path']} is answered by the wrapper alone")


def test_shortcuts__say_what_the_operators_say_and_what_comes_next(opened: tuple[Any, Session], dataset: Dataset) -> None:
    _, review = opened
    one, two, three = map(sample_id, IMAGES)
    code, told = key(review, "accept", one, seconds=2.5)
    assert (code, told["verdict"], told["next"], told["steps"], told["left"]) == (200, "accepted", two, 1, 2)
    assert told["preview"] == {
        "sample": two,
        "filepath": str(dataset.image_path(IMAGES[1], "jpg")),
        "boxes": [],
        "width": 200,
        "height": 100,
    }
    assert told["upcoming"] == str(dataset.image_path(IMAGES[2], "jpg"))
    assert kinds(dataset) == [("accept", "present"), ("accept", "present"), ("verdict", "accepted")]
    (undone,) = [told for _, told in [key(review, "undo", two)]]
    assert (undone["verdict"], undone["next"], undone["steps"]) == ("pending", one, -1)
    assert [box["label"] for box in undone["preview"]["boxes"]] == ["gull", "crab"]
    code, guide = key(review, "guide", one)
    assert [(entry["name"], len(entry["color"])) for entry in guide["classes"]] == [("gull", 7), ("crab", 7)]
    assert (guide["about"]["quality"], guide["left"]) == (["blurred"], 3)
    assert key(review, "next_image", three)[1]["next"] == one, "round to the start"


def test_shortcuts__errors_are_sentences(opened: tuple[Any, Session], dataset: Dataset) -> None:
    _, review = opened
    assert key(review, "undo")[0] == 409
    assert "no 'dance'" in key(review, "dance")[1]["error"]
    assert key(review, "accept", "no id")[0] == 409
    assert key(review, "accept", "f" * 24) == (
        409,
        {"error": f"the App has no image {'f' * 24} of beach; start `boxwright review` again"},
    )
    assert asyncio.run(_request(Shortcuts(_nothing, review), "GET", "/boxwright/accept", {}))[0] == 405
    assert asyncio.run(_request(Shortcuts(_nothing, review), "POST", "/boxwright/accept", "no object"))[0] == 400
    dataset.image_path(IMAGES[0], "jpg").unlink()
    assert "has gone" in key(review, "accept", sample_id(IMAGES[0]))[1]["error"]
    review.samples.update_one({"sha256": IMAGES[1]}, {"$set": {"boxes.detections": [_walrus()]}})
    code, told = key(review, "accept", sample_id(IMAGES[1]))
    assert (code, "no class 'walrus'" in told["error"]) == (409, True)
    assert kinds(dataset) == []


def _walrus() -> dict[str, Any]:
    from bson import ObjectId

    return {"_id": ObjectId(), "_cls": "Detection", "label": "walrus", "bounding_box": [0.1, 0.1, 0.5, 0.5]}


def test_keep__one_of_a_group_and_one_undo_for_all(opened: tuple[Any, Session], dataset: Dataset) -> None:
    _, review = opened
    one, two, three = map(sample_id, IMAGES)
    review.samples.update_many({}, {"$set": {"duplicates": "abc"}})
    assert [twin["waits"] for twin in key(review, "twins", one)[1]["images"]] == [True] * 3
    code, told = key(review, "keep", two, here=one, shown=[one, two, three])
    assert (code, told["images"], told["next"], told["steps"], told["left"], told["more"]) == (200, 2, two, 1, 1, 0)
    assert kinds(dataset) == [("verdict", "rejected"), ("verdict", "rejected")]
    assert "no near-duplicate" in key(review, "keep", two, shown=[one, two, three])[1]["error"]
    assert key(review, "undo", two)[1]["left"] == 3
    assert {str(document["_id"]) for document in review.samples.find(review.waiting)} == {one, two, three}
    assert "was not among those shown" in key(review, "keep", two, here=one, shown=[one, three])[1]["error"]
    assert "was not among those shown" in key(review, "keep", two)[1]["error"]
    assert key(review, "keep", two, shown=[one, two])[1]["more"] == 1


@pytest.fixture
def crowd(workspace: Workspace, dataset: Dataset) -> list[str]:
    """Fourteen images more, all with the same hash."""
    images = [f"{number:02x}" * 32 for number in range(0xA0, 0xAE)]
    with Ledger(dataset.ledger) as ledger:
        ledger.add_images(replace(record, sha256=image, phash="0123456789abcdef") for record in [*ledger.images()][:1] for image in images)
    for image in images:
        path = dataset.image_path(image, "jpg")
        path.parent.mkdir(parents=True)
        Image.new("RGB", (200, 100), "teal").save(path)
    return list(map(sample_id, images))


def test_keep__rejects_only_what_was_shown(crowd: list[str], opened: tuple[Any, Session], dataset: Dataset) -> None:
    _, review = opened

    def shown(here: str) -> list[str]:
        # A page of the App: nine digits, nine pictures.
        return [twin["id"] for twin in key(review, "twins", here)[1]["images"]][:9]

    def waiting() -> set[str]:
        return {str(document["_id"]) for document in review.samples.find(review.waiting)} & set(crowd)

    first = shown(crowd[0])
    assert first == crowd[:9]
    kept = first[3]
    code, told = key(review, "keep", kept, here=crowd[0], shown=first)
    assert (code, waiting()) == (200, {kept, *crowd[9:]}), "nobody has seen these five"
    assert (told["images"], told["next"], told["more"]) == (8, kept, 5)

    assert key(review, "accept", kept)[1]["next"] == crowd[9]
    second = shown(crowd[9])
    assert key(review, "twins", crowd[9])[1]["of"] == 14
    assert {kept, *crowd[9:]} <= set(second), "the next nine, the kept one among them"
    assert len(second) == 9
    told = key(review, "keep", kept, here=crowd[9], shown=second)[1]
    assert (told["images"], told["more"]) == (5, 0)
    assert waiting() == set()
    assert kinds(dataset).count(("verdict", "rejected")) == 13

    key(review, "undo", crowd[9])
    assert waiting() == set(crowd[9:]), "one act, one undo, and the first nine keep their verdicts"


#: What is always said of these pictures; a pair or the queue, where there is one, is said first.
BLURRED = "quality: blurred"


@pytest.fixture
def alike(dataset: Dataset) -> list[str]:
    """The first image was accepted long ago and looks like the two others, which wait; it is in the queue for another reason too."""
    with Journal(dataset.labels) as journal:
        journal.append([verdict_event("reviewer:ann", IMAGES[0], Verdict.ACCEPTED)])
    time.sleep(0.005)
    lookalikes.write(dataset, [Pair(IMAGES[0], IMAGES[2], 0.97), Pair(IMAGES[0], IMAGES[1], 0.91)])
    (dataset.folder / "queue.json").write_text(json.dumps([{"image": IMAGES[0], "score": 0.93, "reason": "low score"}]))
    return list(map(sample_id, IMAGES))


def test_a_pair_that_is_settled_is_no_reason_any_more(alike: list[str], opened: tuple[Any, Session], dataset: Dataset) -> None:
    app, review = opened
    one, _two, three = alike

    def told() -> list[tuple[str | None, bool, int]]:
        about = [key(review, "guide", sample)[1]["about"] for sample in alike]
        return [(each["reason"], each["again"], each["twins"]) for each in about]

    first = [
        ("looks like 333333333333 (.97)", True, 2),
        ("looks like 111111111111 (.91)", False, 0),
        ("looks like 111111111111 (.97)", False, 2),
    ]
    assert told() == first
    run(app, "reject", sample=three)
    assert told() == [("low score", False, 1), ("looks like 111111111111 (.91)", False, 0), (BLURRED, False, 2)]
    run(app, "undo", sample=three)
    assert told() == first, "what was taken back asks again"

    key(review, "keep", three, here=three, shown=[one, three])
    assert [reason for reason, *_ in told()] == ["low score", BLURRED, BLURRED], "the other one of both pairs is rejected"
    key(review, "undo", one)
    assert told() == first
    with Journal(dataset.labels) as journal:
        cards = {
            card.record.sha256: card for card in queue.cards(Workspace.at(review.origin.root), dataset, review.definition, journal, "ann")
        }
    assert [(cards[image].reason, cards[image].again) for image in IMAGES] == [each[:2] for each in first], "after a restart too"

    # Accepting both says that they differ.
    run(app, "accept", sample=three)
    assert told()[0][:2] == ("looks like 333333333333 (.97)", True)
    run(app, "accept", sample=one)
    assert told() == [("low score", False, 2), ("looks like 111111111111 (.91)", False, 0), (BLURRED, False, 2)]

    with Journal(dataset.labels) as journal:
        journal.append([verdict_event("reviewer:bob", IMAGES[1], Verdict.REJECTED)])
    review.next_pending(one)
    assert told()[1][0] == BLURRED, "what somebody else settles is settled too"
    with Journal(dataset.labels) as journal:
        cards = queue.cards(Workspace.at(review.origin.root), dataset, review.definition, journal, "ann")
    assert {card.record.sha256: card.reason for card in cards} == dict(zip(IMAGES, ("low score", BLURRED, BLURRED), strict=True)), (
        "as after a restart"
    )


def test_ahead__the_next_image_is_fetched_and_given_only_while_it_holds(
    opened: tuple[Any, Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, review = opened
    one, two, _three = map(sample_id, IMAGES)
    monkeypatch.setattr(ahead, "QUIET_S", 0.0)
    asked: list[str] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        sample = opened_sample(await read_body(receive))
        asked.append(sample or "")
        document = {**review.document(sample or ""), "last_modified_at": "", "reviewed_at": "", "created_at": ""}
        await answer(send, 200, json.dumps(document, default=str).encode(), "application/json")

    async def look() -> list[dict[str, Any]]:
        application = ahead.Ahead(server, review)
        seen = []
        for sample, change in ((one, ""), (two, ""), (one, ""), (two, "rejected")):
            if change:
                review.samples.update_one({"sha256": IMAGES[1]}, {"$set": {"review": change}})
            body = {"query": "query q { sample(x) }", "variables": {"view": [], "filter": {"id": sample}}}
            seen.append((await _request(application, "POST", "/graphql", body))[1])
            assert application._fetching is not None
            await asyncio.wait([application._fetching])
        return seen

    seen = asyncio.run(look())
    assert [document["sha256"] for document in seen] == [IMAGES[0], IMAGES[1], IMAGES[0], IMAGES[1]]
    assert seen[3]["review"] == "rejected", "what has changed since it was fetched is fetched again"
    # The second was at hand when it was asked for; with the third the second is fetched anew, and that has changed by the fourth.
    assert asked[:2] == [one, two]
    assert asked.count(two) == 3


async def _request(application: Any, method: str, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    data = json.dumps(body).encode()
    given = {"host": "127.0.0.1", "content-type": "application/json", **headers}
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "scheme": "http",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()], "server": ("127.0.0.1", 1),
        "client": ("127.0.0.1", 2), "root_path": "", "asgi": {"version": "3.0"},
    }  # fmt: skip
    sent: list[Any] = []
    messages = iter([{"type": "http.request", "body": data, "more_body": False}])

    async def receive() -> Any:
        try:
            return next(messages)
        except StopIteration:
            await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    await application(scope, receive, send)
    text = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(text or b"{}")


def test_preserve__boxes_removed_unseen_are_put_back(
    opened: tuple[Any, Session], dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fiftyone.server.app import app as server
    from fiftyone.server.events import get_state

    app, review = opened
    guarded = Preserve(server, review)
    one = sample_id(IMAGES[0])
    document = review.document(one)
    gull = document["boxes"]["detections"][0]
    told: list[str] = []
    review.listeners.append(lambda outcome: told.extend(outcome.notes))
    watch = Watch(review, streams=True)
    watch.start()
    # The page filters labels, and its sample was not opened through the query that shows them all.
    monkeypatch.setattr(get_state(), "view", app.filter_labels("boxes", {"$eq": ["$$this.label", "crab"]}), raising=False)
    monkeypatch.setattr(get_state(), "_view", app.filter_labels("boxes", {"$eq": ["$$this.label", "crab"]}), raising=False)
    version = {"if-match": document["last_modified_at"].isoformat()}
    path = f"/dataset/{app._doc.id}/sample/{one}"
    code, _ = asyncio.run(
        _request(
            guarded,
            "PATCH",
            path,
            [{"op": "remove", "path": "/boxes/detections/0"}],
            **version | {"content-type": "application/json-patch+json"},
        )
    )
    assert code == 200
    watch.stop()
    assert str(gull["_id"]) in {str(box["_id"]) for box in review.stored_boxes(one)}
    with Journal(dataset.labels) as journal:
        events = list(journal.events(after=2))
    assert [(event.kind, event.actor, event.box, event.status) for event in events] == [("restore", "guard", str(gull["_id"]), "proposed")]
    assert "were about to be deleted unseen and are kept" in told[0]

    # What the person does see, they may delete.
    crab = next(place for place, box in enumerate(review.stored_boxes(one)) if box["label"] == "crab")
    version = {"if-match": review.document(one)["last_modified_at"].isoformat()}
    steps = [{"op": "remove", "path": f"/boxes/detections/{crab}"}]
    code, _ = asyncio.run(_request(guarded, "PATCH", path, steps, **version | {"content-type": "application/json-patch+json"}))
    assert code == 200
    review.reconcile()
    assert kinds(dataset, events[-1].seq) == [("delete", "gone")]


def test_preserve__the_query_that_opens_a_sample_hides_nothing() -> None:
    match = {"_cls": "fiftyone.core.stages.Match", "kwargs": [["filter", {}]]}
    body = json.dumps({"query": "query q { sample(x) }", "variables": {"view": [match, HIDING], "filter": {"id": "1"}}}).encode()
    shown, hiding = show_all_labels(body)
    assert hiding == ["FilterLabels"]
    assert json.loads(shown)["variables"]["view"] == [match]


def test_preserve__what_a_patch_leaves() -> None:
    steps = [
        {"op": "add", "path": "/boxes/detections/-", "value": {"_id": {"$oid": "d"}}},
        {"op": "replace", "path": "/boxes/detections/1/label", "value": "gull"},
        {"op": "remove", "path": "/boxes/detections/2"},
        {"op": "remove", "path": "/boxes/detections/0"},
        {"op": "replace", "path": "/review", "value": "x"},
    ]
    assert patched_ids(["a", "b", "c"], json.dumps(steps).encode()) == (["b", "d"], {"d"})
    assert patched_ids(["a"], b'[{"op": "remove", "path": "/boxes"}]') == ([], set())
    assert patched_ids(["a"], b"no json") == (["a"], set())


def test_two_reviewers_on_one_image(opened: tuple[Any, Session], dataset: Dataset) -> None:
    _, review = opened
    with Journal(dataset.labels) as journal:
        late = Event(Kind.DRAW, "reviewer:bob", IMAGES[0], new_box_id(), Status.PRESENT, "gull", 1, 2, 30, 40)
        journal.append([late])
    outcome = review.judge(sample_id(IMAGES[0]), "accept")
    assert "reviewer:bob has changed this image too" in outcome.notes[0]
    with Journal(dataset.labels) as journal:
        assert late.box in {box.id for box in of_image(journal, IMAGES[0]).present()}


def test_what_others_have_judged_waits_no_longer(opened: tuple[Any, Session], dataset: Dataset) -> None:
    _, review = opened
    with Journal(dataset.labels) as journal:
        journal.append([verdict_event("reviewer:bob", IMAGES[1], Verdict.ACCEPTED)])
    assert review.next_pending(sample_id(IMAGES[0])) == sample_id(IMAGES[2])
    assert review.document(sample_id(IMAGES[1]))["reviewer"] == "bob"


def test_a_release_as_a_fiftyone_dataset(fiftyone: Any, dataset: Dataset) -> None:
    from annotate.review.export import release_dataset

    image = {"id": 7, "file_name": "11/11/x.jpg", "width": 200, "height": 100, "split": "test", "license": 1, "sha256": IMAGES[0]}
    annotation = {"id": 1, "image_id": 7, "category_id": 2, "bbox": [20, 10, 40, 50], "area": 2000, "iscrowd": 1}
    document = {
        "images": [image, {**image, "id": 8, "split": "train"}], "annotations": [annotation],
        "categories": [{"id": 2, "name": "crab"}], "licenses": [{"id": 1, "name": "CC0-1.0", "url": ""}],
    }  # fmt: skip
    folder = dataset.releases / "v001"
    folder.mkdir(parents=True)
    write_document(folder / "annotations.json", document)
    (folder / "manifest.json").write_text("{}")
    made = release_dataset(fiftyone, dataset, "v001")
    assert made.count_sample_tags() == {"test": 1, "train": 1}
    box = made.match_tags("test").first().ground_truth.detections[0]
    assert (box.label, box.iscrowd, box.bounding_box) == ("crab", 1, pytest.approx([0.1, 0.1, 0.2, 0.5]))
    assert made.first().licence == "CC0-1.0"
    fiftyone.delete_dataset(made.name)


def test_command__bad_input(
    workspace: Workspace, dataset: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    root = ["--root", str(workspace.root), "--no-open"]
    assert boxwright.main(["review", "beech", *root]) == 3
    assert "did you mean 'beach'" in capsys.readouterr().err
    assert boxwright.main(["review", "beach", "--reviewer", " ", *root]) == 2
    before = sorted(workspace.root.rglob("*"))
    assert boxwright.main(["review", "beach", "--reviewer", "ann", "--dry-run", *root]) == 0
    assert "would show 3 images to ann, 3 of them without a verdict" in capsys.readouterr().out
    assert sorted(workspace.root.rglob("*")) == before, "a dry run writes nothing"
    assert boxwright.main(["init", "sea", "--class", "whale", "--root", str(workspace.root)]) == 0
    assert boxwright.main(["review", "sea", "--port", "0", *root]) == 2
    said = capsys.readouterr().err
    assert "sea has no images yet" in said and "starting" not in said, "nothing is started to find that out"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert boxwright.main(["review", "beach", "--port", str(taken.getsockname()[1]), *root]) == 6
    assert "choose another with --port" in capsys.readouterr().err


def test_shown_in__ignores_what_has_no_geometry(dataset: Dataset) -> None:
    definition = definitions.load(dataset)
    document = {"sha256": IMAGES[0], "metadata": {"width": 10, "height": 10}, "boxes": {"detections": [{"_id": "a", "label": "gull"}]}}
    assert app_dataset.shown_in(document, definition).boxes == ()
    assert app_dataset.shown_in({**document, "boxes": None}, definition).boxes == ()
    assert replace(definition).name == Path(dataset.folder).name

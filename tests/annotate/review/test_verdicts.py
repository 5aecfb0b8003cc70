"""What a reviewer says becomes exactly those events; properties over random edits by hypothesis."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.journal import Event, Journal, Kind, Status, Verdict, box_event, new_box_id, verdict_event
from annotate.review import verdicts
from annotate.review.verdicts import Desk, Shown, ShownBox
from annotate.state import ImageLabels, current, of_image
from collect import definition as definitions
from collect.definition import Definition
from collect.errors import UsageError

IMAGE, SIZE = "a" * 64, (200, 100)


@pytest.fixture
def desk(journal: Journal, definition: Definition) -> Desk:
    return Desk(journal, definition, "ann")


def propose(journal: Journal, *boxes: tuple[str, tuple[float, float, float, float], float]) -> list[str]:
    ids = [new_box_id() for _ in boxes]
    events = [
        box_event(Kind.PROPOSE, "model:m", IMAGE, number, Status.PROPOSED, name, xywh, score)
        for number, (name, xywh, score) in zip(ids, boxes, strict=True)
    ]
    journal.append(events)
    return ids


def what(events: tuple[Event, ...] | list[Event]) -> list[tuple[str, str, str]]:
    return [(event.kind, event.box, event.status) for event in events]


def seen(desk: Desk) -> Shown:
    return verdicts.shown(desk.definition, IMAGE, SIZE, of_image(desk.journal, IMAGE))


def test_accept__untouched_proposals_become_boxes(desk: Desk, journal: Journal) -> None:
    one, two = propose(journal, ("gull", (10, 10, 30, 30), 0.9), ("crab", (60, 10, 30, 30), 0.4))
    outcome = verdicts.accept(desk, seen(desk), seconds=3.456)
    assert what(outcome.events) == [("accept", one, "present"), ("accept", two, "present"), ("verdict", "", "accepted")]
    assert {event.actor for event in outcome.events} == {"reviewer:ann"}
    assert outcome.events[-1].details == {"seconds": 3.46, "boxes": 2}
    state = of_image(journal, IMAGE)
    assert [box.score for box in state.present()] == [0.9, 0.4]
    assert state.present()[0].proposed_by == "model:m"
    assert state.present()[0].reviewed_by == "reviewer:ann"


def test_accept__corrected_thrown_out_and_drawn_in_one_append(desk: Desk, journal: Journal) -> None:
    one, two = propose(journal, ("gull", (10, 10, 30, 30), 0.9), ("crab", (60, 10, 30, 30), 0.4))
    now = seen(desk)
    mended = replace(now.boxes[0], xywh=(12.0, 10.0, 30.0, 30.0))
    fresh = ShownBox(new_box_id(), "crab", (100.0, 50.0, 20.0, 20.0), frozenset({"occluded", "crowd"}))
    outcome = verdicts.accept(desk, replace(now, boxes=(mended, fresh)))
    assert what(outcome.events) == [
        ("edit", one, "present"), ("draw", fresh.id, "present"), ("delete", two, "gone"), ("verdict", "", "accepted"),
    ]  # fmt: skip
    assert outcome.events[1].details == {"attributes": {"occluded": True}, "iscrowd": 1}
    assert len({event.time for event in outcome.events}) == 1
    assert verdicts.shown(desk.definition, IMAGE, SIZE, of_image(journal, IMAGE)).boxes[1] == fresh


def test_save__nothing_new_writes_nothing(desk: Desk, journal: Journal) -> None:
    propose(journal, ("gull", (10, 10, 30, 30), 0.9))
    head = journal.head()
    now = seen(desk)
    nearly = replace(now.boxes[0], xywh=(10.0000001, 10.0, 30.0, 29.9999999))
    assert verdicts.save(desk, replace(now, boxes=(nearly,))).events == ()
    assert journal.head() == head


def test_save__boxes_are_clipped_and_slivers_refused(desk: Desk, journal: Journal) -> None:
    over = ShownBox(new_box_id(), "gull", (180.0, 90.0, 45.0, 45.0))
    sliver = ShownBox(new_box_id(), "gull", (10.0, 10.0, 1.0, 40.0))
    outside = ShownBox(new_box_id(), "gull", (300.0, 10.0, 40.0, 40.0))
    now = Shown(IMAGE, *SIZE, (over, sliver, outside))
    outcome = verdicts.save(desk, now)
    assert [event.xywh for event in outcome.events] == [(180.0, 90.0, 20.0, 10.0)]
    assert [refusal.box for refusal in outcome.refused] == [sliver.id, outside.id]
    assert "1.0×40.0 px" in outcome.refused[0].why
    assert verdicts.save(desk, now).events == (), "the clipped box is the same box the next time"


def test_save__a_box_shrunk_to_a_sliver_keeps_its_earlier_shape(desk: Desk, journal: Journal) -> None:
    outcome, now = verdicts.draw(desk, Shown(IMAGE, *SIZE), "gull", (10, 10, 50, 50))
    flat = replace(now, boxes=(replace(now.boxes[0], xywh=(10.0, 10.0, 50.0, 0.5)),))
    assert [refusal.box for refusal in verdicts.save(desk, flat).refused] == [outcome.events[0].box]
    assert of_image(journal, IMAGE).present()[0].xywh == (10, 10, 50, 50)


def test_accept__a_class_that_is_not_in_the_definition_is_refused_and_nothing_written(desk: Desk, journal: Journal) -> None:
    now = Shown(
        IMAGE, *SIZE, (ShownBox(new_box_id(), "walrus", (1.0, 1.0, 20.0, 20.0)), ShownBox(new_box_id(), "gull", (1.0, 1.0, 9.0, 9.0)))
    )
    with pytest.raises(UsageError, match=r"no class 'walrus'.*gull, crab"):
        verdicts.accept(desk, now)
    assert journal.head()[0] == 0
    assert [refusal.box for refusal in verdicts.save(desk, now).refused] == [now.boxes[0].id]
    with pytest.raises(UsageError, match="no class 'gul'; did you mean 'gull'"):
        verdicts.relabel_all(desk, now, "gul")


def test_a_mask_falls_away_only_when_its_box_is_moved(desk: Desk, journal: Journal) -> None:
    number = new_box_id()
    journal.append(
        [
            box_event(
                Kind.IMPORT, "import:coco", IMAGE, number, Status.PRESENT, "gull", (10, 10, 30, 30),
                segmentation=[[10, 10, 40, 10, 40, 40]], area=450.0, attributes={"pose": "left", "occluded": True},
            )
        ]
    )  # fmt: skip
    now = seen(desk)
    relabelled = verdicts.edit(desk, now, number, category="crab")[1]
    assert of_image(journal, IMAGE).boxes[number].details == {
        "segmentation": [[10, 10, 40, 10, 40, 40]], "area": 450.0, "attributes": {"pose": "left", "occluded": True},
    }  # fmt: skip
    verdicts.edit(desk, relabelled, number, xywh=(11, 10, 30, 30))
    assert of_image(journal, IMAGE).boxes[number].details == {"attributes": {"pose": "left", "occluded": True}}


def test_undo__takes_back_the_verdict_and_its_acceptances_but_not_the_edits(desk: Desk, journal: Journal) -> None:
    one, two = propose(journal, ("gull", (10, 10, 30, 30), 0.9), ("crab", (60, 10, 30, 30), 0.4))
    _, now = verdicts.edit(desk, seen(desk), one, category="crab")
    verdicts.accept(desk, now)
    outcome = verdicts.undo(desk, IMAGE)
    assert what(outcome.events) == [("undo", "", "pending"), ("undo", two, "proposed")]
    assert outcome.verdict == "pending"
    state = of_image(journal, IMAGE)
    assert (state.boxes[one].status, state.boxes[one].category) == ("present", "crab")
    with pytest.raises(UsageError, match="no verdict"):
        verdicts.undo(desk, IMAGE)
    verdicts.reject(desk, now)
    verdicts.needs_boxes(desk, now)
    verdicts.undo(desk, IMAGE)
    assert of_image(journal, IMAGE).verdict == "rejected"


def test_undo__not_of_what_somebody_else_said_since(desk: Desk, journal: Journal) -> None:
    verdicts.accept(desk, seen(desk))
    verdicts.reject(Desk(journal, desk.definition, "bob"), seen(desk))
    with pytest.raises(UsageError, match="reviewer:bob has judged"):
        verdicts.undo(desk, IMAGE)
    assert of_image(journal, IMAGE).verdict == "rejected"


def test_mark_negative__and_back(desk: Desk, journal: Journal) -> None:
    ids = propose(journal, ("gull", (10, 10, 30, 30), 0.9), ("crab", (60, 10, 30, 30), 0.4))
    verdicts.mark_negative(desk, seen(desk))
    state = of_image(journal, IMAGE)
    assert (state.verdict, state.present(), state.proposed()) == ("accepted", [], [])
    verdicts.undo(desk, IMAGE)
    assert [box.id for box in of_image(journal, IMAGE).proposed()] == ids


def test_accept_above__takes_the_sure_ones_and_judges_only_when_none_is_left(desk: Desk, journal: Journal) -> None:
    one, two = propose(journal, ("gull", (10, 10, 30, 30), 0.9), ("crab", (60, 10, 30, 30), 0.4))
    assert what(verdicts.accept_above(desk, seen(desk), 0.5).events) == [("accept", one, "present")]
    assert of_image(journal, IMAGE).verdict == "pending"
    now = replace(
        seen(desk), prefilled=True, boxes=tuple(ShownBox(b.id, b.category, b.xywh) for b in of_image(journal, IMAGE).boxes.values())
    )
    assert what(verdicts.accept_above(desk, now, 0.3).events) == [("accept", two, "present"), ("verdict", "", "accepted")]


def test_what_others_wrote_since_is_no_deletion(desk: Desk, journal: Journal) -> None:
    verdicts.draw(desk, Shown(IMAGE, *SIZE), "gull", (10, 10, 30, 30))
    late = replace(desk, since=journal.head()[0])
    mine = seen(desk)
    verdicts.draw(Desk(journal, desk.definition, "bob"), Shown(IMAGE, *SIZE, mine.boxes), "crab", (90, 10, 30, 30))
    outcome = verdicts.accept(late, mine)
    assert what(outcome.events) == [("verdict", "", "accepted")]
    assert "reviewer:bob has changed this image too" in outcome.notes[0]
    assert len(of_image(journal, IMAGE).present()) == 2


def test_a_box_that_comes_back_is_restored(desk: Desk, journal: Journal) -> None:
    outcome, now = verdicts.draw(desk, Shown(IMAGE, *SIZE), "gull", (10, 10, 30, 30))
    _, empty = verdicts.delete(desk, now, outcome.events[0].box)
    assert empty.boxes == ()
    assert what(verdicts.save(desk, now).events) == [("restore", outcome.events[0].box, "present")]


def test_desk__needs_a_name(journal: Journal, definition: Definition) -> None:
    with pytest.raises(UsageError, match="--reviewer"):
        Desk(journal, definition, " ")


BOX = st.tuples(st.sampled_from(["gull", "crab"]), st.integers(-20, 180), st.integers(-20, 90), st.integers(4, 80), st.integers(4, 80))


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.lists(BOX, max_size=4), st.sampled_from(["save", "accept", "reject", "undo", "negative"])), max_size=6))
def test_the_journal_always_ends_at_what_was_shown_and_undo_is_exact(steps) -> None:
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "labels.sqlite") as journal:
        definition = definitions.parse(Path("x"), definitions.template("beach", [(1, "gull"), (2, "crab")]))
        desk = Desk(journal, definition, "ann")
        ids = [new_box_id() for _ in range(4)]
        for boxes, act in steps:
            now = Shown(IMAGE, *SIZE, tuple(ShownBox(ids[n], c, (x, y, w, h)) for n, (c, x, y, w, h) in enumerate(boxes)))
            saved = verdicts.save(desk, now)
            refused = {refusal.box for refusal in saved.refused}
            shown_ids = [box.id for box in now.boxes]
            present = [box.id for box in of_image(journal, IMAGE).present()]
            assert set(present) - refused == set(shown_ids) - refused
            before = current(journal)
            judge = {"accept": verdicts.accept, "reject": verdicts.reject, "negative": verdicts.mark_negative}.get(act)
            if judge is not None:
                judge(desk, now)
            elif act == "undo" and any(event.kind == Kind.VERDICT for event in journal.events()):
                verdicts.accept(desk, now)
                verdicts.undo(desk, IMAGE)
                old, new = before.get(IMAGE, ImageLabels()), of_image(journal, IMAGE)
                assert old.verdict == new.verdict
                assert [box.xywh for box in old.present()] == [box.xywh for box in new.present()]
        assert journal.broken() is None


def test_verdict_event_of_an_import_is_undone_by_nobody(desk: Desk, journal: Journal) -> None:
    journal.append([verdict_event("import:coco", IMAGE, Verdict.ACCEPTED)])
    with pytest.raises(UsageError, match="import:coco has judged"):
        verdicts.undo(desk, IMAGE)

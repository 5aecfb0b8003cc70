"""Undo appends; what was there before is there again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import boxwright
from annotate.journal import Journal, Kind, Status, box_event, verdict_event
from annotate.state import current
from annotate.undo import undo
from collect.clock import now

IMAGE = "0" * 64
steps = st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.integers(1, 4), st.sampled_from(["anna", "bert"])), max_size=12)


def event(box: str, value: int, who: str):
    if not box:
        return verdict_event(f"reviewer:{who}", IMAGE, ["pending", "accepted", "rejected", "needs_boxes"][value - 1])
    status = Status.GONE if value == 4 else Status.PRESENT
    return box_event(Kind.EDIT, f"reviewer:{who}", IMAGE, box, status, "cat", (0, 0, value, value), attributes={"occluded": value == 1})


def visible(journal: Journal, until: int | None = None) -> dict:
    told: dict = {"verdict": "pending"}
    for entry in current(journal, until=until).values():
        told["verdict"] = entry.verdict
        for box in entry.boxes.values():
            if box.status != Status.GONE:
                told[box.id] = (box.category, box.xywh, box.details["attributes"], box.reviewed_by)
    return told


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps, st.integers(0, 12))
def test_undo__since_an_event_restores_the_state_before_it(tmp_path_factory, told: list, cut: int) -> None:
    with Journal(tmp_path_factory.mktemp("u") / "labels.sqlite") as journal:
        journal.append(event(*step) for step in told)
        undone = undo(journal, lambda e: e.seq > cut)
        assert not undone.superseded
        assert visible(journal) == visible(journal, until=cut)
        assert journal.broken() is None


def test_undo__of_a_reviewer_leaves_what_others_built_upon(tmp_path: Path) -> None:
    with Journal(tmp_path / "labels.sqlite") as journal:
        journal.append([event("a", 1, "anna"), event("a", 2, "bert"), event("b", 1, "bert"), event("b", 3, "anna")])
        undone = undo(journal, lambda e: e.actor == "reviewer:anna")
        assert [e.seq for e in undone.superseded] == [1]
        assert visible(journal)["a"][1] == (0, 0, 2.0, 2.0)
        assert visible(journal)["b"] == ("cat", (0, 0, 1.0, 1.0), {"occluded": True}, "reviewer:bert")
        assert undo(journal, lambda e: e.actor == "reviewer:anna").appended == ()


@pytest.mark.parametrize("since", ["14:00", "yesterday", "1 hour ago", "22.11.2026"])
def test_undo__since_what_is_no_time_undoes_nothing(make_dataset, capsys: pytest.CaptureFixture[str], since: str) -> None:
    small = make_dataset(images=1)
    root = ["--root", str(small.dataset.folder.parents[1])]
    assert boxwright.main(["undo", "pets", "--since", since, *root]) == 2
    assert "neither an event's number nor a time" in capsys.readouterr().err
    assert boxwright.main(["undo", "pets", "--reviewer", "nobody", *root]) == 2
    assert "'reviewer:nobody' said nothing" in capsys.readouterr().err
    with small.journal() as journal:
        assert Kind.UNDO not in {event.kind for event in journal.events()}


def test_undo__since_a_time_takes_it_as_written_by_people(make_dataset, capsys: pytest.CaptureFixture[str]) -> None:
    small = make_dataset(images=1)
    root = ["--root", str(small.dataset.folder.parents[1]), "--json", "--dry-run"]
    for since, undoes in (("2999-01-01 14:00", False), ("2020-01-01", True), (now(), False), ("2020-01-01T14:00+02:00", True)):
        assert boxwright.main(["undo", "pets", "--since", since, *root]) == 0
        assert bool(json.loads(capsys.readouterr().out)["undone"]) == undoes, since

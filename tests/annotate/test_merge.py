"""Merge: both sides' edits to different boxes survive, real conflicts are raised, nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotate.journal import Event, Journal, Kind, Status, box_event, verdict_event
from annotate.merge import merge
from annotate.state import current
from annotate.undo import undo
from collect.errors import BusyError

IMAGES = [f"{n:064x}" for n in range(2)]
BOXES = ["a", "b", "c", "d"]

# An edit: (image, box or "" for a verdict, new width or verdict number)
edits = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["", *BOXES]), st.integers(1, 4)), max_size=6)


def event(actor: str, image: int, box: str, value: int):
    if not box:
        return verdict_event(actor, IMAGES[image], ["pending", "accepted", "rejected", "needs_boxes"][value - 1])
    status = Status.GONE if value == 4 else Status.PRESENT
    return box_event(Kind.EDIT, actor, IMAGES[image], box, status, "cat", (0, 0, value, value))


def state(journal: Journal) -> dict:
    told = {}
    for image, entry in current(journal).items():
        told[image, ""] = entry.verdict
        for box in entry.boxes.values():
            told[image, box.id] = "gone" if box.status == Status.GONE else (box.category, box.xywh)
    return told


def grown_apart(folder: Path, base: list, mine: list, theirs: list) -> tuple[Journal, Journal]:
    shutil.rmtree(folder, ignore_errors=True)
    ours, other = Journal(folder / "ours" / "labels.sqlite"), None
    ours.append(event("reviewer:base", *edit) for edit in base)
    ours.seal()
    (folder / "theirs").mkdir()
    shutil.copy(folder / "ours" / "labels.sqlite", folder / "theirs" / "labels.sqlite")
    other = Journal(folder / "theirs" / "labels.sqlite")
    ours.append(event("reviewer:anna", *edit) for edit in mine)
    other.append(event("reviewer:bert", *edit) for edit in theirs)
    return ours, other


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits, edits, edits)
def test_merge__loses_nothing_and_raises_exactly_the_true_conflicts(tmp_path: Path, base: list, mine: list, theirs: list) -> None:
    ours, other = grown_apart(tmp_path / "x", base, mine, theirs)
    with ours, other:
        before, after_ours, after_theirs = None, state(ours), state(other)
        touched_ours = {(IMAGES[i], box) for i, box, _ in mine}
        touched_theirs = {(IMAGES[i], box) for i, box, _ in theirs}
        true_conflicts = {key for key in touched_ours & touched_theirs if after_ours.get(key) != after_theirs.get(key)}
        merged = merge(ours, other)
        assert {(c.image, c.box) for c in merged.conflicts} == true_conflicts
        before = state(ours)
        for key in touched_theirs - true_conflicts:
            assert before[key] == after_theirs[key]
        for key in touched_ours:
            assert before[key] == after_ours[key]
        assert ours.broken() is None
        again = merge(ours, other)
        assert again.appended == 0
        assert {(c.image, c.box) for c in again.conflicts} == true_conflicts


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_merge__take_settles_conflicts_and_keeps_both_histories(tmp_path: Path, side: str) -> None:
    ours, other = grown_apart(tmp_path / "x", [(0, "a", 1)], [(0, "a", 2)], [(0, "a", 3)])
    with ours, other:
        assert len(merge(ours, other).conflicts) == 1
        merged = merge(ours, other, take=side)
        assert not merged.conflicts
        assert state(ours)[IMAGES[0], "a"] == ("cat", (0.0, 0.0, 2.0, 2.0) if side == "ours" else (0.0, 0.0, 3.0, 3.0))
        assert {event.actor for event in ours.history(IMAGES[0], "a")} >= {"reviewer:anna", "reviewer:bert"}
        assert merge(ours, other).appended == 0


def test_merge__and_undo_write_nothing_when_another_process_writes_meanwhile(tmp_path: Path) -> None:
    ours, other = grown_apart(tmp_path / "x", [(0, "a", 1)], [], [(0, "a", 3)])

    class Interrupted(Journal):
        """Somebody edits the same box while the events are read."""

        def events(self, **bounds: Any) -> Iterator[Event]:
            with Journal(self.path) as app:
                app.append([event("reviewer:carl", 0, "a", 2)])
            return super().events(**bounds)

    with ours, other, Interrupted(ours.path) as slow:
        for work in (lambda: merge(slow, other), lambda: undo(slow, lambda _event: True)):
            with pytest.raises(BusyError, match="run the same command again"):
                work()
        assert state(ours)[IMAGES[0], "a"] == ("cat", (0.0, 0.0, 2.0, 2.0))
        assert len(merge(ours, other).conflicts) == 1


def test_merge__both_ways_ends_at_the_same_state(tmp_path: Path) -> None:
    ours, other = grown_apart(tmp_path / "x", [(0, "a", 1), (0, "b", 1)], [(0, "a", 2)], [(0, "b", 3), (1, "c", 1)])
    with ours, other:
        merge(ours, other)
        merge(other, ours)
        assert state(ours) == state(other)

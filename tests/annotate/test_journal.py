"""The journal: nothing appended is lost, nothing changed goes unseen."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.journal import Journal, Kind, Status, Verdict, box_event, verdict_event
from annotate.state import current, fold, of_image
from collect.errors import CorruptError, UsageError

IMAGES = [f"{n:064x}" for n in range(3)]


def draw(image: str, box: str, w: float = 5.0, actor: str = "reviewer:anna", **detail: object):
    return box_event(Kind.DRAW, actor, image, box, Status.PRESENT, "cat", (1.5, 2.25, w, 4.0), **detail)


def test_append__reads_back_what_was_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "labels.sqlite") as journal:
        written = journal.append(
            [draw(IMAGES[0], "a", attributes={"occluded": True}), verdict_event("reviewer:anna", IMAGES[0], "accepted")]
        )
        assert list(journal.events()) == written
        assert [event.seq for event in written] == [1, 2]
        assert journal.broken() is None


def test_append__points_to_the_event_before_for_the_same_box(tmp_path: Path) -> None:
    with Journal(tmp_path / "labels.sqlite") as journal:
        journal.append([draw(IMAGES[0], "a"), draw(IMAGES[0], "b"), draw(IMAGES[0], "a", 6.0)])
        journal.append([draw(IMAGES[0], "a", 7.0)])
        assert [event.previous for event in journal.history(IMAGES[0], "a")] == [0, 1, 3]
        assert [event.w for event in journal.history(IMAGES[0], "a")] == [5.0, 6.0, 7.0]


@pytest.mark.parametrize("w", [0.0, -1.0, float("nan"), float("inf")])
def test_append__refuses_a_box_without_area_and_writes_nothing_of_the_batch(tmp_path: Path, w: float) -> None:
    with Journal(tmp_path / "labels.sqlite") as journal:
        with pytest.raises(UsageError, match="must be finite and have an area"):
            journal.append([draw(IMAGES[0], "a"), draw(IMAGES[0], "b", w)])
        assert journal.head()[0] == 0


def test_append__from_many_writers_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"

    def write(writer: int) -> None:
        with Journal(path) as journal:
            for n in range(25):
                journal.append([draw(IMAGES[writer % 3], f"{writer}-{n}")])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with Journal(path) as journal:
        assert journal.head()[0] == 100
        assert journal.broken() is None
        assert sum(len(entry.boxes) for entry in current(journal).values()) == 100


def test_append__survives_sigkill_between_batches(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from annotate.journal import Journal, verdict_event
        journal = Journal(Path(sys.argv[1]))
        for n in range(10):
            journal.append([verdict_event("reviewer:x", f"{n:064x}", "accepted")])
            print(n, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    path = tmp_path / "labels.sqlite"
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, cwd=Path.cwd(), check=False)
    assert done.returncode == -9, done.stderr
    with Journal(path) as journal:
        assert journal.head()[0] == 10
        assert journal.broken() is None


@pytest.mark.parametrize("column, value", [("x", 99.0), ("category", "dog"), ("time", "2020"), ("actor", "reviewer:eve"), ("previous", 7)])
def test_broken__names_the_changed_event(tmp_path: Path, column: str, value: object) -> None:
    path = tmp_path / "labels.sqlite"
    with Journal(path) as journal:
        journal.append(draw(IMAGES[0], f"b{n}") for n in range(5))
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE events SET {column} = ? WHERE seq = 3", (value,))
    database.close()
    with Journal(path) as journal:
        assert journal.broken() == 3


def test_open__says_when_the_file_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    path.write_bytes(b"this is not a database, but long enough to look like one" * 100)
    with pytest.raises(CorruptError, match="restore it from a backup"):
        Journal(path)


changes = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["", "a", "b", "c"]), st.sampled_from(list(Status)), st.floats(0.5, 9)), max_size=30
)


@settings(max_examples=40, deadline=None)
@given(changes, st.integers(0, 30))
def test_fold__of_a_prefix_then_the_rest_equals_the_whole(tmp_path_factory: pytest.TempPathFactory, told: list, cut: int) -> None:
    with Journal(tmp_path_factory.mktemp("j") / "labels.sqlite") as journal:
        journal.append(
            box_event(Kind.EDIT, "reviewer:a", IMAGES[image], box, status, "cat", (0, 0, w, w))
            if box
            else verdict_event("reviewer:a", IMAGES[image], Verdict.ACCEPTED)
            for image, box, status, w in told
        )
        whole = current(journal)
        assert fold(journal.rows(after=cut), fold(journal.rows(until=cut))) == whole
        for image, entry in whole.items():
            assert of_image(journal, image) == entry

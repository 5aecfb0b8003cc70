"""Verify: whichever byte of journal, images or releases is changed, it is found and its file named."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from annotate.journal import Journal, Kind, Status, box_event
from annotate.release import make_release
from annotate.seal import note_head, noted_head
from annotate.verify import problems
from collect.errors import CorruptError
from collect.workspace import Dataset

#: An index into the log that SQLite makes anew each time, the ledger and what is derived: no part of the record.
_NOT_KEPT = (".locks", "ledger.sqlite", "labels.sqlite-shm", "dataset.toml")


@pytest.fixture
def at_rest(make_dataset: Callable) -> Dataset:
    """A dataset with two releases, and events since that nobody sealed."""
    small = make_dataset(images=4)
    make_release(small.dataset, small.definition)
    small.add_image(10, boxes=3)
    make_release(small.dataset, small.definition)
    return small.dataset


def files(dataset: Dataset) -> list[Path]:
    found = (path.relative_to(dataset.folder) for path in sorted(dataset.folder.rglob("*")) if path.is_file())
    return [path for path in found if not str(path).startswith(_NOT_KEPT)]


def flip(path: Path, chance: random.Random) -> int:
    data = bytearray(path.read_bytes())
    place = chance.randrange(len(data))
    data[place] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return place


def found_in_copy(dataset: Dataset, name: Path, chance: random.Random, copy: Path) -> tuple[int, list[str]]:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(dataset.folder, copy)
    place = flip(copy / name, chance)
    return place, list(problems(Dataset(dataset.name, copy, copy)))


def test_any_changed_byte_is_found_and_its_file_named(at_rest: Dataset, tmp_path: Path) -> None:
    assert list(problems(at_rest)) == []
    chance = random.Random(5)
    names = files(at_rest)
    assert {path.name for path in names} >= {
        "labels.sqlite",
        "labels.seal",
        "labels.head",
        "manifest.json",
        "annotations.json",
        "ATTRIBUTION.md",
    }
    for name in names:
        for _ in range(40 if name.name == "labels.sqlite" else 8):
            place, found = found_in_copy(at_rest, name, chance, tmp_path / "copy")
            assert any(name.name in problem for problem in found), f"byte {place} of {name} was changed: {found}"


@pytest.mark.parametrize("place", [16, 18, 19, 20, 24, 28, 40, 44, 60, 63, 92, 96, 100])
def test_each_field_of_the_databases_header(at_rest: Dataset, tmp_path: Path, place: int) -> None:
    original = at_rest.labels.read_bytes()
    for bit in range(8):
        changed = bytearray(original)
        changed[place] ^= 1 << bit
        at_rest.labels.write_bytes(changed)
        assert any("labels.sqlite" in problem for problem in problems(at_rest)), f"bit {bit} of byte {place}"
    at_rest.labels.write_bytes(original)


def test_a_changed_log_that_a_killed_process_left(at_rest: Dataset, tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from annotate.journal import Journal, verdict_event
        journal = Journal(Path(sys.argv[1]))
        for n in range(5):
            journal.append([verdict_event("reviewer:x", f"{n:064x}", "accepted")])
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", script, at_rest.labels], cwd=Path.cwd(), check=False, env={**os.environ})
    assert done.returncode == -signal.SIGKILL
    log = Path("labels.sqlite-wal")
    assert (at_rest.folder / log).stat().st_size
    chance = random.Random(7)
    for _ in range(60):
        place, found = found_in_copy(at_rest, log, chance, tmp_path / "copy")
        assert any("labels.sqlite-wal" in problem for problem in found), f"byte {place} of the log was changed: {found}"
    assert list(problems(at_rest)) == []


def test_nothing_is_appended_upon_lost_events(at_rest: Dataset) -> None:
    older = at_rest.labels.read_bytes()
    with Journal(at_rest.labels) as journal:
        journal.append([box_event(Kind.DRAW, "reviewer:x", "a" * 64, "b" * 24, Status.PRESENT, "cat", (1, 1, 2, 2))])
        seq, _ = journal.head()
    at_rest.labels.write_bytes(older)
    with pytest.raises(CorruptError, match=f"lacks event {seq}"):
        Journal(at_rest.labels)
    at_rest.labels.with_suffix(".head").unlink()
    with Journal(at_rest.labels) as journal:
        assert journal.head()[0] == seq - 1


def test_a_late_writer_never_notes_an_earlier_event(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    for seq in (3, 12, 7):
        note_head(path, seq, f"{seq:064x}")
    assert noted_head(path) == (12, f"{12:064x}")


def test_a_missing_ledger_or_journal_is_said(at_rest: Dataset) -> None:
    at_rest.ledger.unlink()
    assert any("ledger.sqlite is missing" in problem for problem in problems(at_rest))
    at_rest.labels.unlink()
    assert any("labels.sqlite is missing" in problem for problem in problems(at_rest))


def test_nothing_is_built_upon_a_changed_release(make_dataset: Callable) -> None:
    small = make_dataset(images=3)
    first = make_release(small.dataset, small.definition)
    flip(first.path / "annotations.json", random.Random(1))
    small.add_image(9)
    with pytest.raises(CorruptError, match=r"annotations\.json is not as it was written; restore"):
        make_release(small.dataset, small.definition)
    assert small.dataset.release_names() == ["v001"]

"""Freed of an imported split: only by a word, never twice, and what is lost by it is said."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

import boxwright
from annotate import coco
from annotate.free import free
from annotate.journal import Verdict, verdict_event
from annotate.release import make_release
from annotate.verify import problems
from collect.errors import BusyError
from collect.files import exclusive
from collect.ledger import Ledger


def splits_of(small) -> dict[str, str]:
    release = make_release(small.dataset, small.definition)
    return {image["sha256"]: image["split"] for image in coco.read_document(release.path / "annotations.json")["images"]}


def test_free__before_a_release__the_policy_decides(make_dataset: Callable) -> None:
    small = make_dataset()
    fixed = {small.add_image(seed, split="train", source="import:yolo") for seed in range(20)}
    other = {small.add_image(seed, split="train", source="import:coco") for seed in range(20, 25)}
    assert free(small.dataset, "train", "import:yolo", dry_run=True).images == 20
    assert (told := free(small.dataset, "train", "import:yolo")).images == 20 and (told.kept, told.of_releases) == (0, 0)
    assert free(small.dataset, "train", "import:yolo").images == 0
    splits = splits_of(small)
    assert {splits[sha] for sha in fixed} == {"train", "val", "test"}
    assert {splits[sha] for sha in other} == {"train"}
    with Ledger(small.dataset.ledger) as ledger:
        record = next(record for record in ledger.images() if record.sha256 in fixed)
    assert (record.split, record.extra["freed"]["split"], record.extra["freed"]["after"]) == ("", "train", "")


def test_free__what_a_release_holds_stays_unless_the_person_says_so__and_moves_once(make_dataset: Callable) -> None:
    small = make_dataset()
    fixed = [small.add_image(seed, split="test") for seed in range(20)]
    by_policy = [small.add_image(seed) for seed in range(20, 40)]
    before = splits_of(small)
    told = free(small.dataset, "test")
    assert (told.images, told.kept, told.release) == (0, 20, "v001")
    assert splits_of(small) == before
    told = free(small.dataset, "test", released=True)
    assert (told.images, told.kept, told.of_releases) == (20, 0, 20)
    second = splits_of(small)
    assert small.dataset.release_names() == ["v001", "v002"]
    assert {second[sha] for sha in fixed} > {"train"}
    assert all(second[sha] == before[sha] for sha in by_policy), "what [split] decided stays"
    notes = (small.dataset.release_path("v002") / "changes.md").read_text()
    assert "20 images were freed of the split that they had: numbers of releases up to v001 do not compare" in notes
    moved = sum(second[sha] != "test" for sha in fixed)
    assert f"- images moved: {moved}\n" in notes
    small.add_image(99)
    third = splits_of(small)
    assert all(third[sha] == second[sha] for sha in before), "the new splits stay as all do"
    assert "were freed" not in (small.dataset.release_path("v003") / "changes.md").read_text()
    with small.journal() as journal:
        journal.append([verdict_event("reviewer:anna", fixed[0], Verdict.REJECTED)])
    assert fixed[0] not in splits_of(small)
    with small.journal() as journal:
        journal.append([verdict_event("reviewer:anna", fixed[0], Verdict.ACCEPTED)])
    assert splits_of(small)[fixed[0]] == second[fixed[0]], "an image that comes back has the split it was given last"
    assert not list(problems(small.dataset))


def test_free__not_beside_a_release(make_dataset: Callable) -> None:
    small = make_dataset(images=1)
    with exclusive(small.dataset.locks / "release", "write a release"), pytest.raises(BusyError):
        free(small.dataset, "train")


def test_splits_verb__frees_and_says_what_is_lost(make_dataset: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    small = make_dataset()
    for seed in range(12):
        small.add_image(seed, split="train")
    notes = make_release(small.dataset, small.definition).notes
    assert any("until `boxwright splits pets --free SPLIT`" in note for note in notes)
    words = ["splits", "pets", "--root", str(small.dataset.folder.parent.parent)]
    assert boxwright.main([*words, "--free", "train"]) == 0
    assert "12 stay as they are, since a release holds them" in capsys.readouterr().out
    assert boxwright.main([*words, "--free", "train", "--released", "--dry-run"]) == 0
    assert "12 images that were imported as train would be free" in capsys.readouterr().out
    assert boxwright.main([*words, "--free", "train", "--released"]) == 0
    assert "what was measured on those compares with none later" in capsys.readouterr().out
    assert boxwright.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"]["test"] > 0
    assert boxwright.main([*words, "--released"]) == 2

"""`boxwright status` counts the verdicts of kept images, whatever else the journal holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

import boxwright
from annotate.journal import Verdict
from collect.ledger import Ledger
from collect.records import Reason, State
from tests.annotate.conftest import SmallDataset


def test_status__verdicts_and_boxes_are_those_of_kept_images(
    make_dataset: Callable[..., SmallDataset], capsys: pytest.CaptureFixture[str]
) -> None:
    small = make_dataset(images=3)
    small.add_image(50, boxes=2, verdict=Verdict.REJECTED)
    revoked = small.add_image(51, boxes=4)
    with Ledger(small.dataset.ledger) as ledger:
        ledger.set_image_state(revoked, State.REVOKED, Reason.TAKEN_DOWN)
        ledger.add_images([replace(next(ledger.images()), sha256="0" * 64)])  # one that nobody has labelled
    assert boxwright.main(["status", "pets", "--json", "--root", str(small.dataset.folder.parents[1])]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["images"] == {"KEPT": 5, "QUARANTINED": 0, "REVOKED": 1}
    assert status["reviewed"] == {"accepted": 3, "rejected": 1, "pending": 1}
    assert status["boxes"] == 3, "those of a rejected image go into no release"
    told = status["classes"]["cat"]
    assert (told["collected"], told["images"], told["boxes"]) == (5, 3, 3)


def test_status__of_what_was_imported_shows_its_labels_and_no_empty_table(
    make_dataset: Callable[..., SmallDataset], capsys: pytest.CaptureFixture[str]
) -> None:
    small = make_dataset()
    small.add_image(1, boxes=2, class_name="")
    assert boxwright.main(["status", "pets", "--why", "--root", str(small.dataset.folder.parents[1])]) == 0
    told = capsys.readouterr().out
    assert "URLs" not in told
    assert [word for word in told.replace("│", " ").split() if word == "cat" or word.isdigit()][:5] == ["cat", "0", "200", "1", "2"]
    assert "no URL was ever asked for" in told


def test_status__after_a_training_the_next_step_is_no_second_one(
    make_dataset: Callable[..., SmallDataset], capsys: pytest.CaptureFixture[str]
) -> None:
    small = make_dataset(images=3)
    words = ["pets", "--root", str(small.dataset.folder.parents[1])]
    assert boxwright.main(["release", *words]) == 0 and boxwright.main(["status", *words]) == 0
    assert "next: `boxwright train pets`" in capsys.readouterr().out
    run = small.dataset.runs / "v001-fcos_mobilenet_v2-1"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text("{}")
    assert boxwright.main(["status", *words]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "trained runs: 1; champion: none" in told and "then `boxwright retrain pets`" in told

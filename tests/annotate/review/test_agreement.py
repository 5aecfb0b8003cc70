"""Agreement by hand-counted examples, and the effort folded from a journal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import boxwright
from annotate.journal import Journal, Kind, Status, Verdict, box_event, new_box_id, verdict_event
from annotate.review import verdicts
from annotate.review.agreement import NO_BOX, Tally, agreement
from annotate.review.effort import effort, release_hours, write_report
from annotate.review.session import opinions_path
from annotate.review.verdicts import Desk, Shown
from annotate.state import current
from collect import definition as definitions
from collect.definition import Definition
from collect.workspace import Workspace

ONE, TWO = "a" * 64, "b" * 64


def box(actor: str, image: str, name: str, x: float) -> object:
    return box_event(Kind.DRAW, actor, image, new_box_id(), Status.PRESENT, name, (x, 10, 30, 30))


def test_agreement__f1_kappa_and_the_disagreements(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = workspace.new_dataset("beach")
    definition = definitions.create(dataset, definitions.template("beach", [(1, "gull"), (2, "crab")]))
    with Journal(dataset.labels) as journal:
        journal.append(
            [
                box("reviewer:ann", ONE, "gull", 10), box("reviewer:ann", ONE, "crab", 60), box("reviewer:ann", ONE, "gull", 120),
                verdict_event("reviewer:ann", ONE, Verdict.ACCEPTED), verdict_event("reviewer:ann", TWO, Verdict.REJECTED),
            ]
        )  # fmt: skip
        labels = current(journal)
    with Journal(opinions_path(dataset, "bob")) as journal:
        journal.append(
            [
                box("reviewer:bob", ONE, "gull", 12), box("reviewer:bob", ONE, "gull", 61),
                verdict_event("reviewer:bob", ONE, Verdict.ACCEPTED), verdict_event("reviewer:bob", TWO, Verdict.ACCEPTED),
            ]
        )  # fmt: skip
    found = agreement(dataset, definition, labels)
    (pair,) = found["pairs"]
    assert (pair["reviewer"], pair["other"], pair["images"], pair["same_verdict"]) == ("bob", "ann", 2, 0.5)
    assert pair["f1"] == pytest.approx(2 * 1 / 5)  # one agreed box of three and two
    # bob's classes of the three objects: gull, gull, no box; ann's: gull, crab, gull
    expected = (2 / 3) * (2 / 3)
    assert pair["kappa"] == pytest.approx((1 / 3 - expected) / (1 - expected), abs=1e-4)
    assert pair["per_class"] == {"gull": pytest.approx(0.5), "crab": 0.0}
    assert [row["image"] for row in found["disagreements"]] == [TWO, ONE]
    assert found["disagreements"][0]["reason"] == "reviewers disagree: accepted or rejected?"
    assert boxwright.main(["agreement", "beach", "--root", str(workspace.root), "--json", "--queue"]) == 0
    assert '"queued": 2' in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "80")
    assert boxwright.main(["agreement", "beach", "--root", str(workspace.root)]) == 0
    spoken = capsys.readouterr().out
    assert all(word in spoken for word in ("reviewer", "against", "images", "F1", "kappa", "verdict", "crab")), "no heading is torn"


def test_tally__nothing_to_differ_about() -> None:
    assert (Tally().f1(), Tally().kappa()) == (1.0, 1.0)
    same = Tally()
    same.pairs[("gull", "gull")] = 3
    assert (same.f1(), same.kappa()) == (1.0, 1.0)
    apart = Tally()
    apart.pairs[("gull", NO_BOX)] = 1
    apart.pairs[(NO_BOX, "gull")] = 1
    assert apart.f1() == 0.0
    assert apart.kappa() < 0


def test_effort__a_box_counts_once_per_verdict(journal: Journal, definition: Definition, tmp_path: Path) -> None:
    kept, fixed, wrong = (new_box_id() for _ in range(3))
    journal.append(
        box_event(Kind.PROPOSE, "model:m", ONE, number, Status.PROPOSED, "gull", (x, 10, 30, 30), 0.5)
        for number, x in ((kept, 10), (fixed, 60), (wrong, 120))
    )
    desk = Desk(journal, definition, "ann")
    now = verdicts.shown(definition, ONE, (200, 100), current(journal)[ONE])
    for x in (61, 62, 63):
        _, now = verdicts.edit(desk, now, fixed, xywh=(x, 10, 30, 30))
    outcome, now = verdicts.draw(desk, now, "crab", (160, 60, 20, 20))
    _, now = verdicts.edit(desk, now, outcome.events[0].box, xywh=(161, 60, 20, 20))
    _, now = verdicts.draw(desk, now, "crab", (100, 60, 20, 20))
    now = replace(now, boxes=tuple(each for each in now.boxes[:-1] if each.id != wrong))
    verdicts.accept(desk, now, seconds=12.0)
    verdicts.reject(desk, Shown(TWO, 200, 100), seconds=3.0)
    summary = effort(journal).as_document()["ann"]
    assert summary["verdicts"] == {"accepted": 1, "rejected": 1}
    assert summary["acts"] == {"untouched": 1, "corrected": 1, "drawn": 1, "thrown out": 1}
    assert summary["boxes"] == 3
    assert summary["boxes_per_minute"] == pytest.approx(60 * 3 / 15)
    assert summary["share_untouched"] == pytest.approx(1 / 3, abs=1e-4)
    assert summary["seconds_by_verdict"] == {"accepted": 12.0, "rejected": 3.0}
    write_report(tmp_path / "report.html", "<beach>", effort(journal))
    text = (tmp_path / "report.html").read_text()
    assert "&lt;beach&gt;" in text
    assert "33 %" in text and "1 accepted, 12.0 s each" in text


def test_effort__an_undone_verdict_counts_by_its_time_alone(journal: Journal, definition: Definition) -> None:
    journal.append([box_event(Kind.IMPORT, "import:coco", ONE, new_box_id(), Status.PRESENT, "gull", (x, 10, 30, 30)) for x in (10, 60)])
    desk = Desk(journal, definition, "ann")
    now = verdicts.shown(definition, ONE, (200, 100), current(journal)[ONE])
    _, now = verdicts.draw(desk, now, "crab", (160, 60, 20, 20))
    verdicts.mark_negative(desk, now, seconds=6.0)  # pressed by mistake: all three boxes go
    verdicts.undo(desk, ONE)
    assert effort(journal).as_document()["ann"]["verdicts"] == {}
    verdicts.accept(desk, now, seconds=4.0)
    summary = effort(journal).as_document()["ann"]
    assert summary["verdicts"] == {"accepted": 1}
    assert summary["acts"] == {"drawn": 1, "confirmed": 2}
    assert summary["share_untouched"] == 1.0
    assert summary["boxes_per_minute"] == pytest.approx(60 * 3 / 10)


def test_effort__boxes_that_stood_there_are_confirmed_and_a_release_has_its_hours(
    workspace: Workspace, definition: Definition, tmp_path: Path
) -> None:
    dataset = workspace.new_dataset("beach")
    with Journal(dataset.labels) as journal:
        journal.append(
            [box_event(Kind.IMPORT, "import:coco", ONE, new_box_id(), Status.PRESENT, "gull", (x, 10, 30, 30)) for x in (10, 60)]
        )
        desk = Desk(journal, definition, "ann")
        now = verdicts.shown(definition, ONE, (200, 100), current(journal)[ONE])
        _, now = verdicts.edit(desk, now, now.boxes[0].id, category="crab")
        verdicts.accept(desk, now, seconds=36.0)
        folder = dataset.releases / "v001"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"journal": {"event": journal.head()[0]}}))
        verdicts.accept(desk, now, seconds=36.0)
        summary = effort(journal).as_document()["ann"]
        assert summary["acts"] == {"corrected": 1, "confirmed": 3}, "whoever looks twice has confirmed twice"
        assert summary["boxes_per_minute"] == pytest.approx(60 * 4 / 72, abs=0.01)
        costs = release_hours(dataset, journal)
        assert costs == [("v001", pytest.approx(0.01))]
        write_report(tmp_path / "report.html", "beach", effort(journal), costs)
    assert "<td>v001</td><td class=n>0.6 min</td>" in (tmp_path / "report.html").read_text()

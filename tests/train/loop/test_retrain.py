"""`retrain` from the command line's side: real releases, real (tiny) trainings, real gates."""

from __future__ import annotations

import json
import re

import pytest

import boxwright
from annotate.journal import Journal, Kind, Status, box_event, verdict_event
from annotate.state import current
from collect.clock import now
from collect.console import Console
from collect.errors import BusyError, NotFoundError, RefusedError, UsageError
from collect.files import exclusive
from collect.ledger import Ledger
from collect.records import Reason, State
from train.commands.retrain import next_step
from train.fitting import run as runs
from train.loop import champion as champions
from train.loop.champion import best_finished_run
from train.loop.retrain import STATE, Request, foresee, retrain

QUICK = {"epochs": 1, "image_size": 64, "batch_size": 8, "weights": "none", "device": "cpu"}


@pytest.fixture
def shapes_set(make_dataset, add_shapes, workspace):
    dataset, _ = make_dataset("shapes", ["disc", "bar"], [])
    text = dataset.definition.read_text().replace("train = 0.7", "train = 0.5").replace("test = 0.15", "test = 0.35")
    dataset.definition.write_text(text)
    add_shapes(dataset, range(30))
    return dataset


def ask(workspace, **more) -> Request:
    return Request(workspace, "shapes", QUICK, **more)


def test_first_then_challenger(shapes_set, add_shapes, workspace, capsys):
    quiet = Console(workspace, quiet=True)
    first = retrain(ask(workspace), quiet)
    assert (first["verdict"], first["finding"], first["delta_ap"]) == ("promoted", "first", None)
    crowned = json.loads(shapes_set.champion.read_text())
    assert crowned.pop("promoted_at") <= now()
    assert crowned == {"run": first["run"], "release": "v001", "ap": first["challenger_ap"], "forced": False}
    add_shapes(shapes_set, range(100, 112), source="elsewhere")
    text = shapes_set.definition.read_text()
    shapes_set.definition.write_text(text.replace("[collect]", '[[class]]\nid = 3\nname = "roof"\n\n[collect]'))
    add_shapes(shapes_set, range(200, 210), ["roof", "disc"], source="elsewhere")
    second = retrain(ask(workspace), Console(workspace))
    assert "rows copied: disc, bar; new: roof" in capsys.readouterr().err
    assert second["release"] == "v002"
    assert second["warm_start"]["copied"] == {"disc": ["disc"], "bar": ["bar"]}
    assert second["warm_start"]["fresh"] == ["roof"]
    assert second["interval"][0] <= second["delta_ap"] <= second["interval"][1]
    assert list(second["only_challenger"]) == ["roof"]
    assert second["champion"] == (second["run"] if second["verdict"] == "promoted" else first["run"])
    assert champions.read(shapes_set).run == second["champion"]
    folder = shapes_set.runs / second["run"]
    assert json.loads((folder / "gate.json").read_text())["finding"] == second["finding"]
    assert second["drift"]["shift"]["source"]["drifted"]
    assert "brought 100% of the new images" in (folder / "retrain.md").read_text()
    report = (folder / "report.html").read_text()
    assert "<h2>Gate: " in report and "new class roof" in report
    assert not [path.name for path in shapes_set.runs.glob("*.json")], "what an interrupted retrain keeps is gone"


def test_a_class_without_a_train_image_is_told_beside_the_verdict(shapes_set, workspace):
    retrain(ask(workspace), Console(workspace, quiet=True))
    text = shapes_set.definition.read_text()
    shapes_set.definition.write_text(text.replace("[collect]", '[[class]]\nid = 3\nname = "roof"\n\n[collect]'))
    second = retrain(ask(workspace), Console(workspace, quiet=True))
    (warning,) = (words for words in second["warnings"] if "roof" in words)
    assert "has no train image" in warning
    folder = shapes_set.runs / second["run"]
    assert json.loads((folder / "gate.json").read_text())["warnings"] == second["warnings"]
    assert "class 'roof' has no train image" in (folder / "retrain.md").read_text()


def test_interrupted__goes_on_with_its_run(shapes_set, workspace, monkeypatch):
    quiet = Console(workspace, quiet=True)
    real_judge = runs.judge

    def killed(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "judge", killed)
    with pytest.raises(KeyboardInterrupt):
        retrain(ask(workspace), quiet)
    assert json.loads((shapes_set.runs / STATE).read_text())["release"] == "v001"
    monkeypatch.setattr(runs, "judge", real_judge)
    result = retrain(ask(workspace), quiet)
    assert [path.parent.name for path in shapes_set.runs.glob("*/config.json")] == [result["run"]], "no second run was begun"
    assert shapes_set.release_names() == ["v001"]


def test_a_champion_of_other_classes_is_refused__force_begins_anew(shapes_set, workspace):
    quiet = Console(workspace, quiet=True)
    first = retrain(ask(workspace), quiet)
    with Journal(shapes_set.labels) as journal:
        state = current(journal)
        events = [
            box_event(Kind.EDIT, "reviewer:ann", image, box.id, Status.PRESENT, "thing", box.xywh)
            for image, entry in state.items()
            for box in entry.present()
        ]
        journal.append(events)
    text = shapes_set.definition.read_text().replace('"disc"', '"thing"').replace("id = 1 ", "id = 7 ")
    shapes_set.definition.write_text(text.replace('"bar"', '"nothing"').replace("id = 2 ", "id = 8 "))
    with pytest.raises(RefusedError, match="none of that is a class of shapes now"):
        retrain(ask(workspace), quiet)
    assert shapes_set.release_names() == ["v001"]
    forced = retrain(ask(workspace, force=True, cold=True), quiet)
    assert (forced["finding"], forced["forced"], forced["champion_before"]) == ("not_compared", True, first["run"])
    assert champions.read(shapes_set).forced


@pytest.mark.slow
def test_renamed_split_and_merged__as_the_file_declares_it(shapes_set, add_shapes, workspace, capsys):
    told = Console(workspace)
    first = retrain(ask(workspace), told)
    text = shapes_set.definition.read_text().replace('name = "disc"', 'name = "plate"\nwas = ["disc"]')
    shapes_set.definition.write_text(text.replace("[collect]", '[[class]]\nid = 3\nname = "roof"\nsupercategory = "bar"\n\n[collect]'))
    add_shapes(shapes_set, range(200, 210), ["roof"], source="elsewhere")
    second = retrain(ask(workspace, force=True), told)
    assert second["warm_start"]["copied"] == {"plate": ["disc"], "bar": ["bar"], "roof": ["bar"]}
    assert "rows copied: plate ← disc, bar, roof ← bar" in capsys.readouterr().err
    assert second["champion_before"] == first["run"]
    assert set(second["classes"]) == {"plate", "bar"}, "the champion's discs are judged as plates"
    assert list(second["only_challenger"]) == ["roof"]
    lost = json.loads((shapes_set.releases / "v002" / "train.json").read_text())["images"][0]["sha256"]
    with Journal(shapes_set.labels) as journal:
        journal.append([verdict_event("reviewer:ann", lost, "rejected")])
    text = shapes_set.definition.read_text().replace('[[class]]\nid = 3\nname = "roof"\nsupercategory = "bar"\n\n', "")
    shapes_set.definition.write_text(text.replace('name = "bar"', 'name = "bar"\nwas = ["roof"]'))
    third = retrain(ask(workspace), told)
    assert third["warm_start"]["copied"] == {"plate": ["plate"], "bar": ["bar", "roof"]}
    assert not third["warm_start"]["removed"] and set(third["classes"]) == {"plate", "bar"}
    assert "v003 has 1 image fewer than v002" in capsys.readouterr().err


def test_two_at_once(shapes_set, workspace):
    with exclusive(shapes_set.locks / "retrain", "retrain shapes"), pytest.raises(BusyError, match="retrain shapes"):
        retrain(ask(workspace), Console(workspace, quiet=True))


def test_a_test_set_that_shrank_is_refused__revoked_images_may_go(shapes_set, add_shapes, workspace):
    quiet = Console(workspace, quiet=True)
    retrain(ask(workspace), quiet)
    document = json.loads((shapes_set.releases / "v001" / "test.json").read_text())
    lost = document["images"][0]["sha256"]
    with Journal(shapes_set.labels) as journal:
        journal.append([verdict_event("reviewer:ann", lost, "rejected")])
    for refuses in (foresee, retrain):
        with pytest.raises(RefusedError, match="it is frozen"):
            refuses(ask(workspace), quiet)
    assert shapes_set.release_names() == ["v001"] and not (shapes_set.runs / STATE).exists(), "what is refused leaves nothing"
    forced = retrain(ask(workspace, force=True), quiet)
    assert forced["forced"] and "promoted by --force, against this: the test set changed" in forced["frozen"]
    assert champions.read(shapes_set).forced
    document = json.loads((shapes_set.releases / "v002" / "test.json").read_text())
    with Ledger(shapes_set.ledger) as ledger:
        ledger.set_image_state(document["images"][0]["sha256"], State.REVOKED, Reason.TAKEN_DOWN)
    assert retrain(ask(workspace), quiet)["release"] == "v003"


@pytest.mark.parametrize(
    "options, says",
    [
        ({"detector": "ssdlight"}, "detector 'ssdlight'"),
        ({"epochs": 0}, "--epochs 0"),
        ({"image_size": 50, "detector": "fcos_mobilenet_v2"}, "not a multiple"),
        ({"weights": "/no/such/weights.pt"}, "/no/such/weights.pt"),
        ({"crops": "/no/such/crops", "detector": "two-phase"}, "/no/such/crops"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_word_leaves_nothing(shapes_set, workspace, options, says):
    with pytest.raises((UsageError, NotFoundError), match=says):
        retrain(Request(workspace, "shapes", {**QUICK, **options}), Console(workspace, quiet=True))
    assert not shapes_set.release_names() and not list(shapes_set.runs.glob("*"))


def test_a_detector_that_the_champion_cannot_warm_start_is_refused_before_there_is_a_release(shapes_set, add_shapes, workspace):
    quiet = Console(workspace, quiet=True)
    retrain(ask(workspace), quiet)
    add_shapes(shapes_set, range(100, 103))
    other = Request(workspace, "shapes", {**QUICK, "detector": "yolox_mobilenet_v2"})
    for refuses in (foresee, retrain):
        with pytest.raises(RefusedError, match="cannot warm-start this detector"):
            refuses(other, quiet)
    assert shapes_set.release_names() == ["v001"] and not (shapes_set.runs / STATE).exists(), "what is refused leaves nothing"


def test_a_run_that_is_there_becomes_the_first_champion(shapes_set, unlabelled_shapes, workspace, capsys):
    from annotate.release import make_release
    from collect import definition

    make_release(shapes_set, definition.load(shapes_set))
    trained = runs.train_run(workspace, "shapes", QUICK)
    words = [
        "retrain",
        "shapes",
        "--epochs",
        "1",
        "--image-size",
        "96",
        "--device",
        "cpu",
        "--force",
        "--root",
        str(workspace.root),
        "--json",
    ]
    assert boxwright.main([*words, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out) == {"release": "v001", "champion": trained["run"]}
    assert not shapes_set.champion.exists()
    assert boxwright.main(words) == 0
    told = capsys.readouterr()
    result = json.loads(told.out)
    assert result["champion_before"] == trained["run"]
    assert f"the best of its runs on v001, {trained['run']} (AP" in told.err
    assert {"verdict", "delta_ap", "interval"} <= set(result)
    _champion_goes_to_work(shapes_set, unlabelled_shapes(shapes_set, (900, 901)), workspace, capsys)


def _champion_goes_to_work(dataset, fresh, workspace, capsys):
    """The champion proposes on images that nobody looked at, and its doubts order them."""
    words = ["--root", str(workspace.root), "--device", "cpu", "--json"]
    assert boxwright.main(["propose", "shapes", "--from", "run:champion", "--threshold", "0.03", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["proposals"] > 0, told["threshold"]) == (2, True, 0.03)
    assert boxwright.main(["propose", "shapes", "--from", "run:champion", "--dry-run", *words]) == 0
    assert re.search(r"starts at 0\.\d\d: .*\bval\b", capsys.readouterr().err)
    run = champions.read(dataset).run
    with Journal(dataset.labels) as journal:
        box = next(iter(current(journal)[fresh[0].sha256].boxes.values()))
    assert box.proposed_by == f"model:shapes/{run}"
    assert box.category in {"disc", "bar"}
    assert len(box.details["weights_sha256"]) == 64
    for only in ("disc", "bar"):
        assert boxwright.main(["propose", "shapes", "--from", "run:champion", "--threshold", "0.03", "--class", only, *words]) == 0
        assert set(json.loads(capsys.readouterr().out)["classes"]) <= {only}
    assert boxwright.main(["queue", "shapes", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["run"] == f"shapes/{run}"
    assert {entry["image"] for entry in told["queue"]} == {record.sha256 for record in fresh}
    dataset.definition.write_text(dataset.definition.read_text().replace('"disc"', '"plate"').replace('"bar"', '"rod"'))
    assert boxwright.main(["propose", "shapes", "--from", f"run:{run}", *words]) == 4, "no category in common"


def test_first_champion__is_the_best_run_of_the_newest_release_not_the_last(shapes_set):
    for run, release, split, ap in (
        ("a", "v001", "val", 0.9),
        ("b", "v002", "val", 0.5),
        ("c", "v002", "test", 0.4),
        ("d", "v002", "val", 0.7),
    ):
        (shapes_set.runs / run / "checkpoints").mkdir(parents=True)
        (shapes_set.runs / run / "checkpoints" / "best.pt").write_bytes(b"")
        (shapes_set.runs / run / "metrics.json").write_text(json.dumps({"release": release, split: {"AP": ap}, "train": {"AP": 1.0}}))
    assert best_finished_run(shapes_set).path.name == "d"
    assert best_finished_run(shapes_set, but="d").path.name == "b"
    metrics = {"release": "v002", "val": {"AP": -1.0}, "test": {"AP": 0.8}}
    (shapes_set.runs / "a" / "metrics.json").write_text(json.dumps(metrics))
    assert best_finished_run(shapes_set).path.name == "a", "a val split without boxes ranks nothing"


@pytest.mark.parametrize(
    "verdict, finding, says",
    [
        ("promoted", "first", "boxwright propose owls --from run:champion"),
        ("promoted", "worse", "boxwright detect owls/champion PATH"),
        ("kept_out", "not_shown", "[train] epsilon in dataset.toml"),
        ("kept_out", "class_fell", "boxwright audit owls"),
    ],
)
def test_each_verdict_names_a_next_step(verdict, finding, says):
    assert says in next_step("owls", {"verdict": verdict, "finding": finding})

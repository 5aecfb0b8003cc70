"""compare: real trainings, small; the Pareto front; and names that keep clear of each other."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

import boxwright
from tests.train.judging.run_folder import NAMES, drawn_scenes, lay
from train.judging.charts import _Names
from train.judging.tradeoff import Row, _kept, code, pareto


def trainable(root: Path) -> Path:
    """A dataset of drawn scenes, twelve to learn from and six to be judged on; its runs folder."""
    run = lay(root, drawn_scenes(18), NAMES)
    shutil.rmtree(run)
    release = root / "datasets" / "toys" / "releases" / "v001"
    document = json.loads((release / "test.json").read_text())
    for number, image in enumerate(document["images"]):
        image["split"] = "train" if number < 12 else "test"
    for split in ("train", "test"):
        images = [image for image in document["images"] if image["split"] == split]
        kept = {image["id"] for image in images}
        annotations = [annotation for annotation in document["annotations"] if annotation["image_id"] in kept]
        (release / f"{split}.json").write_text(json.dumps({**document, "images": images, "annotations": annotations}))
    classes = "".join(f'[[class]]\nid = {number}\nname = "{name}"\n' for number, name in enumerate(NAMES, 3))
    (root / "datasets" / "toys" / "dataset.toml").write_text(f'name = "toys"\n{classes}')
    return run.parent


DETECTORS = "fcos_mobilenet_v2,fcos_mobilenet_v2_small_objects"
SHORT = [
    "--epochs",
    "1",
    "--image-size",
    "128",
    "--batch-size",
    "4",
    "--weights",
    "none",
    "--workers",
    "0",
    "--threads",
    "1",
    "--device",
    "cpu",
]


@pytest.mark.slow
def test_two_detectors_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = trainable(tmp_path)
    words = ["compare", "toys", "--detectors", DETECTORS, *SHORT, "--root", str(tmp_path), "--json", "--quiet"]
    assert boxwright.main(words) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["dataset"], result["release"], result["split"]) == ("toys", "v001", "test")
    assert {row["detector"] for row in result["rows"]} == set(DETECTORS.split(","))
    for row in result["rows"]:
        assert row["latency_low_ms"] <= row["latency_ms"] <= row["latency_high_ms"]
        assert row["latency_ms"] > 0 and row["memory_mb"] > 50 and row["parameters"] > 1e6 and row["train_cpu_s"] > 0
        assert row["error"] == "" and (runs / row["run"] / "detections-test.json").is_file()
    assert any(row["pareto"] for row in result["rows"])
    page = (runs / "compare.html").read_text()
    assert all(row["detector"] in page for row in result["rows"])
    assert re.search(r"From scratch, without pretrained weights:</b> (fcos_\w+, fcos_\w+)\.", page)
    assert "<dt>threads</dt><dd>1</dd>" in page
    assert json.loads((runs / "compare.json").read_text())["rows"] == result["rows"]

    assert boxwright.main(words) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["rows"] == result["rows"], "what was measured is kept"
    assert len(list(runs.glob("v001-*"))) == 2

    run = runs / result["rows"][0]["run"]
    kept = json.loads((run / "detections-test.json").read_text())
    (run / "detections-test.json").unlink()
    assert boxwright.main(["evaluate", str(run), "--root", str(tmp_path), "--json", "--device", "cpu", "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["stats"][0] == pytest.approx(result["rows"][0]["ap"], abs=1e-3), "evaluate detects by itself where nothing is kept"
    assert len(json.loads((run / "detections-test.json").read_text())) == pytest.approx(len(kept), rel=0.02)


def test_wrong_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainable(tmp_path)
    root = ["--root", str(tmp_path)]
    assert boxwright.main(["compare", "toys", "--detectors", "fcos_mobilenet_v3", *root]) == 2
    assert "did you mean 'fcos_mobilenet_v2'" in capsys.readouterr().err
    assert boxwright.main(["compare", "toys", "--detectors", " , ", *root]) == 2
    assert boxwright.main(["compare", "toy", "--detectors", "fcos_mobilenet_v2", *root]) == 3
    assert boxwright.main(["compare", "toys", "--detectors", DETECTORS, "--release", "v9", *root]) == 3


def test_dry_run_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = trainable(tmp_path)
    assert boxwright.main(["compare", "toys", "--detectors", DETECTORS, "--dry-run", "--json", "--root", str(tmp_path)]) == 0
    plans = json.loads(capsys.readouterr().out)["plans"]
    assert [plan["detector"] for plan in plans] == DETECTORS.split(",")
    assert not runs.exists() or not list(runs.iterdir())


def test_rows_of_other_settings_or_other_code_are_not_kept(tmp_path: Path) -> None:
    rows = [Row("fcos", run="v001-fcos-1"), Row("gone", run="v001-gone-1"), Row("broken", error="no weights")]
    (tmp_path / "v001-fcos-1").mkdir()
    (tmp_path / "v001-fcos-1" / "config.json").write_text("{}")
    settings = {"epochs": 3, "machine": {"cpus": 2}, "code": code()}
    file, told = tmp_path / "compare.json", list[str]()
    assert _kept(file, settings, told.append) == {}
    file.write_text(json.dumps({"settings": settings, "rows": [dataclasses.asdict(row) for row in rows]}))
    assert list(_kept(file, settings, told.append)) == ["fcos"] and not told
    assert _kept(file, {**settings, "code": "0" * 12, "threads": 1}, told.append) == {}
    assert "(code, threads)" in told[0]


def test_code_is_another_when_one_file_is(tmp_path: Path) -> None:
    room = tmp_path / "train"
    (room / "fitting").mkdir(parents=True)
    (room / "fitting" / "fit.py").write_text("rate = 1\n")
    before = code(room)
    (room / "loop").mkdir()
    (room / "loop" / "gate.py").write_text("decides no row\n")
    assert code(room) == before
    (room / "fitting" / "fit.py").write_text("rate = 2\n")
    assert code(room) != before


def test_pareto_front() -> None:
    rows = [
        Row("best", ap=0.6, latency_ms=300),
        Row("fast", ap=0.3, latency_ms=40),
        Row("middle", ap=0.5, latency_ms=100),
        Row("as good, slower", ap=0.5, latency_ms=120),
        Row("as fast, worse", ap=0.2, latency_ms=40),
        Row("twin of best", ap=0.6, latency_ms=300),
        Row("broken", error="no weights"),
    ]
    assert pareto(rows) == {"best", "fast", "middle", "twin of best"}


def test_names_keep_clear_of_each_other_and_of_the_edge() -> None:
    points = [(200.0 + 5 * place, 100.0 + 3 * place) for place in range(5)] + [(440.0, 20.0)]
    names = _Names(points, (12, 250), (52, 446))
    boxes = []
    for x, y in points:
        left, base = names.place(x, y, "a_detector_name")
        assert 52 <= left <= 446 - 6.6 * 15 and 12 < base < 250
        boxes.append((left, base - 10, left + 6.6 * 15, base + 3))
    for place, a in enumerate(boxes):
        for b in boxes[:place]:
            assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])

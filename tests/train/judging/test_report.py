"""report.html from a run's folder, and the verb that judges runs and files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import boxwright
from collect.errors import CorruptError, NotFoundError, UsageError
from tests.train.judging.run_folder import NAMES, drawn_scenes, lay, noisy_detections
from train.judging import charts, report
from train.judging.charts import Axis, Series
from train.judging.evaluate import evaluate
from train.judging.run_files import open_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = lay(tmp_path, drawn_scenes(25), NAMES)
    noisy_detections(path)
    return path


def test_the_page_holds_what_was_asked_for(run: Path) -> None:
    page = report.write(run, resamples=100).read_text()
    document = open_run(run).ground_truth("test")
    stats = evaluate(document, json.loads((run / "detections-test.json").read_text()), engine="pycocotools").stats
    assert f"<b>{stats[0]:.3f}</b>" in page
    assert f"<b>{stats[1]:.3f}</b>" in page
    for words in (
        "Learning",
        "Accuracy on val",
        "Who is taken for whom",
        "By source",
        "most errors",
        "without an error",
        "to the last digit",
    ):
        assert words in page
    assert page.count("data:image/jpeg;base64,") > 10
    assert "two cores" in page and "ImageNet" in page


def test_the_page_stands_alone_and_is_well_formed(run: Path) -> None:
    page = report.write(run, resamples=20).read_text()
    addresses = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert addresses and all(address.startswith("data:") for address in addresses)
    assert not re.search(r"url\(|@import|<script", page)

    class Balance(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in {"meta", "br", "img", "link"}:
                self.open.append(tag)

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    balance = Balance()
    balance.feed(page)
    assert balance.open == []


def test_names_cannot_write_into_the_page(tmp_path: Path) -> None:
    path = lay(tmp_path, drawn_scenes(6), ["<script>alert(1)</script>", '"><b>', "a & b"])
    noisy_detections(path)
    page = report.write(path, resamples=10).read_text()
    assert "<script" not in page and '"><b>' not in page
    assert "&lt;script&gt;" in page


def test_a_run_that_found_nothing_and_one_image_that_is_gone(run: Path) -> None:
    (run / "detections-test.json").write_text("[]")
    (run / "metrics.csv").unlink()
    document = open_run(run).ground_truth("test")
    worst = max(document["images"], key=lambda image: sum(a["image_id"] == image["id"] for a in document["annotations"]))
    (run.parents[2] / "datasets" / "toys" / "images" / worst["file_name"]).unlink()
    page = report.write(run, resamples=10).read_text()
    assert "found nothing at all" in page
    assert "1 images could not be read" in page
    assert "<b>0.000</b>" in page


def test_a_release_without_boxes(tmp_path: Path) -> None:
    path = lay(tmp_path, [(data, []) for data, _ in drawn_scenes(3)], NAMES)
    noisy_detections(path)
    assert "There is no box in this ground truth" in report.write(path, resamples=10).read_text()


def test_what_is_missing_is_said(run: Path) -> None:
    with pytest.raises(UsageError, match=r"no images in a split 'val'; there are: test"):
        report.write(run, "val")
    (run / "detections-test.json").unlink()
    with pytest.raises(NotFoundError, match=r"detections-test\.json"):
        report.write(run)
    (run / "config.json").write_text("{}")
    with pytest.raises(CorruptError, match="has no 'dataset'"):
        report.write(run)


def test_the_verb_on_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(run.parents[2])
    assert boxwright.main(["evaluate", "v001-try", "--root", root, "--json", "--resamples", "50", "--report"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["stats"]) == 12
    assert result["cross_check"] == {"engine": "pycocotools", "agrees": True}
    assert set(result["per_category"][0]) >= {"id", "name", "ap", "ap50", "ap75", "ar", "boxes", "f1", "threshold", "precision", "recall"}
    assert result["intervals"]["ap"]["low"] <= result["stats"][0] <= result["intervals"]["ap"]["high"]
    assert Path(result["report"]).is_file()
    assert 0 < result["voc_ap50"]["eleven_point"] < 1 and 0 < result["calibration_error"] < 1
    assert set(result["error_kinds"]) == {"Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"}
    assert sum(row["boxes"] for row in result["per_size"][1:]) >= result["boxes"] == result["per_size"][0]["boxes"]
    errors = json.loads(Path(result["errors"]).read_text())
    assert {entry["kind"] for entry in errors} >= {"right", "Loc", "Cls", "Miss"}
    assert all(len(entry["image"]) == 64 and entry["category"] in NAMES for entry in errors)

    assert boxwright.main(["evaluate", "v001-try", "--root", root, "--no-cross-check", "--json", "--resamples", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["cross_check"] == {"engine": "pycocotools", "agrees": None}

    assert boxwright.main(["evaluate", "v001-try", "--root", root]) == 0
    lines = capsys.readouterr().out
    assert f"Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = {result['stats'][0]:.3f}" in lines


def test_the_verb_prints_what_pycocotools_prints(real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = real_data / "evaluation" / "coco-fake100"
    gt, dt = folder / "ground_truth.json", folder / "detections_bbox.json"
    assert boxwright.main(["evaluate", "--ground-truth", str(gt), "--detections", str(dt), "--resamples", "0"]) == 0
    ours = [line for line in capsys.readouterr().out.splitlines() if line.startswith(" Average")]
    code = (
        "import sys; from pycocotools.coco import COCO; from pycocotools.cocoeval import COCOeval\n"
        "gt = COCO(sys.argv[1]); e = COCOeval(gt, gt.loadRes(sys.argv[2]), 'bbox'); e.evaluate(); e.accumulate(); e.summarize()"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(gt), str(dt)], capture_output=True, text=True, check=True)
    assert ours == [line for line in ended.stdout.splitlines() if line.startswith(" Average")]


def test_nothing_to_find_and_nothing_found_in_words(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = run.parents[2] / "datasets" / "toys" / "releases" / "v001"
    document = json.loads((release / "test.json").read_text())
    gt, dt = tmp_path / "gt.json", tmp_path / "dt.json"
    dt.write_text("[]")
    words = ["evaluate", "--ground-truth", str(gt), "--detections", str(dt), "--resamples", "20"]
    gt.write_text(json.dumps(document))
    assert boxwright.main(words) == 0
    told = capsys.readouterr()
    assert "no detection at all, so AP is 0" in told.err and "maxDets=100 ] = 0.000" in told.out
    gt.write_text(json.dumps({**document, "annotations": []}))
    assert boxwright.main(words) == 0
    told = capsys.readouterr()
    assert "no box in the ground truth" in told.err and "maxDets=100 ] = -1.000" in told.out


def test_dry_run_writes_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert boxwright.main(["evaluate", "v001-try", "--root", str(run.parents[2]), "--dry-run", "--resamples", "0"]) == 0
    (run / "detections-test.json").unlink()
    assert boxwright.main(["evaluate", "v001-try", "--root", str(run.parents[2]), "--dry-run"]) == 0
    assert "would detect on test" in capsys.readouterr().out
    assert not list(run.glob("*-test.json")) and not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([], 2, "say what to evaluate"),
        (["v001-try", "--split", "val"], 2, "there are: test"),
        (["v001-tri"], 3, "did you mean|unknown run"),
        (["v001-try", "--engine", "coco"], 2, "unknown evaluation engine"),
        (["v001-try", "--detections", "x.json"], 2, "not both"),
        (["--ground-truth", "nowhere.json", "--detections", "x.json"], 3, "there is no"),
        (["v001-try", "--resamples", "-1"], 2, "at least 1"),
    ],
)
def test_wrong_words(run: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, sentence: str) -> None:
    assert boxwright.main(["evaluate", *words, "--root", str(run.parents[2])]) == code
    assert re.search(sentence, capsys.readouterr().err)


def test_charts__epochs_have_no_halves() -> None:
    def ticks(epochs: list[float]) -> list[str]:
        drawn = charts.lines([Series("loss", epochs, [2.0] * len(epochs))], Axis("epoch", whole=True), Axis("loss", 0), "Loss")
        return re.findall(r'text-anchor="middle">([\d.]+)<', drawn)

    assert ticks([1, 2, 3]) == ["1", "2", "3"]
    assert ticks([1]) == ["1"]
    assert all(tick.isdigit() for count in range(2, 40) for tick in ticks(list(range(1, count))))


def test_facts__as_few_digits_as_a_person_reads() -> None:
    told = report._plain_facts(
        {"seconds": 275.761, "parameters": 2439114, "ema_decay": 0.99995, "learning_rate": 0.000125, "compile": False}
    )
    assert told == {"seconds": "275.8", "parameters": "2,439,114", "ema decay": "0.99995", "learning rate": "0.000125", "compile": "no"}

"""Every digit of pycocotools, from both engines and from our own matching."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import boxwright
from collect.errors import CorruptError, NotFoundError, UsageError
from collect.workspace import Workspace
from tests.train.judging.detection_sets import Pair, pairs
from train.data.release import open_release
from train.fitting.run import train_run
from train.judging import engines, inputs, run_files
from train.judging.evaluate import STAT_NAMES, evaluate, evaluate_files
from train.judging.inputs import read_detections
from train.judging.matching import match
from train.serving.predictor import Predictor, detect_split
from train.serving.tiles import Tiling


def oracle(document: dict[str, Any], detections: list[dict[str, Any]], max_detections: int = 100) -> Any:
    """pycocotools alone, as its own demo calls it; only the annotation ids are counted from 1."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = json.loads(json.dumps(document))
        for number, annotation in enumerate(gt.dataset["annotations"], 1):
            annotation["id"] = number
        gt.createIndex()
        dt = gt.loadRes(json.loads(json.dumps(detections)))
        evaluator = COCOeval(gt, dt, "bbox")
        evaluator.params.maxDets = [1, 10, max_detections]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


@pytest.mark.parametrize("engine", engines.ENGINES)
@given(pair=pairs(many=True))
@settings(max_examples=60, deadline=None)
def test_every_digit_of_pycocotools(engine: str, pair: Pair) -> None:
    document, detections = pair
    evaluation = evaluate(document, detections, engine=engine)
    if not detections:
        assert set(evaluation.stats) <= {0.0, -1.0}
        return
    reference = oracle(document, detections)
    assert evaluation.stats == reference.stats.tolist()
    np.testing.assert_array_equal(evaluation.curves.precision_TRKAM, reference.eval["precision"])
    np.testing.assert_array_equal(evaluation.curves.recall_TKAM, reference.eval["recall"])
    np.testing.assert_array_equal(evaluation.curves.scores_TRKAM, reference.eval["scores"])


@given(pair=pairs(many=True))
@settings(max_examples=60, deadline=None)
def test_matching_takes_the_boxes_pycocotools_takes(pair: Pair) -> None:
    document, detections = pair
    if not detections:
        return
    reference = oracle(document, detections)
    truth = inputs.truth(document)
    found = inputs.detections(detections, truth)
    for place, area in enumerate(engines.AREAS.values()):
        ours = match(truth, found, engines.IOU_THRESHOLDS_T, area)
        taken, ignored = {}, {}
        for entry in reference.evalImgs:
            if entry is not None and tuple(entry["aRng"]) == tuple(reference.params.areaRng[place]):
                for column, number in enumerate(entry["dtIds"]):
                    taken[number - 1] = entry["dtMatches"][:, column] - 1
                    ignored[number - 1] = entry["dtIgnore"][:, column]
        assert sorted(taken) == sorted(ours.rows_N.tolist())
        for column, row in enumerate(ours.rows_N.tolist()):
            np.testing.assert_array_equal(ours.box_TN[:, column], taken[row])
            np.testing.assert_array_equal(ours.ignored_TN[:, column], ignored[row])


@given(pair=pairs(many=True))
@settings(max_examples=20, deadline=None)
def test_another_limit_of_detections(pair: Pair) -> None:
    document, detections = pair
    if detections:
        both = [evaluate(document, detections, engine=engine, max_detections=30).curves for engine in engines.ENGINES]
        np.testing.assert_array_equal(both[0].precision_TRKAM, both[1].precision_TRKAM)
        reference = oracle(document, detections, max_detections=30)
        np.testing.assert_array_equal(both[0].precision_TRKAM, reference.eval["precision"])


def perfect() -> Pair:
    annotations = [
        {"id": number, "image_id": 1, "category_id": 0, "bbox": [20.0 * number, 5, 10, 12], "area": 120, "iscrowd": 0}
        for number in range(4)
    ]
    document = {
        "images": [{"id": 1, "width": 99, "height": 99, "file_name": "a.jpg"}],
        "categories": [{"id": 0, "name": "cat"}],
        "annotations": annotations,
    }
    found = [{"image_id": 1, "category_id": 0, "bbox": a["bbox"], "score": 0.9 - 0.1 * a["id"]} for a in annotations]
    return document, found


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_annotation_id_0_is_a_box_like_any_other(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    """pycocotools alone gives 0.75 here: the match with id 0 is to it no match."""
    document, found = perfect()
    assert as_it_is(document, found) < 0.8
    assert evaluate(document, found, engine=engine).stats[0] == 1.0
    assert evaluate(document, found, engine=engine).per_category[0]["f1"] == 1.0
    assert "id 0, which was renumbered" in caplog.text


def as_it_is(document: dict[str, Any], found: list[dict[str, Any]]) -> float:
    """AP by pycocotools without our renumbering."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = json.loads(json.dumps(document))
        gt.createIndex()
        evaluator = COCOeval(gt, gt.loadRes(json.loads(json.dumps(found))), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return float(evaluator.stats[0])


def test_empty_detections_are_nought_and_no_boxes_are_minus_one() -> None:
    document, found = perfect()
    nothing = evaluate(document, [])
    assert nothing.stats[0] == 0.0
    assert nothing.to_json()["best"] == {"f1": 0.0, "threshold": None, "precision": 0.0, "recall": 0.0}
    bare = evaluate({**document, "annotations": []}, found)
    assert bare.stats == [-1.0] * 12
    assert bare.per_category[0]["f1"] is None
    assert evaluate({**document, "annotations": []}, []).stats == [-1.0] * 12


def test_strangers_are_listed() -> None:
    document, found = perfect()
    with pytest.raises(UsageError, match=r"1 detections are for 1 images .* \(ids 77\)"):
        evaluate(document, [*found, {**found[0], "image_id": 77}])
    with pytest.raises(UsageError, match=r"categories .* \(ids 5, 6\)"):
        evaluate(document, [{**found[0], "category_id": 5}, {**found[0], "category_id": 6}])
    with pytest.raises(CorruptError, match="no finite number"):
        evaluate(document, [{**found[0], "score": float("nan")}])
    with pytest.raises(CorruptError, match="an entry has no 'score'"):
        evaluate(document, [{"image_id": 1, "category_id": 0, "bbox": [1, 2, 3, 4]}])
    with pytest.raises(CorruptError, match="no COCO detections"):
        evaluate(document, [{**found[0], "bbox": [1, 2, 3]}])
    with pytest.raises(CorruptError, match="annotations of the ground truth"):
        evaluate({**document, "images": []}, [])
    with pytest.raises(UsageError, match="unknown evaluation engine 'pycoco'"):
        evaluate(document, found, engine="pycoco")


def test_files_are_judged_as_documents_are(tmp_path: Path) -> None:
    document, found = perfect()
    gt, dt = tmp_path / "gt.json", tmp_path / "dt.json"
    gt.write_text(json.dumps(document))
    dt.write_text(json.dumps(found))
    assert evaluate_files(gt, dt).to_json() == evaluate(document, found).to_json()
    assert evaluate_files(gt, dt, engine="pycocotools").stats == evaluate_files(gt, dt).stats
    dt.write_text("[]")
    assert evaluate_files(gt, dt).stats[0] == 0.0


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("{}", CorruptError, "holds no COCO detections"),
        ("[1, 2", CorruptError, "not valid JSON"),
        ("[3]", CorruptError, "no COCO detections"),
        ('[{"image_id": 1, "category_id": 0, "bbox": [1, 2, 3, 4]}]', CorruptError, "has no 'score'"),
        ('[{"image_id": 8, "category_id": 0, "bbox": [1, 2, 3, 4], "score": 1}]', UsageError, "ids 8"),
        ('[{"image_id": "a", "category_id": 0, "bbox": [1, 2, 3, 4], "score": 1}]', CorruptError, "no COCO detections"),
        ('[{"image_id": 1, "category_id": 0, "bbox": [1, 2, 3, 4], "score": null}]', CorruptError, "no finite number"),
        (None, NotFoundError, "there is no"),
    ],
)
def test_bad_files(tmp_path: Path, text: str | None, error: type[Exception], words: str) -> None:
    gt, dt = tmp_path / "gt.json", tmp_path / "dt.json"
    gt.write_text(json.dumps(perfect()[0]))
    if text is not None:
        dt.write_text(text)
    with pytest.raises(error, match=words):
        evaluate_files(gt, dt)


def test_published_numbers_of_the_coco_api(real_data: Path) -> None:
    folder = real_data / "evaluation" / "coco-fake100"
    published = published_bbox(folder / "expected_published.txt")
    for engine in engines.ENGINES:
        stats = evaluate_files(folder / "ground_truth.json", folder / "detections_bbox.json", engine=engine).stats
        assert [f"{value:.3f}" for value in stats] == published
    assert len(published) == len(STAT_NAMES)


def published_bbox(path: Path) -> list[str]:
    section = path.read_text().split("type=bbox")[1].split("type=")[0]
    return [line.rsplit("=", 1)[1].strip() for line in section.splitlines() if "maxDets" in line]


def test_crowds_and_areas(real_data: Path) -> None:
    folder = real_data / "evaluation" / "crowd-and-area"
    for engine in engines.ENGINES:
        stats = dict(
            zip(STAT_NAMES, evaluate_files(folder / "gt_dataset.json", folder / "dt_dataset.json", engine=engine).stats, strict=True)
        )
        assert (round(stats["AP"], 4), round(stats["APmedium"], 4)) == (0.6947, 0.7921)


def test_evaluate__with_tiles_judges_what_detect_would_find_and_keeps_nothing(
    make_release: Any, workspace: Workspace, one_thread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    make_release(train=4, val=2, test=2)
    settings = {"image_size": 64, "batch_size": 4, "weights": "none", "precision": "fp32", "device": "cpu", "epochs": 1, "freeze": 0}
    result = train_run(workspace, "shapes", settings)
    kept = run_files.open_run(Path(result["path"]))
    before = {path.name: path.read_bytes() for path in kept.path.iterdir() if path.is_file()}
    capsys.readouterr()
    words = ["evaluate", result["run"], "--root", str(workspace.root), "--device", "cpu", "--resamples", "0", "--quiet"]
    assert boxwright.main([*words, "--tiles", "48", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    release = open_release(workspace.dataset("shapes"), "v001")
    found, _ = detect_split(Predictor.from_run(kept.path, "cpu", Tiling(48)), release.splits["test"], release.images)
    assert (told["tiles"], told["split"]) == (48, "test")
    assert told["stats"] == evaluate(kept.ground_truth("test"), found).to_json()["stats"]
    assert len(found) > len(read_detections(kept.detections("test")))
    assert {path.name: path.read_bytes() for path in kept.path.iterdir() if path.is_file()} == before
    assert boxwright.main([*words, "--tiles", "48", "--report"]) == 2
    assert boxwright.main([*words, "--tiles", "8"]) == 2

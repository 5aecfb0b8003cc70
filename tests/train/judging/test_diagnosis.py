"""Error kinds, confusion, calibration, slices: worked examples, and hotcoco as a peer on real numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from tests.train.judging.detection_sets import Pair, pairs, random_pair
from train.judging import diagnosis, engines, errors_view
from train.judging.error_kinds import KINDS, error_kinds
from train.judging.evaluate import Evaluation, evaluate, evaluate_files

FAR = [150.0, 150.0, 20.0, 20.0]


def one_of_each() -> Pair:
    """Six boxes of two classes; a right detection, and one error of each kind."""
    places = [(1, 0, 0), (1, 40, 0), (1, 80, 0), (1, 120, 0), (2, 0, 60), (2, 60, 60)]
    boxes = [(category, [x, y, 20, 20]) for category, x, y in places]
    document = {
        "images": [{"id": 1, "sha256": "a" * 64, "source": "openverse"}, {"id": 2, "sha256": "b" * 64, "source": "flickr"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"id": n, "image_id": 1, "category_id": c, "bbox": box} for n, (c, box) in enumerate(boxes)],
    }
    found = [
        (1, [0, 0, 20, 20], 0.9),  # right
        (1, [1, 0, 20, 20], 0.8),  # Dupe
        (1, [48, 0, 20, 20], 0.7),  # Loc of the second box: IoU .43
        (2, [80, 0, 20, 20], 0.6),  # Cls of the third
        (1, [8, 60, 20, 20], 0.5),  # Both: a dog, badly placed
        (1, FAR, 0.4),  # Bkg
    ]
    return document, [{"image_id": 1, "category_id": c, "bbox": box, "score": score} for c, box, score in found]


def judged(pair: Pair) -> Evaluation:
    return evaluate(*pair)


def test_one_error_of_each_kind() -> None:
    evaluation = judged(one_of_each())
    kinds = error_kinds(evaluation.truth, evaluation.found, evaluation.matches50)
    assert kinds.counts == {"Cls": 1, "Loc": 1, "Both": 1, "Dupe": 1, "Bkg": 1, "Miss": 3}
    of_row = dict(zip(evaluation.matches50.rows_N.tolist(), kinds.kind_N.tolist(), strict=True))
    assert [KINDS[of_row[row]] if of_row[row] >= 0 else "right" for row in range(6)] == ["right", "Dupe", "Loc", "Cls", "Both", "Bkg"]
    assert kinds.missed_A.tolist() == [False, False, False, True, True, True]
    assert kinds.ap50 == pytest.approx(evaluation.stats[1])
    assert all(kinds.delta_ap50[kind] > 0 for kind in ("Cls", "Loc", "Miss"))
    assert all(kinds.delta_ap50[kind] == 0 for kind in ("Both", "Dupe", "Bkg")), "they stand behind every right detection"


def test_counts_and_costs_are_those_of_the_peer(real_data: Path) -> None:
    """hotcoco, whose counts are tidecv 1.0.1's too on this set (Cls 83, Loc 1, Dupe 1, Miss 97)."""
    folder = real_data / "evaluation" / "coco-fake100"
    evaluation = evaluate_files(folder / "ground_truth.json", folder / "detections_bbox.json")
    kinds = error_kinds(evaluation.truth, evaluation.found, evaluation.matches50)
    gt = engines.hotcoco_truth(evaluation.truth)
    peer = engines.hotcoco_evaluator(gt, gt.load_res(str(folder / "detections_bbox.json")), (1, 10, 100))
    tide, calibration = peer.tide_errors(), peer.calibration()
    assert kinds.counts == tide["counts"] == {"Cls": 83, "Loc": 1, "Both": 0, "Dupe": 1, "Bkg": 0, "Miss": 97}
    for kind in ("Cls", "Loc", "Both", "Dupe", "Bkg"):  # of Miss, the two differ in what a class without boxes counts for
        assert kinds.delta_ap50[kind] == pytest.approx(tide["delta_ap"][kind], abs=1e-12)
    assert diagnosis.calibration(evaluation.matches50).ece == pytest.approx(calibration["ece"], abs=1e-12)


@given(pair=pairs())
@settings(max_examples=60, deadline=None)
def test_nothing_is_counted_twice(pair: Pair) -> None:
    document, found = pair
    evaluation = evaluate(document, found)
    truth, matches = evaluation.truth, evaluation.matches50
    kinds = error_kinds(truth, evaluation.found, matches)
    wrong = int((~matches.hits_TN()[0] & ~matches.ignored_TN[0]).sum())
    assert sum(kinds.counts[kind] for kind in KINDS[:-1]) == wrong
    assert kinds.ap50 == pytest.approx(evaluation.stats[1])
    assert all(kinds.delta_ap50[kind] >= -1e-12 for kind in ("Both", "Dupe", "Bkg"))

    threshold = evaluation.best.threshold or 0.0
    matrix = diagnosis.confusion(truth, evaluation.found, threshold).counts_KK
    boxes = np.bincount(truth.rows_of_categories(truth.category_ids_A[~truth.iscrowd_A]), minlength=len(truth.names_K))
    np.testing.assert_array_equal(matrix.sum(axis=1)[:-1], boxes)
    if evaluation.best.threshold is not None:
        kept = matches.scores_N >= threshold
        assert matrix.trace() == int((matches.hits_TN()[0] & kept).sum())
        listed = list(errors_view.errors(evaluation, document, threshold))
        assert sum(entry["kind"] == "right" for entry in listed) == matrix.trace()
        assert sum(entry["kind"] == "Miss" for entry in listed) == int(boxes.sum()) - matrix.trace()


def test_confusion_of_the_example() -> None:
    evaluation = judged(one_of_each())
    counts = diagnosis.confusion(evaluation.truth, evaluation.found, 0.0).counts_KK
    assert counts.tolist() == [[1, 1, 2], [0, 0, 2], [4, 0, 0]]
    assert diagnosis.confusion(evaluation.truth, evaluation.found, 0.65).counts_KK.tolist() == [[1, 0, 3], [0, 0, 2], [2, 0, 0]]


def test_best_f1_keeps_all_of_equal_scores() -> None:
    document, found = one_of_each()
    level = [{**entry, "score": 0.5} for entry in found]
    best = evaluate(document, level).best
    assert (best.threshold, best.precision, best.recall) == (0.5, pytest.approx(1 / 6), pytest.approx(1 / 6))
    best = evaluate(document, found).best
    assert (best.threshold, best.precision, best.recall) == (0.9, 1.0, pytest.approx(1 / 6))


def test_calibration_of_a_detector_that_is_right_half_the_time() -> None:
    document = {
        "images": [{"id": n} for n in range(100)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [0, 0, 10, 10]} for n in range(100)],
    }
    found = [{"image_id": n, "category_id": 1, "bbox": [0 if n % 2 else 90, 0, 10, 10], "score": 0.75} for n in range(100)]
    told = diagnosis.calibration(evaluate(document, found).matches50)
    assert told.count_B.tolist() == [0] * 7 + [100, 0, 0]
    assert (told.right_B[7], told.ece) == (0.5, pytest.approx(0.25))
    assert diagnosis.calibration(evaluate(document, []).matches50).ece is None


def test_slices_and_counts() -> None:
    document, found = one_of_each()
    evaluation = evaluate(document, found)
    rows = diagnosis.slices(evaluation, document["images"], "source")
    assert [(row["name"], row["images"], row["boxes"], row["ap"]) for row in rows] == [
        ("flickr", 1, 0, -1.0),
        ("openverse", 1, 6, evaluation.stats[0]),
    ]
    assert diagnosis.slices(evaluation, document["images"], "domain") == []
    several = [{"id": 1, "query": ["dog", "cat"]}, {"id": 2, "query": "cat"}]
    assert [(row["name"], row["images"]) for row in diagnosis.slices(evaluation, several, "query")] == [("cat", 2), ("dog", 1)]
    assert [(row["name"], row["images"]) for row in diagnosis.by_count(evaluation)] == [("no box", 1), ("5–9 boxes", 1)]
    sizes = {row["name"]: row["boxes"] for row in diagnosis.by_size(evaluation)}
    assert sizes == {"all": 6, "small": 6, "medium": 0, "large": 0}


def test_slices_are_evaluations_of_their_images() -> None:
    document, found = random_pair(np.random.default_rng(3), 20, 3, 60, 200)
    for place, image in enumerate(document["images"]):
        image["domain"] = "night" if place % 3 == 0 else "day"
    rows = diagnosis.slices(evaluate(document, found), document["images"], "domain")
    for row in rows:
        kept = {image["id"] for image in document["images"] if image["domain"] == row["name"]}
        part = {
            **document,
            "images": [image for image in document["images"] if image["id"] in kept],
            "annotations": [a for a in document["annotations"] if a["image_id"] in kept],
        }
        assert row["ap"] == evaluate(part, [d for d in found if d["image_id"] in kept], engine="pycocotools").stats[0]

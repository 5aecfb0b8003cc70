"""The bootstrap against pycocotools (points) and against literally repeating images (resamples)."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings

from tests.train.judging.detection_sets import Pair, pairs, random_pair
from tests.train.judging.test_evaluate import oracle
from train.judging import engines, inputs
from train.judging.evaluate import evaluate
from train.judging.intervals import intervals, paired, resampled_ap


@given(pair=pairs(many=True))
@settings(max_examples=40, deadline=None)
def test_every_image_once_is_pycocotools(pair: Pair) -> None:
    document, found = pair
    if not found:
        return
    truth = inputs.truth(document)
    ones = np.ones((len(truth.image_ids_I), 1), dtype=np.int64)
    ap_TK = resampled_ap(truth, inputs.detections(found, truth), ones)[0]
    expected = oracle(document, found).eval["precision"][:, :, :, 0, -1].mean(axis=1)
    np.testing.assert_allclose(np.nan_to_num(ap_TK, nan=-1.0), expected, atol=1e-12)


@given(pair=pairs(max_images=4))
@settings(max_examples=40, deadline=None)
def test_a_resample_is_a_set_with_images_repeated(pair: Pair) -> None:
    """With all scores different, so that the order of a repeated image's detections cannot matter."""
    document, found = pair
    truth = inputs.truth(document)
    weights = np.random.default_rng(len(found)).integers(0, 3, (len(truth.image_ids_I), 1))
    if not found or not weights.any():
        return
    found = [{**entry, "score": 0.9 - 0.001 * place} for place, entry in enumerate(found)]
    ap_TK = resampled_ap(truth, inputs.detections(found, truth), weights)[0]
    expected = oracle(*repeated(document, found, dict(zip(truth.image_ids_I.tolist(), weights[:, 0].tolist(), strict=True))))
    present = np.isfinite(ap_TK)
    values = expected.eval["precision"][:, :, :, 0, -1].mean(axis=1)
    np.testing.assert_array_equal(present, values > -1)
    # A repeated hit ends between its copies at a precision one may read off in pycocotools, not in a weighted sum.
    np.testing.assert_allclose(ap_TK[present], values[present], atol=0.02)


def repeated(document: dict[str, Any], found: list[dict[str, Any]], weights: dict[int, int]) -> Pair:
    copies = [(image, copy) for image, weight in weights.items() for copy in range(weight)]
    copied = {**document, "images": [{"id": 10 * image + copy} for image, copy in copies]}
    copied["annotations"] = [
        {**a, "image_id": 10 * image + copy} for image, copy in copies for a in document["annotations"] if a["image_id"] == image
    ]
    both = [{**d, "image_id": 10 * image + copy} for image, copy in copies for d in found if d["image_id"] == image]
    nothing = {"image_id": copied["images"][0]["id"], "category_id": -1, "bbox": [0, 0, 1, 1], "score": 0.1}
    return copied, both or [nothing]


def test_points_are_pycocotools_and_lie_inside() -> None:
    document, found = random_pair(np.random.default_rng(5), 60, 3, 200, 900)
    told = intervals(document, found, resamples=300, seed=1)
    stats = oracle(document, found).stats
    assert (told.ap.point, told.ap50.point) == (stats[0], stats[1])
    for interval in (told.ap, told.ap50, *told.per_category.values()):
        if interval.point >= 0:
            assert interval.low is not None and interval.high is not None
            assert interval.low < interval.point < interval.high
    assert intervals(document, found, resamples=300, seed=1) == told
    assert intervals(document, found, resamples=300, seed=2) != told


def test_a_detector_does_not_differ_from_itself() -> None:
    document, found = random_pair(np.random.default_rng(6), 30, 2, 80, 300)
    same = paired(document, found, found, resamples=100)
    assert (same.delta_ap.point, same.delta_ap.low, same.delta_ap.high, same.better) == (0.0, 0.0, 0.0, 0.5)
    worse = [entry for entry in found if entry["score"] < 0.4]
    against = paired(document, found, worse, resamples=100)
    assert against.delta_ap.high is not None and against.delta_ap.high < 0
    assert against.better < 0.05
    assert against.delta_ap.point == evaluate(document, worse).stats[0] - evaluate(document, found).stats[0]


def test_without_boxes_or_images_nothing_is_told() -> None:
    document, found = random_pair(np.random.default_rng(7), 5, 2, 10, 20)
    bare = {**document, "annotations": []}
    assert intervals(bare, found, resamples=10).ap.low is None
    assert paired(bare, found, found, resamples=10).delta_ap.low is None
    empty = {"images": [], "annotations": [], "categories": document["categories"]}
    assert intervals(empty, [], resamples=10).ap.point == -1.0
    assert intervals(document, [], resamples=10).ap.high == 0.0


def test_the_interval_is_that_of_literally_repeated_images() -> None:
    """And hotcoco.compare, the peer, agrees in the point; its ends are the same for every seed, and too near (LOG.md)."""
    import hotcoco

    rng = np.random.default_rng(8)
    document, found = random_pair(rng, 60, 2, 200, 700)
    other = [{**entry, "score": float(np.clip(entry["score"] + rng.normal(0, 0.2), 0, 1))} for entry in found]
    truth = inputs.truth(document)
    drawn_IS = rng.multinomial(60, np.full(60, 1 / 60), size=150).T
    both = [inputs.detections(entries, truth) for entries in (found, other)]
    literal = np.array([[evaluate(*copies(truth, side, drawn_I)).stats[0] for drawn_I in drawn_IS.T] for side in both])
    ours = np.array([np.nanmean(resampled_ap(truth, side, drawn_IS).reshape(150, -1), axis=1) for side in both])
    deltas, expected = ours[1] - ours[0], literal[1] - literal[0]
    np.testing.assert_allclose(np.quantile(deltas, [0.025, 0.975]), np.quantile(expected, [0.025, 0.975]), atol=0.1 * np.std(expected))
    assert np.corrcoef(deltas, expected)[0, 1] > 0.995

    gt = engines.hotcoco_truth(truth)
    peer = hotcoco.compare(*(engines.hotcoco_evaluator(gt, gt.load_res(entries), (1, 10, 100)) for entries in (found, other)))
    assert paired(document, found, other, resamples=10).delta_ap.point == peer["deltas"]["AP"]


def copies(truth: inputs.Truth, found: inputs.Detections, drawn_I: np.ndarray) -> tuple[inputs.Truth, inputs.Detections]:
    """The set in which every image stands as often as it was drawn."""
    sources = np.repeat(truth.image_ids_I, drawn_I)
    boxes = [np.flatnonzero(truth.image_ids_A == image) for image in sources]
    detections = [np.flatnonzero(found.image_ids_D == image) for image in sources]
    rows_A, rows_D = np.concatenate(boxes), np.concatenate(detections)
    places = np.arange(len(sources))
    return inputs.Truth(
        places,
        truth.category_ids_K,
        truth.names_K,
        np.repeat(places, [len(rows) for rows in boxes]),
        truth.category_ids_A[rows_A],
        truth.boxes_xywh_A4[rows_A],
        truth.areas_A[rows_A],
        truth.iscrowd_A[rows_A],
    ), inputs.Detections(
        np.repeat(places, [len(rows) for rows in detections]),
        found.category_ids_D[rows_D],
        found.boxes_xywh_D4[rows_D],
        found.scores_D[rows_D],
    )

"""The gate: each finding, classes apart, the size it would take, the frozen test set, and its error rates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.coco import Category
from collect.errors import RefusedError
from train.judging.evaluate import evaluate
from train.loop.evidence import Candidate, gather, once
from train.loop.gate import Difference, Evidence, Finding, Policy, check_frozen, decide, document, fallen_classes


def difference(value: float, spread: float, boxes: int = 500, seed: int = 0) -> Difference:
    samples = value + spread * np.random.default_rng(seed).normal(size=2000)
    return Difference(0.5, 0.5 + value, samples, boxes)


def evidence(value: float, spread: float, **classes: Difference) -> Evidence:
    return Evidence(difference(value, spread), classes, 200)


@pytest.mark.parametrize(
    ("value", "spread", "epsilon", "finding", "promoted"),
    [
        (0.03, 0.01, 0.0, Finding.BETTER, True),
        (0.002, 0.002, 0.0, Finding.NOT_SHOWN, False),
        (0.0, 0.0, 0.0, Finding.NOT_SHOWN, False),
        (-0.03, 0.01, 0.0, Finding.WORSE, False),
        (0.002, 0.002, 0.005, Finding.NOT_WORSE, True),
        (0.0, 0.0, 0.005, Finding.NOT_WORSE, True),
        (-0.002, 0.0005, 0.005, Finding.NOT_WORSE, True),
        (0.0, 0.02, 0.005, Finding.NOT_SHOWN, False),
        (-0.006, 0.0001, 0.005, Finding.WORSE, False),
    ],
)
def test_findings(value, spread, epsilon, finding, promoted):
    verdict = decide(evidence(value, spread), Policy(epsilon=epsilon))
    assert (verdict.finding, verdict.promoted) == (finding, promoted)
    assert verdict.interval[0] <= verdict.delta_ap <= verdict.interval[1]
    assert verdict.reason.startswith("promoted: ΔAP" if promoted else "kept out: ΔAP")


def test_many_classes_that_fell__the_sentence_stays_one():
    names = [f"class {k:02d}" for k in range(20)]
    verdict = decide(evidence(0.02, 0.005, **{n: difference(-0.2 if k < 14 else 0.03, 0.02, 40, seed=k) for k, n in enumerate(names)}))
    assert set(verdict.fallen) == set(names[:14])
    assert "14 of 20 classes (" in verdict.reason and "and 11 more) fell significantly" in verdict.reason
    assert len(verdict.reason) < 140
    few = decide(evidence(0.02, 0.005, **{n: difference(-0.2 if k < 4 else 0.03, 0.02, 40, seed=k) for k, n in enumerate(names)}))
    assert all(name in few.reason for name in names[:4])


def test_too_small__says_how_many_boxes_it_takes():
    """A true gain g is shown with a chance of .8 once the spread is g / (1.960 + 0.842)."""
    verdict = decide(evidence(0.012, 0.02))
    assert verdict.needed_boxes == pytest.approx(500 * (0.02 * 2.802 / 0.012) ** 2, rel=0.1)
    assert verdict.needed_images == pytest.approx(200 * (0.02 * 2.802 / 0.012) ** 2, rel=0.1)
    assert f"a gain of 1.20 AP takes about {verdict.needed_boxes:,} test boxes" in verdict.reason
    assert verdict.shows_from == pytest.approx(0.056, rel=0.1)
    worthwhile = decide(evidence(0.0, 0.02))
    assert "not shown to be better (equal within" in worthwhile.reason and "a gain of 1.00 AP" in worthwhile.reason
    allowed = decide(evidence(0.0, 0.02), Policy(epsilon=0.005))
    assert allowed.needed_boxes == pytest.approx(500 * (0.02 * 2.802 / 0.005) ** 2, rel=0.1)
    assert "a loss of more than 0.50 AP is not ruled out" in allowed.reason


def test_a_class_that_falls_blocks__unless_it_has_few_boxes():
    fell, few = difference(-0.2, 0.03), difference(-0.2, 0.03, boxes=10)
    assert decide(evidence(0.03, 0.01, cat=fell, dog=difference(0.1, 0.03))).finding == Finding.CLASS_FELL
    assert decide(evidence(0.03, 0.01, cat=few)).promoted
    assert decide(evidence(0.03, 0.01, cat=fell)).fallen == ("cat",)


def test_many_classes_share_one_alpha():
    """80 classes that only fluctuate: without Holm's procedure one of them would nearly always 'fall'."""
    blocked = 0
    for trial in range(200):
        shifts = np.random.default_rng(trial).normal(size=80) * 0.03
        classes = {f"c{k}": difference(shift, 0.03, seed=k) for k, shift in enumerate(shifts)}
        blocked += bool(fallen_classes(classes, Policy()))
    assert blocked / 200 <= 0.1


@pytest.mark.parametrize(("t", "boxes", "chance"), [(-3.659, 30, 0.0005), (-2.045, 30, 0.025), (-1.96, 100_000, 0.025), (2.045, 30, 0.975)])
def test_few_boxes_need_a_larger_fall(t, boxes, chance):
    """Student's own table."""
    fall = difference(0.0, 0.01, boxes)
    fall = Difference(0.5, 0.5 + t * fall.spread, fall.samples_R, boxes)
    assert fall.chance_of_no_fall() == pytest.approx(chance, rel=0.02)


@given(st.floats(-0.1, 0.1), st.floats(0.0001, 0.05), st.just(0.0) | st.floats(0.001, 0.02))
def test_promoted_exactly_when_the_lower_bound_clears_epsilon(value, spread, epsilon):
    verdict = decide(evidence(value, spread), Policy(epsilon=epsilon))
    assert verdict.promoted == (verdict.interval[0] > -epsilon)
    assert (verdict.needed_boxes > 0) == (verdict.finding == Finding.NOT_SHOWN)


def test_frozen():
    check_frozen({"a", "b"}, {"a", "b", "c"}, {"d"}, set())
    check_frozen({"a", "b"}, {"a"}, set(), {"b"})
    with pytest.raises(RefusedError, match=r"1 of its 2 images are gone \(b\); it is frozen.*accepted again in `boxwright review`"):
        check_frozen({"a", "b"}, {"a"}, set(), set())
    with pytest.raises(RefusedError, match=r"\(b, c, d, e, f and 2 more\)"):
        check_frozen(set("abcdefgh"), {"a"}, set(), set())
    with pytest.raises(RefusedError, match="training data"):
        check_frozen({"a"}, {"a", "d"}, {"d"}, set())
    with pytest.raises(RefusedError, match="no test images"):
        check_frozen(set(), set(), set(), set())


CATEGORIES = [Category(1, "cat"), Category(2, "dog")]


def scene(seed: int, num_images: int, misses: float, noise: float = 0.03) -> tuple[dict, list[dict], list[dict]]:
    """A test set, and detections of two models of which the second misses more."""
    rng = np.random.default_rng(seed)
    images = [{"id": k, "file_name": f"{k}.jpg", "width": 500, "height": 500} for k in range(1, num_images + 1)]
    annotations, models = [], ([], [])
    for image in images:
        for _ in range(rng.integers(1, 5)):
            box = np.array([*rng.uniform(0, 350, 2), *rng.uniform(30, 140, 2)])
            category = int(rng.integers(1, 3))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                }
            )
            for place, share in enumerate((0.2, 0.2 + misses)):
                if rng.random() > share:
                    found = (box + rng.normal(size=4) * noise * box[[2, 3, 2, 3]]).tolist()
                    models[place].append({"image_id": image["id"], "category_id": category, "bbox": found, "score": float(rng.random())})
    truth = {"images": images, "annotations": annotations, "categories": [{"id": c.id, "name": c.name} for c in CATEGORIES]}
    return truth, *models


def test_gathered_numbers_are_pycocotools_own():
    truth, a, b = scene(0, 60, 0.1)
    told = gather(truth, Candidate(CATEGORIES, a), Candidate(CATEGORIES, b), {}, resamples=300)
    assert told.overall.champion == pytest.approx(evaluate(truth, a).stats[0], abs=1e-12)
    assert told.overall.challenger == pytest.approx(evaluate(truth, b).stats[0], abs=1e-12)
    assert told.overall.num_boxes == len(truth["annotations"]) == sum(d.num_boxes for d in told.classes.values())
    assert abs(told.overall.samples_R.mean() - told.overall.value) < 2 * told.overall.spread
    report = document(told, decide(told), Policy())
    assert report["interval"][0] <= report["delta_ap"] <= report["interval"][1]
    assert set(report["classes"]) == {"cat", "dog"}


def test_renamed_and_new_classes():
    truth, a, b = scene(1, 40, 0.0)
    old = Candidate([Category(7, "kitty")], [{**entry, "category_id": 7} for entry in a if entry["category_id"] == 1])
    told = gather(truth, old, Candidate(CATEGORIES, b), {"kitty": "cat"}, resamples=50)
    assert list(told.classes) == ["cat"]
    assert told.classes["cat"].champion > 0.2
    assert list(told.only_challenger) == ["dog"]
    assert told.only_boxes == {"dog": sum(entry["category_id"] == 2 for entry in truth["annotations"])}
    with pytest.raises(RefusedError, match="no category in common"):
        gather(truth, old, Candidate(CATEGORIES, b), {}, resamples=50)


def test_merged_classes__what_two_former_ones_saw_in_one_object_counts_once():
    truth, a, _ = scene(1, 40, 0.0)
    cats = [entry for entry in a if entry["category_id"] == 1]
    doubt = [
        {**entry, "category_id": 8, "score": entry["score"] * 0.9, "bbox": [1.02 * value for value in entry["bbox"]]} for entry in cats
    ]
    known = [Category(7, "kitty"), Category(8, "tom")]
    old = Candidate(known, [*({**entry, "category_id": 7} for entry in cats), *doubt])
    told = gather(truth, old, Candidate(CATEGORIES[:1], cats), {"kitty": "cat", "tom": "cat"}, resamples=50)
    assert told.classes["cat"].value == 0.0, "an equal challenger is not better for knowing one class less"
    apart = [{**entry, "category_id": 8, "score": 0.5, "bbox": [value + 200 for value in entry["bbox"]]} for entry in cats]
    assert len(once([*cats, *apart], {1: 1, 8: 1})) == 2 * len(cats), "two objects stay two"


def test_equal_detections_are_not_better():
    truth, a, _ = scene(2, 30, 0.0)
    same = gather(truth, Candidate(CATEGORIES, a), Candidate(CATEGORIES, a), {}, resamples=100)
    verdict = decide(same)
    assert (verdict.finding, verdict.delta_ap, verdict.interval) == (Finding.NOT_SHOWN, 0.0, (0.0, 0.0))
    assert "the two find the same" in verdict.reason
    assert decide(same, Policy(epsilon=0.005)).finding == Finding.NOT_WORSE


@pytest.mark.slow
def test_error_rates_on_small_sets():
    """A quick look; `bench_gate.py` measures the rates at 1,000 images, for real detections too."""
    promoted = better = blocked = 0
    for trial in range(40):
        truth, a, b = scene(100 + trial, 150, 0.0)
        told = gather(truth, Candidate(CATEGORIES, a), Candidate(CATEGORIES, b), {}, resamples=200)
        better += decide(told).finding == Finding.BETTER
        truth, a, b = scene(900 + trial, 150, 0.05)  # about 4 AP
        promoted += decide(gather(truth, Candidate(CATEGORIES, a), Candidate(CATEGORIES, b), {}, resamples=200)).promoted
        blocked = trial + 1 - promoted
    assert better <= 6, "binomial(40, .05) exceeds 6 with a chance under 1 %"
    assert blocked >= 36

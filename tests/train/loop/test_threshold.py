"""Where a run starts to propose: where val costs a reviewer least, by the simulated reviewer's own count, and not by one image's chance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.journal import Journal, Kind, Status, box_event, new_box_id
from annotate.review.simulated import Costs, Truth, simulate
from collect import definition as definitions
from tests.train.judging.run_folder import NAMES, drawn_scenes, lay, noisy_detections
from train.judging.run_files import open_run
from train.loop import threshold
from train.loop.propose import Found, merge_found
from train.loop.threshold import ENOUGH_BOXES, UNTOLD, Judged, cheapest, judged_images, seconds, start_of

SIZE = (120, 100)
categories = st.sampled_from(["gull", "crab"])
places = st.tuples(*[st.integers(0, 60).map(float)] * 2, *[st.integers(8, 40).map(float)] * 2)


@st.composite
def judged(draw: st.DrawFn) -> Judged:
    """True boxes, and found ones of which many lie near a true one, merged as proposals are."""
    true = draw(st.lists(st.tuples(categories, places), min_size=1, max_size=4))
    found = [Found(*box, score) for box, score in draw(st.lists(st.tuples(st.tuples(categories, places), st.floats(0, 1)), max_size=4))]
    for category, (x, y, w, h) in true:
        shift, score = draw(st.integers(-6, 6)), draw(st.floats(0, 1))
        found.append(Found(category, (x + shift, y, w, h), score))
    return Judged(tuple(merge_found(found, SIZE)), tuple(true))


@given(judged(), st.integers(1, 4), st.integers(5, 90))
def test_images_that_agree__no_other_score_is_cheaper(image: Judged, count: int, other: int) -> None:
    start = cheapest([image] * count, Costs())
    chosen, there = (seconds(image, np.array([score]), Costs())[0] for score in (start.score, other / 100))
    assert chosen <= there
    assert start.share == pytest.approx(chosen / (7.0 * len(image.true)))


def test_images_that_do_not_agree__one_more_does_not_tip_it() -> None:
    """Half of the images cost least up to .3 (a true box there), half from above .7 on (a false one there)."""
    true = (("gull", (0.0, 0.0, 20.0, 20.0)),)
    low = Judged((Found("gull", true[0][1], 0.3),), true)
    false = tuple(Found("gull", (30.0 + 10 * n, 0.0, 5.0, 5.0), 0.7) for n in range(4))
    high = Judged((Found("gull", true[0][1], 0.9), *false), true)
    alone = [cheapest([image], Costs()).score for image in (low, high)]
    mixed = [cheapest([low, high] * 9 + [more], Costs()).score for more in (low, high)]
    assert alone[0] < 0.4 < 0.6 < alone[1]
    assert alone[0] < min(mixed)
    assert max(mixed) < alone[1]
    assert abs(mixed[1] - mixed[0]) < (alone[1] - alone[0]) / 2


@given(judged(), st.floats(0, 1))
def test_it_counts_as_the_simulated_reviewer_does(tmp_path_factory: pytest.TempPathFactory, image: Judged, score: float) -> None:
    """The same boxes put into a journal and reviewed cost what `seconds` says."""
    folder = tmp_path_factory.mktemp("journal")
    definition = definitions.parse(folder / "dataset.toml", definitions.template("beach", [(1, "gull"), (2, "crab")]))
    with Journal(folder / "labels.sqlite") as journal:
        journal.append(
            box_event(Kind.PROPOSE, "model:m", "b" * 64, new_box_id(), Status.PROPOSED, found.category, found.xywh, found.score)
            for found in image.found
            if found.score >= score
        )
        effort = simulate(journal, definition, [Truth("b" * 64, *SIZE, image.true)])
    assert seconds(image, np.array([score]), Costs())[0] == effort.seconds


def test_a_missed_box_is_dearer_than_a_false_one() -> None:
    """One true box at .3 among three false ones above it: F1 would start above .3, a reviewer is better off at or below it."""
    true = (("gull", (0.0, 0.0, 20.0, 20.0)), ("gull", (60.0, 60.0, 20.0, 20.0)))
    wrong = [Found("gull", (30.0 + 10 * n, 0.0, 5.0, 5.0), 0.4) for n in range(3)]
    found = (Found("gull", true[0][1], 0.9), *wrong, Found("gull", true[1][1], 0.3))
    start = cheapest([Judged(found, true)], Costs())
    assert start.score <= 0.3
    assert start.share == pytest.approx((2 * 1.6 + 3 * 1.6) / 14)
    assert "without proposals" not in start.reason
    hopeless = cheapest([Judged(tuple(Found("gull", (90.0, 0.0, 9.0, 9.0), 0.95) for _ in range(2)), true)], Costs())
    assert "without proposals it is faster" in hopeless.reason


def test_where_looser_boxes_pass_a_doubtful_one_is_worth_a_look() -> None:
    """At .4 one box of IoU .6 among three false ones: to be corrected it would cost 8.8 s, more than drawing; kept as it is, 6.4 s."""
    true = (("gull", (0.0, 0.0, 20.0, 20.0)), ("gull", (60.0, 60.0, 20.0, 20.0)))
    wrong = [Found("gull", (30.0 + 10 * n, 0.0, 5.0, 5.0), 0.4) for n in range(3)]
    found = (Found("gull", true[0][1], 0.9), *wrong, Found("gull", (60.0, 60.0, 20.0, 12.0), 0.4))
    exact, loose = (cheapest([Judged(found, true)], Costs(keep_iou=keep_iou)) for keep_iou in (0.75, 0.5))
    assert exact.score > 0.4 >= loose.score
    assert "from IoU 0.5 on" in loose.reason


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = lay(tmp_path, drawn_scenes(25), NAMES, split="val")
    noisy_detections(path, split="val")
    _best_f1(path, 0.62)
    return path


def _best_f1(run: Path, score: float) -> None:
    (run / "metrics.json").write_text(json.dumps({"threshold": score}))


def test_a_run_starts_where_val_costs_least(run: Path) -> None:
    start = start_of(run, Costs())
    images = judged_images(open_run(run))
    at = {score: sum(seconds(image, np.array([score]), Costs())[0] for image in images) for score in (start.score, 0.62)}
    assert at[start.score] < at[0.62]
    assert start.share is not None
    assert start.share < 0.8
    assert f"on val (25 images, {sum(len(image.true) for image in images)} boxes)" in start.reason


@pytest.mark.parametrize(("best_f1", "score"), [(0.62, UNTOLD), (0.31, 0.31), (0.001, 0.05)])
def test_few_val_boxes__f1_but_no_higher_than_half(tmp_path: Path, best_f1: float, score: float) -> None:
    run = lay(tmp_path, drawn_scenes(5), NAMES, split="val")
    noisy_detections(run, split="val")
    _best_f1(run, best_f1)
    assert 0 < sum(len(image.true) for image in judged_images(open_run(run))) < ENOUGH_BOXES
    start = start_of(run, Costs())
    assert (start.score, start.share) == (score, None)
    assert "too few to tell" in start.reason


def test_no_val__says_so(tmp_path: Path) -> None:
    start = start_of(lay(tmp_path, drawn_scenes(3), NAMES, split="test"), Costs())
    assert start.score == UNTOLD
    assert "no val boxes" in start.reason


def test_val_that_cannot_be_read__says_why(run: Path) -> None:
    (run / "detections-val.json").unlink()
    start = start_of(run, Costs())
    assert start.score == UNTOLD
    assert "detections-val.json" in start.reason
    (run / "metrics.json").write_text("{")
    assert "not valid JSON" in start_of(run, Costs()).reason


def test_many_val_images_are_thinned_out(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threshold, "MOST_IMAGES", 10)
    assert len(judged_images(open_run(run))) == 9

"""What a score is worth: as many boxes are expected on val as there are right detections, whatever noise lies among them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.train.judging.run_folder import NAMES, drawn_scenes, lay, noisy_detections
from train.judging import inputs
from train.judging.matching import match
from train.judging.run_files import open_run
from train.loop.chances import SEEN_IOU, chances_of
from train.loop.threshold import UNTOLD


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Noisy detections, and sixty boxes an image more that are none, as FCOS has them."""
    path = lay(tmp_path, drawn_scenes(25), NAMES, split="val")
    noisy_detections(path, split="val")
    detections = json.loads((path / "detections-val.json").read_bytes())
    rng = np.random.default_rng(1)
    for image in range(1, 26):
        for x, y, side, score in zip(*rng.integers(0, 150, (2, 60)), rng.integers(5, 40, 60), rng.uniform(0.1, 0.3, 60), strict=True):
            box = [float(x), float(y), float(side), float(side)]
            detections.append({"image_id": image, "category_id": 3 + int(side) % 3, "bbox": box, "score": float(score)})
    (path / "detections-val.json").write_text(json.dumps(detections))
    (path / "metrics.json").write_text(json.dumps({"threshold": 0.62}))
    return path


def test_as_many_boxes_are_expected_as_are_right(run: Path) -> None:
    files = open_run(run)
    truth = inputs.truth(files.ground_truth("val"))
    matches = match(truth, inputs.detections(inputs.read_detections(files.detections("val")), truth), np.array([SEEN_IOU]))
    right = int(matches.hits_TN()[0].sum())
    chances = chances_of(run)(matches.scores_N)
    assert matches.scores_N.sum() > 3 * right, "the scores' own sum tells of boxes that are not there"
    assert chances.sum() == pytest.approx(right)
    rising = chances_of(run)(np.linspace(0, 1, 101))
    assert (np.diff(rising) >= 0).all() and rising[0] >= 0 and rising[-1] <= 1


def test_where_nothing_was_right_on_val__all_from_the_best_f1_on(tmp_path: Path) -> None:
    few = lay(tmp_path / "few", drawn_scenes(3), NAMES, split="val")
    (few / "detections-val.json").write_text(json.dumps([{"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 0.9}]))
    (few / "metrics.json").write_text(json.dumps({"threshold": 0.62}))
    scores = np.array([0.1, UNTOLD, 0.61, 0.62, 0.9])
    assert chances_of(few)(scores).tolist() == [0, 0, 0, 1, 1]
    (few / "metrics.json").write_text("{}")
    assert chances_of(few)(scores).tolist() == [0, 1, 1, 1, 1]
    (few / "metrics.json").write_text("{")
    assert chances_of(few)(scores).tolist() == [0, 1, 1, 1, 1], "not readable"


def test_val_that_cannot_be_read(run: Path) -> None:
    (run / "detections-val.json").unlink()
    assert chances_of(run)(np.array([0.5, 0.7])).tolist() == [0, 1]

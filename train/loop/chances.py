"""What a run's scores are worth: the chance that a detection is a box, as its val split has shown.

A detector's score is no probability. FCOS tells a hundred places of an image from .1 on where there are three boxes, and the
sum of its scores says nothing of how many boxes wait there; one in fifty of those places is right, and that is what counts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.isotonic import IsotonicRegression

from annotate.boxes import Floats
from collect.errors import BoxwrightError
from train.judging import inputs
from train.judging.matching import match
from train.judging.run_files import open_run
from train.loop.threshold import ENOUGH_BOXES, UNTOLD

Chances = Callable[[Floats], Floats]


def chances_of(path: Path) -> Chances:
    """From scores (N,) of the run in this folder to chances (N,), each that of a true box of its class at IoU .5.

    A rising curve through what was right on val (isotonic regression; Zadrozny and Elkan, KDD 2002). Where val has too few boxes
    to tell: 1 from the score on where the run's F1 was best, 0 below it.
    """
    try:
        run = open_run(path)
        best_f1 = run.metrics().get("threshold")
    except BoxwrightError:
        return _all_or_nothing(UNTOLD)
    limit = UNTOLD if best_f1 is None else float(best_f1)
    try:
        truth = inputs.truth(run.ground_truth("val"))
        if len(truth.boxes_xywh_A4) < ENOUGH_BOXES:
            return _all_or_nothing(limit)
        found = inputs.detections(inputs.read_detections(run.detections("val")), truth)
    except BoxwrightError:
        return _all_or_nothing(limit)
    matches = match(truth, found, np.array([0.5]))
    counted_N = ~matches.ignored_TN[0]
    if not counted_N.any():
        return _all_or_nothing(limit)
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    curve.fit(matches.scores_N[counted_N], matches.hits_TN()[0, counted_N].astype(np.float64))
    return lambda scores_N: np.asarray(curve.predict(scores_N)) if len(scores_N) else np.zeros(0)


def _all_or_nothing(limit: float) -> Chances:
    return lambda scores_N: np.asarray(scores_N >= limit, dtype=np.float64)

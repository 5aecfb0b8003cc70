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
from train.judging.inputs import Detections, Truth
from train.judging.matching import match
from train.judging.run_files import best_f1_score, open_run
from train.loop.threshold import UNTOLD

Chances = Callable[[Floats], Floats]
#: A detection that overlaps a box of its class this much is right. (.3 foretells better what images hold, and the order by it saved no
#: more boxes: LOG.md, 2026-11-26, fifth session.)
SEEN_IOU = 0.5


def chances_of(path: Path) -> Chances:
    """From scores (N,) of the run in this folder to chances (N,), each that of a true box of its class at IoU .5.

    Where val cannot tell: 1 from the score on where the run's F1 was best, 0 below it.
    """
    limit = UNTOLD
    try:
        run = open_run(path)
        best_f1 = best_f1_score(path)
        limit = UNTOLD if best_f1 is None else best_f1
        truth = inputs.truth(run.ground_truth("val"))
        found = inputs.detections(inputs.read_detections(run.detections("val")), truth)
    except BoxwrightError:
        return _all_or_nothing(limit)
    return learned(truth, found) or _all_or_nothing(limit)


def learned(truth: Truth, found: Detections) -> Chances | None:
    """A rising curve through what was right (isotonic regression; Zadrozny and Elkan, KDD 2002); None where nothing was."""
    matches = match(truth, found, np.array([SEEN_IOU]))
    counted_N = ~matches.ignored_TN[0]
    right_N = matches.hits_TN()[0, counted_N].astype(np.float64)
    if not right_N.any():
        return None
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(matches.scores_N[counted_N], right_N)
    return lambda scores_N: np.asarray(curve.predict(scores_N)) if len(scores_N) else np.zeros(0)


def _all_or_nothing(limit: float) -> Chances:
    return lambda scores_N: np.asarray(scores_N >= limit, dtype=np.float64)

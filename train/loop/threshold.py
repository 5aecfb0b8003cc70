"""The score at which a run starts to propose: the one that costs a reviewer least.

A missing box has to be drawn (7 s), a false one is thrown out at a glance (1.6 s), so the score at which F1 is best is too
high. What a threshold costs is worked out on the run's val split, with the rules and times of the simulated reviewer and
boxes as exact as the definition's `keep_iou` asks: where looser boxes pass, more of the doubtful ones are worth a look. The
best checkpoint was chosen on val too, so the real cost is a little higher than what is told. Val was looked at once, `propose`
looks at each picture twice (:mod:`train.serving.looks`): that moved the score by .01 on raccoon and bccd.

The curve is flat around its lowest point and a val split is small, so that point is chance: with bccd's 19 val images it fell on .58,
which cost .02 of drawing more than .50 on the other images. So it is found on resamples of the val images, and what they say is averaged
(Breiman, "Bagging predictors", 1996).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotate.review.simulated import Costs, Labelled, plan
from collect.errors import BoxwrightError
from train.judging import inputs
from train.judging.run_files import RunFiles, best_f1_score, open_run
from train.loop.propose import Found, merge_found
from train.serving.suppression import CLASS_OVERLAP

#: With fewer val boxes than this the cheapest score is chance: on raccoon's 10 it was .64 or .52, as twins were merged at .6 or .5.
ENOUGH_BOXES = 30
#: Where val cannot tell. Of FCOS on raccoon and bccd, .5 costs within .02 of the cheapest; nothing is known of other detectors.
UNTOLD = 0.5
#: More val images than this are thinned out evenly: the curve is flat around its lowest point.
MOST_IMAGES = 500
_LOWEST, _HIGHEST, _STEP = 0.05, 0.9, 0.01
_RESAMPLES = 400


@dataclass(frozen=True)
class Start:
    """Where a proposer starts, and why. `share` is the time its review takes of drawing every box, None where that is unknown."""

    score: float
    reason: str
    share: float | None = None


@dataclass(frozen=True)
class Judged:
    """One val image: what the run found there, best score first and merged as proposals are, and its true boxes."""

    found: tuple[Found, ...]
    true: tuple[Labelled, ...]


def start_of(path: Path, costs: Costs, class_overlap: float = CLASS_OVERLAP) -> Start:
    """The score at which the run in this folder starts to propose, where boxes of different classes are merged from `class_overlap` on."""
    try:
        run = open_run(path)
        best_f1 = best_f1_score(path)
        images = judged_images(run, class_overlap)
    except BoxwrightError as error:
        return Start(UNTOLD, f"the run's val split cannot be read ({error}), so nothing tells what costs least")
    boxes = sum(len(image.true) for image in images)
    limited = None if best_f1 is None else min(max(best_f1, _LOWEST), _HIGHEST)
    if not boxes:
        return Start(UNTOLD, "the run has no val boxes that could tell which score costs least")
    if boxes < ENOUGH_BOXES:
        few = f"val has only {boxes} boxes, too few to tell which score costs least"
        if limited is None:
            return Start(UNTOLD, few)
        return Start(min(limited, UNTOLD), f"{few}, so where F1 was best there ({limited:.2f}), but at most {UNTOLD:.2f}")
    return cheapest(images, costs)


def cheapest(images: Sequence[Judged], costs: Costs) -> Start:
    """The score from which proposals cost a reviewer least, by the mean of resamples of these images, which must have boxes."""
    scores_S = np.arange(_LOWEST, _HIGHEST + _STEP / 2, _STEP).round(2)
    seconds_IS = np.array([seconds(image, scores_S, costs) for image in images])
    drawn_RI = np.random.default_rng(0).multinomial(len(images), np.full(len(images), 1 / len(images)), size=_RESAMPLES)
    lowest_R = scores_S[(drawn_RI @ seconds_IS).argmin(axis=1)]
    chosen = int(np.abs(scores_S - lowest_R.mean()).argmin())
    boxes = sum(len(image.true) for image in images)
    share = float(seconds_IS[:, chosen].sum() / (costs.draw_s * boxes))
    who = f"a reviewer who keeps boxes from IoU {costs.keep_iou:g} on"
    reason = (
        f"on val ({len(images)} images, {boxes} boxes) that costs {who} least (±{lowest_R.std():.2f}), {share:.0%} of drawing every box"
    )
    if share >= 1:
        reason += ": without proposals it is faster"
    return Start(float(scores_S[chosen]), reason, share)


def seconds(image: Judged, scores_S: NDArray[np.float64], costs: Costs) -> NDArray[np.float64]:
    """What reviewing one image costs with the boxes of at least each of these scores, shape (S,)."""
    falling = np.array([found.score for found in image.found])
    counts_S = (falling[None, :] >= scores_S[:, None]).sum(axis=1)
    seen: list[Labelled] = [(found.category, found.xywh) for found in image.found]
    by_count = {count: plan(seen[:count], image.true, costs).effort.seconds for count in set(counts_S.tolist())}
    return np.array([by_count[count] for count in counts_S.tolist()])


def judged_images(run: RunFiles, class_overlap: float = CLASS_OVERLAP) -> list[Judged]:
    """The run's val images with what it found there; none where it has no val split.

    Raises:
        NotFoundError: the release or the run's detections are not there.
        CorruptError: one of these files is damaged.
        UsageError: the detections belong to other images.
    """
    document = run.ground_truth("val")
    if not document["images"]:
        return []
    truth = inputs.truth(document)
    found = inputs.detections(inputs.read_detections(run.detections("val")), truth)
    names = dict(zip(truth.category_ids_K.tolist(), truth.names_K, strict=True))
    true_of: dict[int, list[Labelled]] = defaultdict(list)
    for image, category, (x, y, w, h) in zip(
        truth.image_ids_A.tolist(), truth.category_ids_A.tolist(), truth.boxes_xywh_A4.tolist(), strict=True
    ):
        true_of[image].append((names[category], (x, y, w, h)))
    found_of: dict[int, list[Found]] = defaultdict(list)
    for image, category, (x, y, w, h), score in zip(
        found.image_ids_D.tolist(), found.category_ids_D.tolist(), found.boxes_xywh_D4.tolist(), found.scores_D.tolist(), strict=True
    ):
        found_of[image].append(Found(names[category], (x, y, w, h), score))
    thinned = document["images"][:: -(-len(document["images"]) // MOST_IMAGES)]
    return [
        Judged(tuple(merge_found(found_of[entry["id"]], (entry["width"], entry["height"]), class_overlap)), tuple(true_of[entry["id"]]))
        for entry in thinned
    ]

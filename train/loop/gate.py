"""The gate: a challenger becomes champion only when the test set says that it is not worse.

It is a test of non-inferiority on the frozen test set. Both models' detections on the same images are resampled together
(paired bootstrap over images), which gives ΔAP = AP(challenger) − AP(champion) an interval.

    better         the lower bound of ΔAP is above 0                         promoted
    not_worse      the lower bound is above −ε                               promoted
    worse          the upper bound is below 0                                kept out
    cannot_tell    anything else: the test set is too small for that ε       kept out, with the size it would take

Bounds are one-sided at `alpha`: a challenger that is truly worse by ε is let in with a chance of `alpha` at most, and two
equal models are called "better" with that chance at most. Besides, no class with at least `min_boxes` boxes may fall
significantly; the classes share one `alpha` (Holm's procedure), so that many classes do not block for nothing. Classes
that only one of the two knows stand apart: they have no Δ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotate.boxes import Floats
from collect.errors import RefusedError

POWER = 0.8


class Finding(StrEnum):
    """What the test set says of the challenger."""

    BETTER = "better"
    NOT_WORSE = "not_worse"
    WORSE = "worse"
    CLASS_FELL = "class_fell"
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True)
class Difference:
    """A paired difference, challenger − champion, as shares of 1 (0.01 = one AP point).

    `samples_R` are its R bootstrap values; `num_boxes` the boxes of the test set it rests on.
    """

    champion: float
    challenger: float
    samples_R: Floats
    num_boxes: int

    @property
    def value(self) -> float:
        return self.challenger - self.champion

    @property
    def spread(self) -> float:
        """Bootstrap standard error."""
        finite = self.samples_R[np.isfinite(self.samples_R)]
        return float(finite.std(ddof=1)) if finite.size > 1 else 0.0

    def bounds(self, alpha: float) -> tuple[float, float]:
        """Lower and upper bound, each missed with a chance of `alpha` (percentiles of the bootstrap)."""
        finite = self.samples_R[np.isfinite(self.samples_R)]
        if not finite.size:
            return self.value, self.value
        low, high = np.quantile(finite, [alpha, 1 - alpha])
        return float(low), float(high)

    def chance_of_no_fall(self) -> float:
        """One-sided p-value of "has not fallen", by the normal approximation with the bootstrap's spread.

        (Counting bootstrap values cannot go below 1/R, too coarse once the classes share `alpha`.)
        """
        if self.spread == 0:
            return 1.0 if self.value >= 0 else 0.0
        return NormalDist().cdf(self.value / self.spread)


@dataclass(frozen=True)
class Policy:
    """What the gate asks for. `epsilon` as a share of 1: the loss of AP that is taken for none."""

    epsilon: float = 0.005
    alpha: float = 0.025
    min_boxes: int = 30


@dataclass(frozen=True)
class Evidence:
    """What is known of the two models on the frozen test set. Classes by name; `only_*` map a class to its AP."""

    overall: Difference
    classes: Mapping[str, Difference]
    num_images: int
    only_challenger: Mapping[str, float] = field(default_factory=dict)
    only_champion: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The gate's word. `interval` is two-sided at 1 − 2·alpha; `fallen` the classes that fell; `needed` what it would take."""

    promoted: bool
    finding: Finding
    reason: str
    delta_ap: float
    interval: tuple[float, float]
    fallen: tuple[str, ...] = ()
    needed_images: int = 0
    needed_boxes: int = 0


def decide(evidence: Evidence, policy: Policy = Policy()) -> Verdict:
    """The verdict on a challenger."""
    low, high = evidence.overall.bounds(policy.alpha)
    fallen = fallen_classes(evidence.classes, policy)
    delta = evidence.overall.value
    shown = f"ΔAP {_points(delta)} [{_points(low)}, {_points(high)}]"
    if low > -policy.epsilon and not fallen:
        finding = Finding.BETTER if low > 0 else Finding.NOT_WORSE
        words = "better" if low > 0 else f"not worse by more than {_points(policy.epsilon, sign=False)}"
        return Verdict(True, finding, f"promoted: {shown}, {words}", delta, (low, high))
    if high < 0:
        return Verdict(False, Finding.WORSE, f"kept out: {shown}, worse", delta, (low, high), fallen)
    if fallen:
        return Verdict(False, Finding.CLASS_FELL, f"kept out: {', '.join(fallen)} fell significantly; {shown}", delta, (low, high), fallen)
    factor = _growth(evidence.overall.spread, policy)
    images, boxes = (int(np.ceil(count * factor)) for count in (evidence.num_images, evidence.overall.num_boxes))
    reason = (
        f"kept out: {shown} does not rule out a loss of {_points(policy.epsilon, sign=False)}; a test set of about {boxes:,} boxes "
        f"({images:,} images) could tell, it has {evidence.overall.num_boxes:,} ({evidence.num_images:,})"
    )
    return Verdict(False, Finding.CANNOT_TELL, reason, delta, (low, high), (), images, boxes)


def fallen_classes(classes: Mapping[str, Difference], policy: Policy) -> tuple[str, ...]:
    """Classes that fell significantly, among those with enough boxes (Holm's step-down at `alpha`)."""
    judged = sorted((d.chance_of_no_fall(), name) for name, d in classes.items() if d.num_boxes >= policy.min_boxes)
    fallen = []
    for place, (chance, name) in enumerate(judged):
        if chance > policy.alpha / (len(judged) - place):
            break
        fallen.append(name)
    return tuple(fallen)


def _growth(spread: float, policy: Policy) -> float:
    """How many times the test set, for an equal model to pass with a chance of `POWER`."""
    wanted = policy.epsilon / (NormalDist().inv_cdf(1 - policy.alpha) + NormalDist().inv_cdf(POWER))
    return max(1.0, (spread / wanted) ** 2)


def _points(share: float, *, sign: bool = True) -> str:
    """A share of 1 in AP points, as people say it."""
    return f"{100 * share:+.2f}" if sign else f"{100 * share:.2f} AP"


def check_frozen(
    champion_test: Iterable[str], challenger_test: Iterable[str], champion_seen: Iterable[str], revoked: Iterable[str]
) -> None:
    """Make sure that both are judged on a test set that stayed frozen; all arguments are sha256 of images.

    It may grow by images that the champion never saw, and lose those that were revoked (taken down, opted out).

    Raises:
        RefusedError: an image left the test set, or one that the champion was trained on came into it.
    """
    before, now = set(champion_test), set(challenger_test)
    lost = before - now - set(revoked)
    leaked = now & set(champion_seen)
    if not now:
        raise RefusedError("the release has no test images, so nothing can be compared; give [split] test a share and release again")
    if lost:
        raise RefusedError(
            f"the test set changed: {len(lost)} of its {len(before)} images are gone (such as {min(lost)[:12]}); it is frozen. "
            "Put them back, or start anew with `boxwright retrain NAME --force`, which is recorded"
        )
    if leaked:
        raise RefusedError(
            f"{len(leaked)} test images (such as {min(leaked)[:12]}) stood in the champion's training data; "
            "the comparison would flatter it. Move them back to train and release again"
        )


def document(evidence: Evidence, verdict: Verdict, policy: Policy) -> dict[str, Any]:
    """What `gate.json` holds: the verdict with all its numbers, APs as shares of 1."""
    return {
        "verdict": "promoted" if verdict.promoted else "kept_out",
        "finding": verdict.finding,
        "reason": verdict.reason,
        "delta_ap": verdict.delta_ap,
        "interval": list(verdict.interval),
        "confidence": 1 - 2 * policy.alpha,
        "champion_ap": evidence.overall.champion,
        "challenger_ap": evidence.overall.challenger,
        "epsilon": policy.epsilon,
        "alpha": policy.alpha,
        "min_boxes": policy.min_boxes,
        "resamples": int(evidence.overall.samples_R.size),
        "images": evidence.num_images,
        "boxes": evidence.overall.num_boxes,
        "needed_images": verdict.needed_images,
        "needed_boxes": verdict.needed_boxes,
        "fallen": list(verdict.fallen),
        "classes": {name: _class_row(entry, policy) for name, entry in evidence.classes.items()},
        "only_challenger": dict(evidence.only_challenger),
        "only_champion": dict(evidence.only_champion),
    }


def _class_row(entry: Difference, policy: Policy) -> dict[str, Any]:
    return {
        "champion_ap": entry.champion,
        "challenger_ap": entry.challenger,
        "delta_ap": entry.value,
        "interval": list(entry.bounds(policy.alpha)),
        "boxes": entry.num_boxes,
        "judged": entry.num_boxes >= policy.min_boxes,
    }


def boxes_by_label(labels_A: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """How many boxes each contiguous label has, shape (C,)."""
    return np.bincount(labels_A, minlength=num_classes)

"""The gate: a challenger becomes champion only when the test set shows that it is better.

Both models' detections on the same frozen test images are resampled together (paired bootstrap over images), which gives
ΔAP = AP(challenger) − AP(champion) an interval. What counts is its lower bound, against −ε (`[train] epsilon`, 0 by default):

    better         the lower bound of ΔAP is above 0                         promoted
    not_worse      ε > 0, and the lower bound is above −ε                    promoted
    worse          the upper bound is below 0                                kept out
    class_fell     a class with at least `min_boxes` boxes fell              kept out
    not_shown      anything else: equal, as far as this test set can tell    kept out, with the size it would take

Bounds are one-sided at `alpha`. With ε = 0 an equal model is promoted with a chance of `alpha`, and one that is worse with
less. With ε > 0 that chance belongs to a model that is worse by ε, and equal ones get in more often, the larger the test set:
that is what it is for, where the new model is wanted for other reasons (labels were corrected, a class was added).

The classes share one `alpha` (Holm's procedure), so that many classes do not block for nothing. Classes that only one of the
two knows stand apart: they have no Δ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from statistics import NormalDist
from typing import Any

import numpy as np

from annotate.boxes import Floats
from collect.errors import RefusedError

#: The chance with which the sizes and gains that a verdict names would be shown.
POWER = 0.8
#: The gain that the needed size is stated for where none was seen: one AP point.
WORTHWHILE = 0.01
#: How many classes, and how many images, a sentence names.
_NAMED, _NAMED_IMAGES = 3, 5


class Finding(StrEnum):
    """What the test set says of the challenger."""

    BETTER = "better"
    NOT_WORSE = "not_worse"
    WORSE = "worse"
    CLASS_FELL = "class_fell"
    NOT_SHOWN = "not_shown"


@dataclass(frozen=True)
class Difference:
    """A paired difference, challenger − champion, as shares of 1 (0.01 = one AP point).

    `samples_R` are its R bootstrap values; `num_boxes` the boxes of the test set it rests on, `num_images` the images they lie in
    (0 = as many as boxes).
    """

    champion: float
    challenger: float
    samples_R: Floats
    num_boxes: int
    num_images: int = 0

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
        """One-sided p-value of "has not fallen": Student's t with as many degrees of freedom as images, less one.

        (Counting bootstrap values cannot go below 1/R, too coarse once the classes share `alpha`; the normal distribution cries
        wolf where images are few, and a rare class's boxes often lie in few. t is brought to a normal quantile by Wallace 1959, eq. 3.)
        """
        if self.spread == 0:
            return 1.0 if self.value >= 0 else 0.0
        t, freedom = self.value / self.spread, max((self.num_images or self.num_boxes) - 1, 1)
        z = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
        return NormalDist().cdf(math.copysign(z, t))


@dataclass(frozen=True)
class Policy:
    """What the gate asks for. `epsilon` as a share of 1: the loss of AP that is taken for none."""

    epsilon: float = 0.0
    alpha: float = 0.025
    min_boxes: int = 30


@dataclass(frozen=True)
class Evidence:
    """What is known of the two models on the frozen test set. Classes by name.

    `only_*` map a class that one of them does not know to the other's AP, `only_boxes` both kinds to their boxes.
    """

    overall: Difference
    classes: Mapping[str, Difference]
    num_images: int
    only_challenger: Mapping[str, float] = field(default_factory=dict)
    only_champion: Mapping[str, float] = field(default_factory=dict)
    only_boxes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The gate's word.

    Attributes:
        interval: of ΔAP, two-sided at 1 − 2·alpha.
        fallen: the classes that fell.
        shows_from: the least true gain that this test set would show with a chance of `POWER`.
        needed_images: the size at which it would show what `reason` names; 0 where the verdict is clear. So `needed_boxes`.
    """

    promoted: bool
    finding: Finding
    reason: str
    delta_ap: float
    interval: tuple[float, float]
    fallen: tuple[str, ...] = ()
    shows_from: float = 0.0
    needed_images: int = 0
    needed_boxes: int = 0


def decide(evidence: Evidence, policy: Policy = Policy()) -> Verdict:
    """The verdict on a challenger."""
    overall = evidence.overall
    low, high = overall.bounds(policy.alpha)
    fallen = fallen_classes(evidence.classes, policy)
    shown = f"ΔAP {_points(overall.value)} points [{_points(low)} to {_points(high)}]"
    finding = _finding(low, high, fallen, policy)
    words = {
        Finding.BETTER: f"promoted: {shown}, better",
        Finding.NOT_WORSE: f"promoted: {shown}, not worse by more than the {_ap(policy.epsilon)} that dataset.toml allows",
        Finding.WORSE: f"kept out: {shown}, worse",
        Finding.CLASS_FELL: f"kept out: {_fell(fallen, len(evidence.classes))} fell significantly; {shown}",
    }
    told = Verdict(
        promoted=finding in {Finding.BETTER, Finding.NOT_WORSE},
        finding=finding,
        reason=words.get(finding, ""),
        delta_ap=overall.value,
        interval=(low, high),
        fallen=fallen,
        shows_from=max(0.0, _reach(policy) * overall.spread - policy.epsilon),
    )
    return _not_shown(told, evidence, policy, shown) if finding == Finding.NOT_SHOWN else told


def _finding(low: float, high: float, fallen: tuple[str, ...], policy: Policy) -> Finding:
    if low > -policy.epsilon and not fallen:
        return Finding.BETTER if low > 0 else Finding.NOT_WORSE
    if high < 0:
        return Finding.WORSE
    return Finding.CLASS_FELL if fallen else Finding.NOT_SHOWN


def _not_shown(told: Verdict, evidence: Evidence, policy: Policy, shown: str) -> Verdict:
    """The same verdict with what it would take to tell: for the gain that was seen, or for a worthwhile one."""
    overall = evidence.overall
    if policy.epsilon:
        gain, wanted = 0.0, f"to rule out a loss of {_ap(policy.epsilon)}"
        words = f"a loss of more than {_ap(policy.epsilon)} is not ruled out"
    else:
        gain = max(overall.value, WORTHWHILE)
        wanted = f"to show a gain of {_ap(gain)}"
        words = f"not shown to be better (equal within {_ap(max(-told.interval[0], told.interval[1]))})"
    if overall.spread == 0:
        return replace(told, reason=f"kept out: {shown}, the two find the same")
    factor = max(1.0, (_reach(policy) * overall.spread / (gain + policy.epsilon)) ** 2)
    images, boxes = (int(np.ceil(count * factor)) for count in (evidence.num_images, overall.num_boxes))
    size = f"{wanted} takes about {boxes:,} test boxes ({images:,} images); there are {overall.num_boxes:,} ({evidence.num_images:,})"
    reach = f"which show gains from {_ap(told.shows_from)}"
    return replace(told, reason=f"kept out: {shown}, {words}; {size}, {reach}", needed_images=images, needed_boxes=boxes)


def _reach(policy: Policy) -> float:
    """How many standard errors a true difference must be away from −ε to be shown with a chance of `POWER`."""
    return NormalDist().inv_cdf(1 - policy.alpha) + NormalDist().inv_cdf(POWER)


def fallen_classes(classes: Mapping[str, Difference], policy: Policy) -> tuple[str, ...]:
    """Classes that fell significantly, among those with enough boxes (Holm's step-down at `alpha`)."""
    judged = sorted((d.chance_of_no_fall(), name) for name, d in classes.items() if d.num_boxes >= policy.min_boxes)
    fallen = []
    for place, (chance, name) in enumerate(judged):
        if chance > policy.alpha / (len(judged) - place):
            break
        fallen.append(name)
    return tuple(fallen)


def _fell(fallen: tuple[str, ...], num_classes: int) -> str:
    """The classes that fell; of many the surest, for the verdict's table marks each."""
    if len(fallen) <= _NAMED + 1:
        return ", ".join(fallen)
    return f"{len(fallen)} of {num_classes} classes ({', '.join(fallen[:_NAMED])} and {len(fallen) - _NAMED} more)"


def _points(share: float) -> str:
    """A signed share of 1 in AP points, as people say it."""
    return f"{100 * share:+.2f}"


def _ap(share: float) -> str:
    return f"{100 * share:.2f} AP"


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
        raise RefusedError(
            "the release has no test images, so nothing can be compared; give [split] test a share, add "
            "images (those that were imported with a split keep it until `boxwright splits NAME --free SPLIT`), and release again"
        )
    if lost:
        raise RefusedError(
            f"the test set changed: {len(lost)} of its {len(before)} images are gone ({_listed(lost)}); it is frozen. Put them back "
            "(what was rejected or sent back is accepted again in `boxwright review`), or begin anew with `boxwright retrain … --force`, "
            "which is recorded"
        )
    if leaked:
        raise RefusedError(
            f"{len(leaked)} test images ({_listed(leaked)}) stood in the champion's training data; "
            "the comparison would flatter it. Move them back to train and release again"
        )


def _listed(sha256s: Iterable[str]) -> str:
    """Images as people find them in the review: the first few of them by the head of their hash."""
    heads = sorted(sha256[:12] for sha256 in sha256s)
    more = f" and {len(heads) - _NAMED_IMAGES} more" if len(heads) > _NAMED_IMAGES else ""
    return ", ".join(heads[:_NAMED_IMAGES]) + more


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
        "shows_from": verdict.shows_from,
        "needed_images": verdict.needed_images,
        "needed_boxes": verdict.needed_boxes,
        "fallen": list(verdict.fallen),
        "classes": {name: _class_row(entry, policy) for name, entry in evidence.classes.items()},
        "only_challenger": dict(evidence.only_challenger),
        "only_champion": dict(evidence.only_champion),
        "only_boxes": dict(evidence.only_boxes),
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

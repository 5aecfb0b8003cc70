"""Why images are in the queue, strongest reason first.

A reason that is a pair stands until the pair is settled; then the next strongest one stands, or none. So a verdict on one
image can take away, and its undoing bring back, what is said about another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from annotate.journal import Verdict
from annotate.review import lookalikes
from annotate.review.lookalikes import Pair
from annotate.state import ImageLabels


@dataclass(frozen=True)
class Why:
    """Why an image is where it is in the queue; a higher score comes earlier.

    `at` is when it was found to be wanted; a verdict given before that is asked for again. "" = it only orders what waits.
    `pair` is the pair of images that look alike which it tells of, None for every other reason.
    """

    score: float
    reason: str
    at: str = ""
    pair: Pair | None = None


def standing(whys: Sequence[Why], entry_of: Callable[[str], ImageLabels]) -> Why | None:
    """The strongest of an image's reasons that still stands, by the labels that `entry_of` tells of images."""
    return next((why for why in whys if why.pair is None or not lookalikes.settled(why.pair, entry_of)), None)


def asks_again(entry: ImageLabels, why: Why | None) -> bool:
    """Whether an image that has its verdict is to be looked at once more: what speaks against it came up later."""
    return entry.verdict in {Verdict.ACCEPTED, Verdict.REJECTED} and why is not None and why.at > entry.reviewed_at


def with_pairs(reasons: dict[str, Why], pairs: Sequence[Pair]) -> dict[str, list[Why]]:
    """All reasons of each image, strongest first: its own, and every pair that it belongs to."""
    whys = {image: [why] for image, why in reasons.items()}
    for pair in pairs:
        for image in pair.names:
            whys.setdefault(image, []).append(Why(pair.cosine, lookalikes.reason(pair, image), pair.at, pair))
    return {image: sorted(each, key=lambda why: -why.score) for image, each in whys.items()}

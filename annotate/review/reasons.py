"""Why images are in the queue, strongest reason first.

A reason that is a pair stands until the pair is settled; then the next strongest one stands, or none. So a verdict on one
image can take away, and its undoing bring back, what is said about another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from annotate.journal import Verdict
from annotate.review import lookalikes
from annotate.review.lookalikes import Pair
from annotate.state import ImageLabels
from collect.admission import quality_limits
from collect.definition import CollectPolicy
from collect.records import ImageRecord


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


def flags(record: ImageRecord, policy: CollectPolicy) -> dict[str, float]:
    """What speaks against the picture itself: checks that are at least half way to keeping it out, 0 = just half, 1 = it would be out."""
    limits = {name: limit for name, _, limit in quality_limits(policy)}
    near = {name: 2 * value / (limits.get(name) or 1.0) - 1 for name, value in sorted(record.quality.items())}
    return {name: min(share, 1.0) for name, share in near.items() if share >= 0}


def all_whys(found: dict[str, Why], pairs: Sequence[Pair], records: Iterable[ImageRecord], policy: CollectPolicy) -> dict[str, list[Why]]:
    """All reasons of each image, strongest first: what was `found` about it, every pair that it belongs to, its flagged quality."""
    whys = {image: [why] for image, why in found.items()}
    for pair in pairs:
        for image in pair.names:
            whys.setdefault(image, []).append(Why(pair.cosine, lookalikes.reason(pair, image), pair.at, pair))
    for record in records:
        if flagged := flags(record, policy):
            whys.setdefault(record.sha256, []).append(Why(max(flagged.values()), ", ".join(f"quality: {name}" for name in flagged)))
    return {image: sorted(each, key=lambda why: -why.score) for image, each in whys.items()}

"""Splits that cannot leak: groups are split, not images, and what was decided once stays.

A group joins near-duplicates, images of one source page, frames of one video and, where the definition says so, images of
one author or domain. A group goes whole into one split. An image never changes its split; a group that later turns out to
touch several splits keeps its images in the strongest of them (test before val before train) and the others are held out
of the release, since a test image must not have a twin in train.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from collect.definition import SplitPolicy

SPLITS = ("train", "val", "test")
#: COCO's size classes, see :func:`size_name`.
SIZES = ("small", "medium", "large")
_STRENGTH = {"test": 2, "val": 1, "train": 0}


@dataclass(frozen=True)
class Member:
    """One image to be split. `links` are the keys it shares with its group; `decided` the split it already has, or "".

    `strata` counts its boxes by stratum, such as `("cat", "small")`; images without boxes have `("", "")`.
    """

    sha256: str
    links: tuple[Hashable, ...] = ()
    decided: str = ""
    strata: Mapping[Hashable, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Assignment:
    """The outcome: the split and the group number of each image, and the images held out because they would leak."""

    split_of: dict[str, str]
    group_of: dict[str, int]
    held_out: dict[str, str]

    def crossing(self) -> list[int]:
        """Groups with images in more than one split; always empty for what :func:`assign` returns."""
        splits: dict[int, set[str]] = defaultdict(set)
        for sha256, split in self.split_of.items():
            splits[self.group_of[sha256]].add(split)
        return sorted(group for group, found in splits.items() if len(found) > 1)


def groups(members: Sequence[Member]) -> dict[str, int]:
    """Group number by image: the connected components over shared links, numbered in the order of the images."""
    parent = list(range(len(members)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    first: dict[Hashable, int] = {}
    for place, member in enumerate(members):
        for link in member.links:
            other = first.setdefault(link, place)
            parent[root(place)] = root(other)
    numbers: dict[int, int] = {}
    return {member.sha256: numbers.setdefault(root(place), len(numbers)) for place, member in enumerate(members)}


def assign(members: Iterable[Member], policy: SplitPolicy) -> Assignment:
    """Give every image a split. The same members give the same splits, in whatever order they come.

    Free groups go, largest first, to the split that what they hold brings nearest to its share; what is decided counts.
    """
    ordered = sorted(members, key=lambda member: member.sha256)
    group_of = groups(ordered)
    by_group: dict[int, list[Member]] = defaultdict(list)
    for member in ordered:
        by_group[group_of[member.sha256]].append(member)
    split_of: dict[str, str] = {}
    held_out: dict[str, str] = {}
    need = _Need(ordered, policy)
    free: list[list[Member]] = []
    for group in by_group.values():
        decided = {member.decided for member in group if member.decided}
        if not decided:
            free.append(group)
            continue
        strongest = max(decided, key=lambda split: _STRENGTH[split])
        for member in group:
            if member.decided in {"", strongest}:
                split_of[member.sha256] = strongest
                need.take(strongest, member)
            else:
                held_out[member.sha256] = f"its group reaches into {strongest}, and an image never leaves {member.decided}"
    for group in sorted(free, key=need.order):
        split = need.best(group)
        for member in group:
            split_of[member.sha256] = split
            need.take(split, member)
    return Assignment(split_of, group_of, held_out)


class _Need:
    """What each split still lacks, per stratum and in images."""

    def __init__(self, members: Sequence[Member], policy: SplitPolicy) -> None:
        self.seed = policy.seed
        self.total: Counter[Hashable] = Counter()
        for member in members:
            self.total.update(_weights(member))
        shares = {"train": policy.train, "val": policy.val, "test": policy.test}
        self.open = [split for split in SPLITS if shares[split] > 0]
        self.target = {split: {key: shares[split] * count for key, count in self.total.items()} for split in SPLITS}
        self.lack = {split: dict(wanted) for split, wanted in self.target.items()}

    def order(self, group: list[Member]) -> tuple[int, bytes]:
        """Large groups first, while there is room for them anywhere; equals by a hash that the seed changes."""
        digest = hashlib.sha256(f"{self.seed} {min(member.sha256 for member in group)}".encode()).digest()
        return -sum(sum(_weights(member).values()) for member in group), digest

    def best(self, group: list[Member]) -> str:
        held: Counter[Hashable] = Counter()
        for member in group:
            held.update(_weights(member))

        def gain(split: str) -> float:
            # By how much chi-square (squared distances from the targets, in units of the targets) would fall, where a stratum counts
            # by the root of its size: by size alone rare strata would go unheard, evenly they would outvote the others.
            lack, target = self.lack[split], self.target[split]
            return sum(count * (2 * lack[key] - count) / target[key] / math.sqrt(self.total[key]) for key, count in held.items())

        return max(self.open, key=gain)

    def take(self, split: str, member: Member) -> None:
        for key, count in _weights(member).items():
            self.lack[split][key] -= count


def _weights(member: Member) -> dict[Hashable, int]:
    return {"image": 1, **member.strata}


def size_name(area_px: float) -> str:
    """COCO's size classes: small < 32², medium < 96², large (cocodataset.org/#detection-eval)."""
    return "small" if area_px < 32**2 else "medium" if area_px < 96**2 else "large"


def naive_leak(group_of: Mapping[str, int], policy: SplitPolicy, rounds: int = 20) -> float:
    """Share of test images that would have a group mate in train, were images split at random: mean over `rounds`."""
    numbers = np.array(list(group_of.values()), dtype=np.int64)
    if len(numbers) == 0 or policy.test == 0:
        return 0.0
    generator = np.random.default_rng(policy.seed)
    shares = []
    for _ in range(rounds):
        draw = generator.random(len(numbers))
        test, train = draw < policy.test, draw >= policy.test + policy.val
        shares.append(float(np.isin(numbers[test], numbers[train]).mean()) if test.any() else 0.0)
    return float(np.mean(shares))

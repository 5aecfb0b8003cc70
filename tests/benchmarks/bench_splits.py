"""How evenly splits hold each class and box size: ours beside scikit-learn's StratifiedGroupKFold, on the same boxes and groups.

    python tests/benchmarks/bench_splits.py [--quick]

Prints one JSON document. The peer takes one label per image (here the rarest stratum on it) and makes equal folds: of seven, one is
test, one val. Each is held against the shares that it aims at. `worst` is the largest distance from the aimed share over all strata
of at least 20 boxes and all splits, in points of per cent; `mean` the mean of these distances weighted by boxes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from annotate.formats.format import importer
from annotate.splits import Member, assign, size_name
from collect.definition import SplitPolicy

DATA = Path(__file__).parents[3] / "shared" / "data"
SETS = {"facemask-coco": "coco", "bccd": "voc", "voc20-in-nine-formats/gts/coco_format_v1": "coco"}
_FOLDS = 7


def members_of(folder: Path, form: str, seed: int) -> list[Member]:
    """The images of a real set, in groups of one to eight drawn at random, as pages and near-duplicates make them."""
    images = importer(form)(folder).images
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(images)), random.integers(1, 9, len(images)))[: len(images)]
    members = []
    for number, (image, group) in enumerate(zip(images, groups.tolist(), strict=True)):
        strata = Counter((box.category, size_name(box.w * box.h)) for box in image.boxes)
        members.append(Member(f"{number * 2654435761 % 2**64:064x}", (group,), "", dict(strata) or {("", ""): 1}))
    return members


def peer(members: list[Member], seed: int) -> dict[str, str]:
    """sha256 -> split by StratifiedGroupKFold."""
    from sklearn.model_selection import StratifiedGroupKFold

    total: Counter[Any] = Counter()
    for member in members:
        total.update(member.strata)
    labels = [str(min(member.strata, key=lambda stratum: total[stratum])) for member in members]
    groups = [member.links[0] for member in members]
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed).split(np.zeros(len(members)), labels, groups)
    split_of = {member.sha256: "train" for member in members}
    for split, (_, rows) in zip(("test", "val"), folds, strict=False):
        split_of |= {members[row].sha256: split for row in rows}
    return split_of


def distances(members: list[Member], split_of: dict[str, str], aimed: dict[str, float]) -> tuple[float, float]:
    """The worst distance from the aimed shares and the mean one, in points of per cent."""
    held: dict[Any, Counter[str]] = {}
    for member in members:
        for stratum, count in member.strata.items():
            held.setdefault(stratum, Counter())[split_of[member.sha256]] += count
    large = [counts for counts in held.values() if counts.total() >= 20]
    off = [(abs(counts[split] / counts.total() - share) * 100, counts.total()) for counts in large for split, share in aimed.items()]
    return max(value for value, _ in off), float(np.average([value for value, _ in off], weights=[weight for _, weight in off]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three draws of groups instead of twenty")
    seeds = range(3 if parser.parse_args().quick else 20)
    results: dict[str, Any] = {}
    for name, form in SETS.items():
        if not (DATA / name).is_dir():
            results[name] = "no real data"
            continue
        rows, cpu_s = [], [0.0, 0.0]
        for seed in seeds:
            members = members_of(DATA / name, form, seed)
            policy = SplitPolicy(seed=seed)
            started = time.process_time()
            ours = assign(members, policy).split_of
            between = time.process_time()
            theirs = peer(members, seed)
            cpu_s = [cpu_s[0] + between - started, cpu_s[1] + time.process_time() - between]
            fold = 1 / _FOLDS
            rows.append(
                (
                    *distances(members, ours, {"train": policy.train, "val": policy.val, "test": policy.test}),
                    *distances(members, theirs, {"train": 1 - 2 * fold, "val": fold, "test": fold}),
                )
            )
        means = [round(float(value), 2) for value in np.mean(rows, axis=0)]
        results[name] = {
            "images": len(members),
            "draws": len(rows),
            "ours": {"worst": means[0], "mean": means[1], "cpu_s": round(cpu_s[0], 2)},
            "StratifiedGroupKFold": {"worst": means[2], "mean": means[3], "cpu_s": round(cpu_s[1], 2)},
        }
    sys.stdout.write(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

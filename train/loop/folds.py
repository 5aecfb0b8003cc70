"""Cross-validated predictions: every image is judged by a small model that never saw it, nor a near-duplicate of it.

The images are cut into k folds on groups; for each fold a detector is trained briefly on the others and predicts it.
Folds follow one another from the same ImageNet weights, with the same budget; what is done is kept, so an interrupted audit
goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from annotate import coco
from annotate.coco import Document
from collect.errors import UsageError
from collect.files import write_atomic
from train.data.release import Release
from train.fitting.config import TrainConfig
from train.fitting.fit import Fit, fit
from train.fitting.progress import Progress
from train.fitting.ranks import joined
from train.serving.predictor import Predictor, detect_split

logger = logging.getLogger(__name__)

Say = Callable[[str], None]


@dataclass(frozen=True)
class FoldPlan:
    """How the folds are made and trained. `options` are settings of :class:`TrainConfig`."""

    folds: int = 4
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


def assign(groups_I: Sequence[Hashable], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each image: whole groups, the largest first into the emptiest fold, else at random.

    Raises:
        UsageError: fewer groups than folds.
    """
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups_I):
        members.setdefault(group, []).append(row)
    if len(members) < folds:
        raise UsageError(f"{len(members)} groups of images cannot make {folds} folds; label more images, or give --folds {len(members)}")
    keys = list(members)
    order = np.random.default_rng(seed).permutation(len(keys)).tolist()
    order.sort(key=lambda place: -len(members[keys[place]]))
    result, sizes = np.zeros(len(groups_I), dtype=np.int64), [0] * folds
    for place in order:
        fold = int(np.argmin(sizes))
        rows = members[keys[place]]
        result[rows] = fold
        sizes[fold] += len(rows)
    return result


def cross_predict(
    document: Document, images: Path, groups_I: Sequence[Hashable], workplace: Path, plan: FoldPlan, say: Say = logger.info
) -> list[dict[str, Any]]:
    """COCO results for all images of a document, each by a model that did not see it.

    Args:
        document: images with `sha256`, and their boxes as they are now.
        images: the folder that `file_name` counts from.
        groups_I: images with equal entries stay in one fold.
        workplace: a folder of one's own for what is done, such as `datasets/NAME/.cache/audit`.
        plan: folds and budget.
        say: who is told how it goes.
    """
    fold_I = assign(groups_I, plan.folds, plan.seed)
    key = hashlib.sha256(
        orjson.dumps([document, dict(plan.options), plan.folds, plan.seed], option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS)
    ).hexdigest()[:16]
    results: list[dict[str, Any]] = []
    for fold in range(plan.folds):
        kept = workplace / key / f"fold-{fold}.json"
        if kept.is_file():
            results += json.loads(kept.read_bytes())
            continue
        say(f"fold {fold + 1} of {plan.folds}: training on the others")
        rows = _one_fold(document, images, fold_I == fold, workplace / key / f"fold-{fold}", plan)
        write_atomic(kept, orjson.dumps(rows))
        shutil.rmtree(workplace / key / f"fold-{fold}", ignore_errors=True)
        results += rows
    return results


def _one_fold(document: Document, images: Path, held_I: NDArray[np.bool_], run_path: Path, plan: FoldPlan) -> list[dict[str, Any]]:
    """Train on the images that are not held out, predict those that are."""
    rows = list(zip(document["images"], held_I.tolist(), strict=True))
    parts = {
        "train": _part(document, [image for image, held in rows if not held]),
        "val": _part(document, []),
        "test": _part(document, [image for image, held in rows if held]),
    }
    splits = {split: coco.arrays(part) for split, part in parts.items()}
    release = Release("audit", "now", parts, splits, images, run_path.parent.parent.parent)
    config = TrainConfig("audit", "now", splits["train"].categories).with_options(dict(plan.options))
    shutil.rmtree(run_path, ignore_errors=True)
    run_path.mkdir(parents=True)
    with joined(config.device) as ranks:
        fit(config, release, run_path, ranks, Fit(progress=Progress(None, logger.info, False, False)))
    results, failures = detect_split(Predictor.from_run(run_path, config.device, num_threads=config.threads), splits["test"], images)
    for failure in failures:
        logger.warning("not audited, since it cannot be read: %s", failure)
    return results


def _part(document: Document, images: list[dict[str, Any]]) -> Document:
    kept = {image["id"] for image in images}
    return {**document, "images": images, "annotations": [a for a in document["annotations"] if a["image_id"] in kept]}

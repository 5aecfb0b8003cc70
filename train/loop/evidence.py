"""What the gate decides on: two runs' detections on the same test images, resampled together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotate.boxes import Floats
from annotate.coco import Category, Document
from collect.errors import RefusedError
from train.judging import inputs
from train.judging.evaluate import Evaluation, evaluate
from train.judging.inputs import Detections, Truth
from train.judging.intervals import resampled_ap
from train.loop.gate import Difference, Evidence
from train.serving.suppression import surest

RESAMPLES = 1000
#: Of two boxes that overlap more than this a detector that knows one class for both keeps the surer (the suppression of ours).
ONE_OBJECT_IOU = 0.6


@dataclass(frozen=True)
class Candidate:
    """One of the two models: its categories, and its detections as COCO results with its own category ids."""

    categories: Sequence[Category]
    results: Sequence[Mapping[str, Any]]


def gather(
    document: Document, champion: Candidate, challenger: Candidate, aliases: Mapping[str, str], resamples: int = RESAMPLES, seed: int = 0
) -> Evidence:
    """The evidence on the test images of `document`.

    Args:
        document: the frozen test set, with the categories of the new release.
        champion: what is there.
        challenger: what wants to be.
        aliases: former category name → present name (renamed or merged classes); names not in it stay.
        resamples: how many bootstrap resamples of the images.
        seed: of the resamples.

    Raises:
        RefusedError: the two have no category in common that the test set has boxes of.
    """
    truth = inputs.truth(document)
    ids = dict(zip(truth.names_K, truth.category_ids_K.tolist(), strict=True))
    names = [{aliases.get(category.name, category.name) for category in each.categories} for each in (champion, challenger)]
    shared = [name for name in truth.names_K if name in names[0] & names[1]]
    judged = [_evaluation(truth, each, ids, aliases) for each in (champion, challenger)]
    aps = [{row["name"]: row["ap"] for row in evaluation.per_category} for evaluation in judged]
    counts, images = _boxes(truth), _images(truth)
    told = [name for name in shared if counts[name]]
    if not told:
        raise RefusedError(
            f"champion and challenger have no category in common that the test set shows (champion: {', '.join(sorted(names[0]))}; "
            f"challenger: {', '.join(sorted(names[1]))}); declare renamed classes with `was` in dataset.toml, or use --force"
        )
    weights_IS = draw(len(truth.image_ids_I), resamples, seed)
    samples = [resampled_ap(each.truth, each.found, weights_IS) for each in judged]
    columns = {name: truth.names_K.index(name) for name in told}
    by_class = {name: [_mean(values_STK[:, :, [column]]) for values_STK in samples] for name, column in columns.items()}
    classes = {
        name: Difference(aps[0][name], aps[1][name], by_class[name][1] - by_class[name][0], counts[name], images[name]) for name in told
    }
    before, after = (_mean(values_STK[:, :, list(columns.values())]) for values_STK in samples)
    overall = Difference(
        float(np.mean([aps[0][name] for name in told])), float(np.mean([aps[1][name] for name in told])), after - before,
        sum(counts[name] for name in told),
    )  # fmt: skip
    return Evidence(
        overall,
        classes,
        len(truth.image_ids_I),
        {name: aps[1][name] for name in sorted(names[1] - names[0]) if counts.get(name)},
        {name: aps[0][name] for name in sorted(names[0] - names[1]) if counts.get(name)},
        {name: counts[name] for name in sorted(names[0] ^ names[1]) if counts.get(name)},
    )


def draw(num_images: int, resamples: int, seed: int) -> NDArray[np.int32]:
    """How often each image is drawn in each resample, int32 of shape (I, S)."""
    drawn = np.random.default_rng(seed).multinomial(num_images, np.full(num_images, 1 / num_images), size=resamples)
    return np.ascontiguousarray(drawn.T.astype(np.int32))


def _evaluation(truth: Truth, candidate: Candidate, ids: Mapping[str, int], aliases: Mapping[str, str]) -> Evaluation:
    """Judge a candidate with its categories brought to the truth's ids by name; categories unknown there fall away."""
    own = {category.id: ids.get(aliases.get(category.name, category.name), -1) for category in candidate.categories}
    results = [
        {**entry, "category_id": own[entry["category_id"]]} for entry in once(candidate.results, own) if own[entry["category_id"]] >= 0
    ]
    kept: Detections = inputs.detections(results, truth)
    return evaluate(truth, kept)


def once(results: Sequence[Mapping[str, Any]], own: Mapping[int, int]) -> list[Mapping[str, Any]]:
    """The results, less those that another category gave, surer, for the same object, where `own` makes one of the two.

    A model that knows `cloth mask` and `paper mask` draws both around a face in doubt; held against `mask`, into which they were
    merged, the second would count as wrong, and every challenger that knows only `mask` would look better than it is.
    """
    merged = {kind for kind, count in Counter(own.values()).items() if count > 1 and kind >= 0}
    kept: list[Mapping[str, Any]] = []
    boxes: dict[tuple[int, int], list[Mapping[str, Any]]] = defaultdict(list)
    for entry in results:
        kind = own.get(entry["category_id"], -1)
        (boxes[entry["image_id"], kind] if kind in merged else kept).append(entry)
    for entries in boxes.values():
        boxes_N4, scores_N, kinds_N = (np.array([entry[key] for entry in entries]) for key in ("bbox", "score", "category_id"))
        kept += [entries[row] for row in surest(boxes_N4, scores_N, kinds_N, ONE_OBJECT_IOU).tolist()]
    return kept


def _boxes(truth: Truth) -> dict[str, int]:
    """How many boxes that count each category has."""
    rows = truth.rows_of_categories(truth.category_ids_A[~truth.iscrowd_A])
    return dict(zip(truth.names_K, np.bincount(rows, minlength=len(truth.names_K)).tolist(), strict=True))


def _images(truth: Truth) -> dict[str, int]:
    """In how many images each category has boxes that count."""
    kept = ~truth.iscrowd_A
    pairs = np.unique(np.column_stack([truth.rows_of_categories(truth.category_ids_A[kept]), truth.image_ids_A[kept]]), axis=0)
    return dict(zip(truth.names_K, np.bincount(pairs[:, 0], minlength=len(truth.names_K)).tolist(), strict=True))


def _mean(ap_STK: Floats) -> Floats:
    """The mean of each resample over thresholds and those categories that it has boxes of, (S,); NaN where it has none."""
    flat = ap_STK.reshape(len(ap_STK), -1)
    present = np.isfinite(flat)
    count = present.sum(axis=1)
    mean: Floats = np.divide(np.where(present, flat, 0.0).sum(axis=1), count, out=np.full(len(flat), np.nan), where=count > 0)
    return mean

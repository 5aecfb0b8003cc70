"""Drift: how the images that came in differ from the old ones, and on which slices the model fails.

Each property (source, size, brightness, look) gets a distance between new and old and the share of random regroupings that
are at least as far apart (a permutation test), so that a handful of new images is not called drift.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotate.boxes import Floats
from collect.ledger import Ledger
from collect.records import ImageRecord
from collect.workspace import Dataset
from train.data.release import SPLITS, Release
from train.judging import inputs
from train.judging.matching import match
from train.loop.embedding import Embedder

MOST_IMAGES = 300
PERMUTATIONS = 300
LEAST_NEW = 5
LEAST_BOXES = 15
SCORE = 0.3


def report(dataset: Dataset, before: Release | None, after: Release, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Drift between two releases, and the slices of `after`'s test split on which `results` (COCO results) miss most."""
    with Ledger(dataset.ledger) as ledger:
        records = {record.sha256: record for record in ledger.images()}
    old = _images(before) if before else set()
    new = _images(after) - old
    kept_old, kept_new = ([records[sha] for sha in sorted(group) if sha in records] for group in (old, new))
    shift = compare(dataset, kept_old, kept_new) if before and len(kept_new) >= LEAST_NEW else {}
    return {
        "new_images": len(new),
        "old_images": len(old),
        "gone_images": len(old - _images(after)),
        "shift": shift,
        "weak_slices": weak_slices(after, records, results),
    }


def _images(release: Release) -> set[str]:
    return {sha for split in SPLITS for sha in release.splits[split].sha256_I}


def compare(dataset: Dataset, old: Sequence[ImageRecord], new: Sequence[ImageRecord], seed: int = 0) -> dict[str, Any]:
    """Per property the distance of new to old images, its chance under no drift, and what changed in words."""
    rng = np.random.default_rng(seed)
    old, new = _sample(old, rng), _sample(new, rng)
    both = [*old, *new]
    is_new = np.arange(len(both)) >= len(old)
    look = Embedder(dataset.folder / ".cache").look([(r.sha256, dataset.image_path(r.sha256, r.extension)) for r in both])
    sources = [record.source for record in both]
    one_hot = np.array([[name == source for name in sorted(set(sources))] for source in sources], dtype=np.float64)
    log2_pixels = np.log2([max(record.width * record.height, 1) for record in both])
    readable = np.isfinite(look.brightness_N)
    values: dict[str, tuple[Floats, NDArray[np.bool_], str]] = {
        "source": (one_hot, is_new, _words_source(old, new)),
        "size": (log2_pixels[:, None], is_new, _words_number("megapixels", 2**log2_pixels / 1e6, is_new)),
        "brightness": (
            look.brightness_N[readable, None], is_new[readable], _words_number("brightness", look.brightness_N[readable], is_new[readable]),
        ),
        "look": (look.vectors_ND[readable], is_new[readable], "the pictures themselves (embedding)"),
    }  # fmt: skip
    return {name: _row(table, mask, words, rng) for name, (table, mask, words) in values.items()}


def _sample(records: Sequence[ImageRecord], rng: np.random.Generator) -> list[ImageRecord]:
    if len(records) <= MOST_IMAGES:
        return list(records)
    return [records[place] for place in sorted(rng.choice(len(records), MOST_IMAGES, replace=False).tolist())]


def _row(table_ND: Floats, is_new_N: NDArray[np.bool_], words: str, rng: np.random.Generator) -> dict[str, Any]:
    distance, chance = permutation_test(table_ND, is_new_N, rng)
    return {"distance": distance, "chance": chance, "drifted": chance < 0.01, "words": words}


def permutation_test(table_ND: Floats, is_new_N: NDArray[np.bool_], rng: np.random.Generator) -> tuple[float, float]:
    """Distance between the groups' means in units of the whole spread, and the share of regroupings at least as far apart."""
    if is_new_N.all() or not is_new_N.any():
        return 0.0, 1.0
    centred = table_ND - table_ND.mean(axis=0)
    spread = float(np.sqrt((centred**2).sum(axis=1).mean()))
    if spread < 1e-12:
        return 0.0, 1.0
    masks_PN = np.array([is_new_N, *(rng.permutation(is_new_N) for _ in range(PERMUTATIONS))], dtype=np.float64)
    new_mean = masks_PN @ centred / is_new_N.sum()
    old_mean = (1 - masks_PN) @ centred / (~is_new_N).sum()
    distances_P = np.linalg.norm(new_mean - old_mean, axis=1) / spread
    return float(distances_P[0]), float((1 + (distances_P[1:] >= distances_P[0] - 1e-12).sum()) / (1 + PERMUTATIONS))


def _words_source(old: Sequence[ImageRecord], new: Sequence[ImageRecord]) -> str:
    shares = [Counter(record.source for record in group) for group in (old, new)]
    gaps = {name: shares[1][name] / max(len(new), 1) - shares[0][name] / max(len(old), 1) for name in {*shares[0], *shares[1]}}
    name = max(gaps, key=lambda key: (gaps[key], key), default="")
    return (
        f"'{name}' brought {shares[1][name] / max(len(new), 1):.0%} of the new images, {shares[0][name] / max(len(old), 1):.0%} of the old"
    )


def _words_number(what: str, values_N: Floats, is_new_N: NDArray[np.bool_]) -> str:
    if not len(values_N) or is_new_N.all() or not is_new_N.any():
        return what
    return f"median {what} {np.median(values_N[is_new_N]):.2g}, was {np.median(values_N[~is_new_N]):.2g}"


def weak_slices(release: Release, records: Mapping[str, ImageRecord], results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Slices of the test split whose recall (IoU .5, score ≥ .3) is surely below the whole's; the worst first."""
    if not results or not release.size_of("test"):
        return []
    truth = inputs.truth(release.documents["test"])
    known = set(truth.category_ids_K.tolist())
    kept = [entry for entry in results if entry["score"] >= SCORE and entry["category_id"] in known]
    matches = match(truth, inputs.detections(kept, truth), np.array([0.5]))
    found_A = np.zeros(len(truth.areas_A), dtype=bool)
    found_A[matches.box_TN[0][matches.hits_TN()[0]]] = True
    sha_of = dict(zip(release.splits["test"].image_ids_I.tolist(), release.splits["test"].sha256_I, strict=True))
    record_of_A = [records.get(sha_of[number]) for number in truth.image_ids_A.tolist()]
    names = dict(zip(truth.category_ids_K.tolist(), truth.names_K, strict=True))
    cuts: dict[str, Callable[[int], str]] = {
        "class": lambda row: names[int(truth.category_ids_A[row])],
        "size": lambda row: _size_name(float(truth.areas_A[row])),
        "source": lambda row: record.source if (record := record_of_A[row]) else "",
        "query": lambda row: record.query if (record := record_of_A[row]) else "",
    }
    counted = np.flatnonzero(matches.counted_A)
    overall = float(found_A[counted].mean()) if len(counted) else 0.0
    rows = []
    for cut, name_of in cuts.items():
        groups: dict[str, list[int]] = {}
        for row in counted.tolist():
            groups.setdefault(name_of(row), []).append(row)
        for name, members in groups.items():
            recall, high = float(found_A[members].mean()), _wilson_high(int(found_A[members].sum()), len(members))
            part = LEAST_BOXES <= len(members) < len(counted)
            if name and part and high < overall:
                rows.append({"cut": cut, "slice": name, "recall": recall, "overall": overall, "boxes": len(members)})
    return sorted(rows, key=lambda row: (row["recall"], row["slice"]))


def _size_name(area_px: float) -> str:
    """COCO's sizes."""
    return "small" if area_px < 32**2 else "medium" if area_px < 96**2 else "large"


def _wilson_high(hits: int, total: int, z: float = 1.96) -> float:
    """Upper end of Wilson's interval of a share (Wilson 1927)."""
    share = hits / total
    centre = share + z * z / (2 * total)
    if hits == total:
        return 1.0  # rounding would put it below a whole that is found as well
    return float((centre + z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))) / (1 + z * z / total))

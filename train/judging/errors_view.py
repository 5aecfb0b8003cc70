"""A run's errors image by image, as `errors-<split>.json`: what `boxwright review NAME --run RUN` shows in the App."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from annotate.coco import Document
from collect.files import write_atomic
from train.judging.error_kinds import KINDS, ErrorKinds, error_kinds
from train.judging.evaluate import Evaluation
from train.judging.inputs import Truth
from train.judging.matching import Matches


def write(run_path: Path, split: str, evaluation: Evaluation, document: Document) -> Path:
    """Write the list of :func:`errors` into the run's folder and return its path."""
    threshold = evaluation.best.threshold if evaluation.best.threshold is not None else 0.5
    target = run_path / f"errors-{split}.json"
    write_atomic(target, orjson.dumps(list(errors(evaluation, document, threshold)), option=orjson.OPT_INDENT_2))
    return target


def errors(evaluation: Evaluation, document: Document, threshold: float) -> Iterator[dict[str, Any]]:
    """Every detection with at least that score, right or wrong, and every box that was missed.

    Entries are `{image (sha256), image_id, box (xywh, pixels of the upright image), kind, category, score, meant}`. `kind`
    is "right", one of TIDE's (see :mod:`train.judging.error_kinds`) for a wrong detection, or "Miss" for a box that no
    detection with that score finds; a Miss has no score. `meant` is the class of the box that a Cls error lies on.
    """
    truth, matches = evaluation.truth, evaluation.matches50
    sha256_of = {image["id"]: str(image.get("sha256", "")) for image in document["images"]}
    kinds = error_kinds(truth, evaluation.found, matches)
    places = (matches.scores_N >= threshold) & ~matches.ignored_TN[0]
    for place in places.nonzero()[0].tolist():
        number = int(truth.image_ids_I[matches.image_N[place]])
        kind = KINDS[kinds.kind_N[place]] if kinds.kind_N[place] >= 0 else "right"
        yield {
            "image": sha256_of[number],
            "image_id": number,
            "box": evaluation.found.boxes_xywh_D4[matches.rows_N[place]].tolist(),
            "kind": kind,
            "category": truth.names_K[matches.category_N[place]],
            "score": float(matches.scores_N[place]),
            "meant": _meant(truth, kinds, place) if kind == "Cls" else None,
        }
    yield from _misses(truth, matches, threshold, sha256_of)


def _misses(truth: Truth, matches: Matches, threshold: float, sha256_of: dict[int, str]) -> Iterator[dict[str, Any]]:
    free_A = matches.counted_A.copy()
    taken = matches.box_TN[0][matches.scores_N >= threshold]
    free_A[taken[taken >= 0]] = False
    category_A = truth.rows_of_categories(truth.category_ids_A)
    for row in free_A.nonzero()[0].tolist():
        number = int(truth.image_ids_A[row])
        yield {
            "image": sha256_of[number],
            "image_id": number,
            "box": truth.boxes_xywh_A4[row].tolist(),
            "kind": "Miss",
            "category": truth.names_K[category_A[row]],
            "score": None,
            "meant": None,
        }


def _meant(truth: Truth, kinds: ErrorKinds, place: int) -> str:
    return truth.names_K[int(truth.rows_of_categories(truth.category_ids_A[[kinds.box_N[place]]])[0])]

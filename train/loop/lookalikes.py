"""Images that look alike to a network although their hashes differ: suspects for a person, never removed by themselves.

A cosine that tells copies from neighbours in one set of pictures does not in another (LOG.md: at .90 precision .996 on
raccoons, .44 with blood cells and crowds), so all that follows is a pair in the review (:mod:`annotate.review.lookalikes`).

Every vector is held against every other, in blocks, by numpy: no index (faiss, usearch) is among our dependencies, and up to
some 100,000 images none is needed. On one core 20,000 take 5 s, so 100,000 two minutes, beside half an hour for the network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from annotate.boxes import Floats
from annotate.review.lookalikes import Pair
from annotate.review.queue import duplicate_groups
from collect.errors import MissingServiceError
from collect.records import ImageRecord
from collect.workspace import Dataset
from train.loop.embedding import Embedder

_BLOCK = 2048


def lookalikes(dataset: Dataset, records: Sequence[ImageRecord], least: float, most: int, near_bits: int) -> list[Pair]:
    """Pairs of `records` with a cosine of at least `least` that no hash has paired, the `most` closest, closest first.

    Raises:
        MissingServiceError: there is no network whose word on likeness counts.
    """
    embedder = Embedder(dataset.folder / ".cache")
    if embedder.name != "mobilenet_v2":
        raise MissingServiceError("MobileNetV2's weights are not here and cannot be had, and colours alone say too little of likeness")
    ordered = sorted(records, key=lambda record: record.sha256)
    vectors = embedder.look([(r.sha256, dataset.image_path(r.sha256, r.extension)) for r in ordered]).vectors_ND
    paired = duplicate_groups(ordered, near_bits)
    groups = np.unique([paired.get(record.sha256, record.sha256) for record in ordered], return_inverse=True)[1]
    rows, columns, cosines = closest(vectors, groups, least, most)
    names = [record.sha256 for record in ordered]
    return [Pair(names[row], names[column], float(cosine)) for row, column, cosine in zip(rows, columns, cosines, strict=True)]


def closest(
    vectors_ND: Floats, groups_N: NDArray[np.int64], least: float, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The `most` closest pairs of vectors of length 1 from different groups, as rows i < j and cosines ≥ `least`, closest first.

    Rows that are NaN are in no pair.
    """
    vectors = vectors_ND.astype(np.float32)
    rows, columns, cosines = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    for top in range(0, len(vectors), _BLOCK):
        for left in range(top, len(vectors), _BLOCK):
            products = vectors[top : top + _BLOCK] @ vectors[left : left + _BLOCK].T
            row, column = np.nonzero(products >= least)
            cosine = products[row, column]
            row, column = row + top, column + left
            apart = (row < column) & (groups_N[row] != groups_N[column])
            rows, columns = np.append(rows, row[apart]), np.append(columns, column[apart])
            cosines = np.append(cosines, cosine[apart])
            if len(cosines) > most:  # what is farther than all of these need not be looked at again
                order = np.argsort(-cosines, kind="stable")[:most]
                rows, columns, cosines = rows[order], columns[order], cosines[order]
                least = float(cosines[-1])
    order = np.argsort(-cosines, kind="stable")
    return rows[order], columns[order], cosines[order]

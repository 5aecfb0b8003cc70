"""What a network finds alike among all images ever held, for `[collect] lookalike_model`: an index proposes, keypoints decide.

Every image's vector stands in the ledger, written with its row, so a kill loses none. The index (usearch, HNSW: Malkov and
Yashunin 2016) is beside it as a file and can be made from the ledger at any time; what the file lacks is added when it is
opened. Whether one of the few neighbours is the same picture is for :mod:`collect.images.lookalikes` to say.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from collect.errors import MissingServiceError
from collect.files import sha256_file, storage_errors
from collect.images.lookalikes import Network
from collect.images.workers import InspectWorkers
from collect.ledger import Ledger
from collect.workspace import Dataset

logger = logging.getLogger(__name__)

#: So many neighbours are looked at, if they are so near; LOG.md has the measurement.
_NEIGHBOURS, _LEAST_COSINE = 3, 0.6
_BATCH = 64


class Lookalikes:
    """The index of one dataset, under one network. `catch_up` before anything else; one thread at a time.

    Raises:
        MissingServiceError: usearch is not installed.
        NotFoundError: there is no such network.
        UsageError: the file is no network that can be used.
    """

    def __init__(self, dataset: Dataset, network: Path) -> None:
        try:
            from usearch.index import Index
        except ImportError as error:
            raise MissingServiceError(
                "[collect] lookalike_model needs usearch, which is not installed; `pip install 'boxwright[lookalikes]'` brings it"
            ) from error
        self._num_numbers = Network(network).num_numbers
        self._make, self._dataset, self.network = Index, dataset, network
        self.name = sha256_file(network)[:16]
        self._path = dataset.folder / f"lookalikes-{self.name}.usearch"

    def catch_up(self, ledger: Ledger, workers: InspectWorkers) -> None:
        """Open the index; images that have no vector of this network get one first, which goes on where it was after a kill."""
        self._ledger, self._workers = ledger, workers
        left = ledger.images_without_vector(self.name)
        if left:
            logger.info("%d images held already are looked at for look-alikes", len(left))
        for begin in range(0, len(left), _BATCH):
            entries = left[begin : begin + _BATCH]
            ledger.add_vectors([(sha256, self.name, self._vector_of(sha256, extension)) for sha256, extension in entries])
        self._index = self._restored()
        self._sha256s: dict[int, str] = {}
        self._add_all(ledger.vectors(self.name))

    def vector(self, data: bytes) -> bytes:
        """What a picture's file looks like; no bytes where it cannot be said."""
        return self._workers.vector(data)

    def same(self, data: bytes, vector: bytes) -> tuple[str, float] | None:
        """The image, if any, that shows the same picture as this file, as `(sha256, cosine)`."""
        near = self._neighbours(vector)
        files = [self._file(sha256) for sha256, _cosine in near]
        found = self._workers.same(data, files) if near else []
        return next((neighbour for neighbour, is_same in zip(near, found, strict=True) if is_same), None)

    def add(self, sha256: str, vector: bytes) -> None:
        """Remember an image; its vector is for the ledger to keep (:attr:`collect.ledger_rows.Settlement.vector`)."""
        self._add_all([(sha256, vector)])

    def save(self) -> None:
        """Write the index, so that the next process need not make it."""
        temporary = self._path.with_suffix(".tmp")
        with storage_errors():
            self._index.save(str(temporary))
            os.replace(temporary, self._path)  # noqa: PTH105
            for path in self._dataset.folder.glob("lookalikes-*.usearch"):
                if path != self._path:  # of another network
                    path.unlink(missing_ok=True)

    def _neighbours(self, vector: bytes) -> list[tuple[str, float]]:
        if not vector or not len(self._index):
            return []
        found = self._index.search(np.frombuffer(vector, np.int8), _NEIGHBOURS)
        named = [(self._sha256s.get(int(key), ""), 1 - float(distance)) for key, distance in zip(found.keys, found.distances, strict=True)]
        return [(sha256, cosine) for sha256, cosine in named if sha256 and cosine >= _LEAST_COSINE]

    def _add_all(self, entries: Iterable[tuple[str, bytes]]) -> None:
        for sha256, vector in entries:
            key = int(sha256[:15], 16)  # 60 bits: two of a million images share a key once in a million data sets
            if len(vector) == self._num_numbers:
                self._sha256s[key] = sha256
                if key not in self._index:
                    self._index.add(key, np.frombuffer(vector, np.int8), threads=1)

    def _restored(self) -> Any:
        """The index as it was saved, empty where it was not or cannot be read."""
        with suppress(Exception):  # usearch raises what its C++ raises; whatever it says, the ledger has all that is needed
            index = self._make.restore(str(self._path)) if self._path.is_file() else None
            if index is not None and index.ndim == self._num_numbers:
                return index
        return self._make(ndim=self._num_numbers, metric="cos", dtype="i8")

    def _vector_of(self, sha256: str, extension: str) -> bytes:
        try:
            return self._workers.vector(self._dataset.image_path(sha256, extension).read_bytes())
        except OSError:
            return b""

    def _file(self, sha256: str) -> bytes:
        held = next(self._dataset.image_path(sha256, "*").parent.glob(f"{sha256}.*"), None)
        try:
            return held.read_bytes() if held else b""
        except OSError:
            return b""

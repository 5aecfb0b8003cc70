"""Checkpoints: everything a training needs to go on as if it had never stopped, written so that no kill can spoil them."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn

from collect.errors import CorruptError, NotFoundError
from collect.files import fsync_folder, storage_errors

FORMAT = 1
LAST, BEST = "last.pt", "best.pt"


def path_of(run_path: Path, name: str) -> Path:
    """`checkpoints/<name>` of a run."""
    return run_path / "checkpoints" / name


def save(path: Path, document: Mapping[str, Any]) -> None:
    """Write a checkpoint: temporary file, fsync, rename; a reader sees the old one or the new one.

    Raises:
        StorageError: the disk is full; the old checkpoint is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                _write(document, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_folder(path.parent)


def fill(detector: nn.Module, state: Mapping[str, Tensor], run: str, kind: str) -> None:
    """Put the weights of a run's checkpoint into a detector of a kind.

    Raises:
        CorruptError: they are of another network.
    """
    try:
        detector.load_state_dict(state)
    except RuntimeError as error:
        raise CorruptError(
            f"the weights of {run} are not those of a {kind} with its categories; if an earlier version made this run, train it anew"
        ) from error


def sweep(folder: Path) -> None:
    """Remove what kills in the middle of a :func:`save` left there. Only for whoever alone writes into the folder."""
    for left in folder.glob(".*.pt.*.tmp"):
        left.unlink(missing_ok=True)


def _write(document: Mapping[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save({"format": FORMAT, **document}, file)
    except RuntimeError as error:  # torch's writer, closing, hides that the disk is full behind an error of its own
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def load(path: Path) -> dict[str, Any]:
    """A checkpoint, on the CPU; only tensors and plain containers are unpickled, so that no code can run.

    Raises:
        NotFoundError: there is none.
        CorruptError: it cannot be read.
    """
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no checkpoint at {path}; the run ended before its first one, so start it anew") from error
    except Exception as error:  # pickle and zipfile raise whatever a broken file leads them to
        raise CorruptError(f"the checkpoint {path} cannot be read ({type(error).__name__}); use another one of that folder") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CorruptError(f"{path} is no checkpoint of this version of Boxwright")
    return document


def random_state() -> dict[str, Any]:
    """The state of every global random generator, in types that load safely."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "python": [version, list(internal), gauss],
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """The inverse of :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


class Average:
    """An exponential moving average of a model's floating state, batch norm's statistics included.

    The decay begins low, so that a short training is not held to its first weights: d·(1 − e^(−n/τ)), τ = 1/(1−d)/4.

    Args:
        model: what is averaged; its present state is the beginning.
        decay: of the old average, after many updates; 0 = the average is the model itself.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model: nn.Module = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's present state."""
        self.updates += 1
        time_constant = 1 / max(1 - self.decay, 1e-9) / 4
        decay = self.decay * (1 - float(np.exp(-self.updates / time_constant)))
        own, new = self.model.state_dict(), model.state_dict()
        floating: list[tuple[Tensor, Tensor]] = []
        for name, value in own.items():
            if value.dtype.is_floating_point:
                floating.append((value, new[name].detach()))
            else:
                value.copy_(new[name])
        torch._foreach_lerp_([old for old, _ in floating], [value for _, value in floating], 1 - decay)

"""One process or many: what `torchrun` says, and the few words that processes exchange."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from collect.errors import MissingServiceError, UsageError
from train.fitting.device import find_device

#: The other processes wait this long while the first one validates or writes; torch's ten minutes end long validations.
_PATIENCE = timedelta(hours=3)


@dataclass(frozen=True)
class Ranks:
    """This process among `world`."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process validates, writes and talks."""
        return self.rank == 0

    def agree(self, *values: float) -> tuple[float, ...]:
        """What the first process says, so that all take the same turn (time is not the same everywhere)."""
        return self.most(*(value if self.first else -math.inf for value in values))

    def most(self, *values: float) -> tuple[float, ...]:
        """The greatest of each value over all processes; none goes on before all are here."""
        if self.world == 1:
            return values
        told = torch.tensor(values, dtype=torch.float64)  # on the CPU, by Gloo: a card need not stop for it
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        return tuple(told.tolist())

    def joint_norms(self, model: nn.Module) -> None:
        """Let batch norm see the batches of all cards. It replaces modules, so it comes before anything remembers one."""
        if self.world > 1 and self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over all processes; batch norm is synchronised already, by :meth:`joint_norms`.

        `find_unused_parameters`: a rank whose batch has no box may leave parameters of a head without gradient, and the
        other ranks would wait for them for ever.
        """
        if self.world == 1:
            return model
        if self.device.type == "cuda":
            return DistributedDataParallel(model, device_ids=[self.device.index], find_unused_parameters=True)
        return DistributedDataParallel(model, find_unused_parameters=True)


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started (NCCL between cards, Gloo between CPUs); alone where it did not.

    Raises:
        MissingServiceError: this torch was built without distributed training.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        yield Ranks(find_device(device))
        return
    if not torch.distributed.is_available():
        raise MissingServiceError("this build of torch has no distributed training; run without torchrun")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = find_device(f"cuda:{local}" if device in {"auto", "cuda"} and torch.cuda.is_available() else device)
    if chosen.type == "mps":
        raise UsageError("torchrun needs CPUs or NVIDIA GPUs; use --device cpu")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(chosen, torch.distributed.get_rank(), world)
    finally:
        torch.distributed.destroy_process_group()

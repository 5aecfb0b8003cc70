"""Finds a loss or a gradient that is no number before its step spoils the weights."""

from __future__ import annotations

import torch
from torch import Tensor

#: What became no number ("loss" or "gradient"), its value, and the images of the batch.
Finding = tuple[str, float, tuple[str, ...]]


class Watch:
    """Looks at each step's loss, and at its gradient, which can be no number where the loss is one.

    On a CPU at once; on a GPU one step late, so that the device need not be waited for. What a step left unseen is seen before
    a checkpoint is written: :meth:`fine`.
    """

    def __init__(self, device: torch.device) -> None:
        self.at_once = device.type == "cpu"
        self._last: tuple[Tensor, tuple[str, ...]] | None = None

    def loss(self, total: Tensor, names: tuple[str, ...]) -> Finding | None:
        """Look at a step's summed loss, of the batch of the images `names`."""
        late, self._last = self._last, (total.detach(), names)
        looked_at = self._last if self.at_once else late
        return self._found("loss", *looked_at) if looked_at else None

    def gradient(self, norm: Tensor) -> Finding | None:
        """Look at the norm of the gradient that came of it."""
        if self._last is None:
            return None
        total, names = self._last
        self._last = total + 0 * norm, names
        return self._found("gradient", norm, names) if self.at_once else None

    def fine(self) -> bool:
        """Whether the weights may be kept: nothing that was not yet looked at is no number."""
        return self._last is None or bool(torch.isfinite(self._last[0]))

    def _found(self, what: str, value: Tensor, names: tuple[str, ...]) -> Finding | None:
        if bool(torch.isfinite(value)):
            return None
        self._last = None
        return what, float(value), names

"""What a person sees of a training: a live line on a terminal, a sentence per epoch, metrics.csv, TensorBoard when wanted."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collect.errors import MissingServiceError
from collect.files import write_atomic

if TYPE_CHECKING:
    from train.fitting.fit import State

_LINE_EVERY_S = 0.5


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes.

    >>> duration(75), duration(7380)
    ('1:15', '2 h 03')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d}"


def write_metrics(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """`metrics.csv`: one row per epoch; written anew from the history, so that a resume never doubles a row."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in history)
    write_atomic(path, text.getvalue())


class Progress:
    """Tells how a training goes.

    Args:
        run_path: where metrics.csv and TensorBoard's events go; None = nowhere.
        say: takes a sentence per epoch.
        live: draw a line that is rewritten; only for a terminal.
        tensorboard: also write events for TensorBoard.

    Raises:
        MissingServiceError: TensorBoard is wanted and not installed.
    """

    def __init__(
        self, run_path: Path | None = None, say: Callable[[str], None] | None = None, live: bool = False, tensorboard: bool = False
    ) -> None:
        self.run_path, self.say, self.live = run_path, say or (lambda _text: None), live
        self._drawn_at = 0.0
        self._started: tuple[float, float] | None = None
        self._writer: Any = _tensorboard(run_path) if tensorboard and run_path else None

    def step(self, state: State, steps_per_epoch: int, done: float) -> None:
        """After each batch."""
        now = time.monotonic()
        if self._started is None:
            self._started = now, done
        if not self.live or now - self._drawn_at < _LINE_EVERY_S:
            return
        self._drawn_at = now
        sums = state.sums
        seconds = max(float(sums["step_s"]), 1e-9)
        loss = float(sums.get("loss", 0.0)) / max(float(sums.get("batches", 0.0)), 1.0)
        per_step = state.images / max(state.step, 1)
        begun, done_then = self._started
        left = (now - begun) / (done - done_then) * (1 - done) if done > done_then else 0.0
        self._draw(
            f"epoch {state.epoch + 1}, step {state.position}/{steps_per_epoch}, loss {loss:.3f}, "
            f"{sums.get('batches', 0) * per_step / seconds:.1f} images/s, {sums['wait_s'] / seconds:.0%} waiting for data, "
            f"{duration(left)} left"
        )

    def epoch(self, row: Mapping[str, float], state: State) -> None:
        """After each epoch."""
        if self.live:
            self._draw("")
        score = f", AP {row['AP']:.3f}, AP50 {row['AP50']:.3f}" if "AP" in row else ""
        self.say(
            f"epoch {row['epoch']:.0f}: loss {row.get('loss', 0):.3f}{score}, {row['images_per_s']:.1f} images/s, "
            f"{row['wait_share']:.0%} waiting for data, {duration(state.wall_s)} so far"
        )
        if self.run_path:
            write_metrics(self.run_path / "metrics.csv", state.history)
        if self._writer:
            for name, value in row.items():
                self._writer.add_scalar(name, value, state.step)
            self._writer.flush()

    @staticmethod
    def _draw(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _tensorboard(run_path: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingServiceError(
            "TensorBoard is not installed: `pip install 'boxwright[tensorboard]'`, or leave --tensorboard out"
        ) from error
    return SummaryWriter(str(run_path / "tensorboard"))

"""The training loop, in plain torch, from top to bottom.

    fit ── set up detector, optimiser, loader; take up the checkpoint when resuming
     └─ Training.run ── for each batch: step; at an epoch's end: validate, checkpoint; stop when it is time
         └─ Training.step ── losses → gradients → clip → AdamW → average of the weights

On a CPU a run that was killed and resumed ends bit-equal to one that was not: the checkpoint holds model, optimiser,
average, random states, position in the epoch and the history; samples depend on (seed, epoch, image) only; the schedule is a
pure function of the step (with a time budget: of the time, and then no two runs are equal).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from collect.errors import TrainingError, UsageError
from train.data import loader
from train.data.cache import ImageCache
from train.data.release import Release
from train.data.sampler import Plan, repeats
from train.detectors.detector import Batch, Detector, Frozen, freeze, open_detector
from train.fitting import checkpoint, memory, recipe
from train.fitting import config as settings
from train.fitting.checkpoint import Average
from train.fitting.config import TrainConfig
from train.fitting.device import threads
from train.fitting.interrupts import Interrupts
from train.fitting.progress import Progress
from train.fitting.ranks import Ranks
from train.fitting.watch import Watch

logger = logging.getLogger(__name__)

#: What is spent on validating during a training with a time budget, at most, as a share of the training time.
_VALIDATION_SHARE = 0.15
Validate = Callable[[Detector], tuple[float, float]]


@dataclass
class State:
    """Where a training stands; all of it is in the checkpoint."""

    epoch: int = 0
    position: int = 0
    step: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    validation_s: float = 0.0
    images: int = 0
    unreadable: int = 0
    best: float = -1.0
    best_epoch: int = 0
    validated: float = 0.0
    without_better: int = 0
    finished: bool = False
    world: int = 1
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Fit:
    """What :func:`fit` is asked for besides the config.

    Attributes:
        resume: go on from `checkpoints/last.pt`.
        prepare: called with a new detector before it trains (a warm start); says in words what it did.
        validate: see :class:`Training`.
        progress: who is told.
    """

    resume: bool = False
    prepare: Callable[[Detector], str] | None = None
    validate: Validate | None = None
    progress: Progress = field(default_factory=Progress)


def fit(config: TrainConfig, release: Release, run_path: Path, ranks: Ranks, how: Fit) -> tuple[State, TrainConfig]:
    """Train a detector on a release; writes `config.json` and `checkpoints/`.

    Returns:
        Where the training ended, and the config with everything that was decided on the way.

    Raises:
        TrainingError: see :meth:`Training.run`.
        UsageError: the weights or the image size do not fit the detector.
    """
    torch.manual_seed(config.seed)
    torch.backends.cudnn.benchmark = True  # few sizes come again and again, so trying out its algorithms pays
    document = checkpoint.load(checkpoint.path_of(run_path, checkpoint.LAST)) if how.resume else {}
    weights = "none" if how.resume else config.weights
    detector = open_detector(config.detector, config.categories, config.image_size, weights, document.get("architecture"))
    if how.prepare and not how.resume:
        detector.weights_origin = how.prepare(detector)
    detector.to(ranks.device).to(memory_format=torch.channels_last)
    config = recipe.complete(config, detector, ranks)
    if not how.resume and ranks.first:
        settings.write(run_path, config)
    training = Training(config, release, detector, ranks, run_path, how.validate)
    if how.resume:
        training.resume(document)
        document.clear()  # else a second copy of everything stays in memory
        if ranks.first:
            checkpoint.sweep(run_path / "checkpoints")
    with threads(config.threads):
        out_of_memory = memory.runs_out(lambda: training.run(how.progress))
    if out_of_memory:
        raise memory.too_small(detector, config, ranks.device)
    return training.state, config


class Training:
    """A training under way.

    Args:
        config: complete (see :func:`train.fitting.recipe.complete`).
        release: what is learned.
        detector: with its first weights, on the device.
        ranks: this process among others.
        run_path: where checkpoints go.
        validate: gives (AP, AP50) of a detector on the val split; None = there is none.
    """

    def __init__(
        self, config: TrainConfig, release: Release, detector: Detector, ranks: Ranks, run_path: Path, validate: Validate | None
    ) -> None:
        self.config, self.release, self.detector, self.ranks = config, release, detector, ranks
        self.run_path, self.validate = run_path, validate
        self.average = Average(detector, config.ema_decay)
        ranks.joint_norms(detector)
        self.frozen: Frozen = freeze(detector, config.freeze)
        self.optimiser = recipe.optimiser(detector, config)
        model = ranks.wrap(detector)
        self.model: nn.Module = cast("nn.Module", torch.compile(model)) if config.compile else model
        self.state = State(world=ranks.world)
        split = release.splits["train"]
        self.plan = Plan(
            repeats(split, config.sampling), config.batch_size, config.seed, recipe.sides(config, detector.stride), ranks.rank, ranks.world
        )
        cache = ImageCache(release.cache, recipe.cached_px(config))
        self.images = loader.SplitImages(split, release.images, cache, recipe.augmentation(config), config.seed)
        self.steps_per_epoch = self.plan.per_epoch()
        self.bf16 = config.precision == "bf16"
        self.agreed = 0.0
        self.watch = Watch(ranks.device)
        self.interrupts = Interrupts()

    def resume(self, document: dict[str, Any]) -> None:
        """Go on from a checkpoint's document (see :func:`train.fitting.checkpoint.load`).

        Raises:
            UsageError: another number of processes wrote it, which share an epoch otherwise.
        """
        world = document["state"].get("world", 1)
        if world != self.ranks.world and not document["state"]["finished"]:
            raise UsageError(
                f"{self.run_path.name} was trained by {world} processes, not {self.ranks.world}: resume it with `torchrun "
                f"--nproc-per-node {world} -m boxwright train …`, or begin a new run from its --weights {self.run_path}/checkpoints/best.pt"
            )
        for module, state in ((self.detector, document["model"]), (self.average.model, document["ema"])):
            checkpoint.fill(module, state, self.run_path.name, self.config.detector)
        self.average.updates = document["ema_updates"]
        self.optimiser.load_state_dict(document["optimiser"])
        self.state = State(**document["state"])
        checkpoint.restore_random_state(document["random"])

    def document(self) -> dict[str, Any]:
        """The checkpoint: everything that :meth:`resume` needs."""
        return {
            "architecture": self.detector.architecture,
            "model": self.detector.state_dict(),
            "ema": self.average.model.state_dict(),
            "ema_updates": self.average.updates,
            "optimiser": self.optimiser.state_dict(),
            "state": vars(self.state),
            "random": checkpoint.random_state(),
        }

    def done(self) -> float:
        """How much of the training is done, 0 to 1: by steps, or by this process's time budget if that is further."""
        by_steps = (self.state.epoch * self.steps_per_epoch + self.state.position) / (self.config.epochs * self.steps_per_epoch)
        spent = self.state.cpu_s if self.config.budget_clock == "cpu" else self.state.wall_s
        by_time = spent / self.config.time_budget_s if self.config.time_budget_s else 0.0
        return min(max(by_steps, by_time), 1.0)

    def run(self, progress: Progress) -> None:
        """Train until the epochs, the budget or the patience are used up.

        Raises:
            TrainingError: the loss is no number, or the memory is too small.
            KeyboardInterrupt: asked to stop; the checkpoint is written first.
        """
        state = self.state
        if not self.config.epochs:
            self._keep()
            return
        keys = self.plan.from_position(state.epoch, state.position, self.config.epochs)
        batches = loader.batches(self.images, keys, self.config.workers, pin=self.ranks.device.type == "cuda")
        saved_at = begun_at = time.monotonic()
        cpu_at = time.process_time()
        (self.agreed,) = self.ranks.agree(self.done())
        with self.interrupts:
            while not state.finished:
                batch = next(batches)
                waited_s = time.monotonic() - begun_at
                self.step(batch)
                state.position += 1
                now, cpu_now = time.monotonic(), time.process_time()
                state.wall_s, state.cpu_s = state.wall_s + now - begun_at, state.cpu_s + cpu_now - cpu_at
                self._add({"wait_s": waited_s, "step_s": now - begun_at})
                self.agreed, save, stop = self._agreed(now - saved_at)
                progress.step(state, self.steps_per_epoch, self.agreed)
                if state.position == self.steps_per_epoch or self.agreed >= 1:
                    self._end_epoch(self.agreed, progress)
                elif save and not stop and self._between_updates():
                    self._save()
                    saved_at = now
                if stop and self._between_updates() and not state.finished:
                    self._save()
                    raise KeyboardInterrupt
                begun_at, cpu_at = time.monotonic(), time.process_time()

    def _keep(self) -> None:
        """No epoch at all: what the detector was prepared with is the result."""
        self.state.finished = True
        if self.validate:
            self._validated(1.0)
        self._save()

    def _agreed(self, since_saved_s: float) -> tuple[float, bool, bool]:
        """What all processes do next: how much is done, whether to save, whether to stop.

        Each has its own clock: rates by different clocks would part their weights, and who alone saves waits for ever.
        """
        asks = self.done() if self.ranks.first else 0.0, since_saved_s > self.config.checkpoint_s, self.interrupts.asked
        done, save, stop = self.ranks.most(*map(float, asks))
        return done, bool(save), bool(stop)

    def step(self, batch: Batch) -> None:
        """One batch: losses, gradients, and an update when enough of them are gathered."""
        state = self.state
        for failure in batch.failures:
            state.unreadable += 1
            logger.warning("skipped an image that cannot be read: %s", failure)
        if not len(batch):
            if self.ranks.world == 1:
                return
            batch = _blank(self.config.crop_px)  # the other processes wait for this one's gradients
        rate = recipe.rate(self.agreed, state.step, self.config)
        self.model.train()
        self.frozen.hold()
        device = self.ranks.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            losses = self.model(batch.to(device))
        total: Tensor = sum(losses.values(), start=torch.zeros((), device=device))
        if found := self.watch.loss(total, batch.names):
            raise self._no_number(*found)
        (total / self.config.accumulate).backward()  # type: ignore[no-untyped-call]
        if self._between_updates(1):
            self._update(rate)
        state.step += 1
        state.images += len(batch) * self.ranks.world
        self._add({"loss": total.detach(), "batches": 1.0, **{f"loss_{name}": value.detach() for name, value in losses.items()}})

    def _update(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = group["top_rate"] * rate
        if found := self.watch.gradient(nn.utils.clip_grad_norm_(self.detector.parameters(), self.config.clip_norm)):
            raise self._no_number(*found)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update(self.detector)

    def _between_updates(self, ahead: int = 0) -> bool:
        return (self.state.position + ahead) % self.config.accumulate == 0 or self.state.position + ahead == self.steps_per_epoch

    def _no_number(self, what: str, value: float, names: tuple[str, ...]) -> TrainingError:
        kept = checkpoint.path_of(self.run_path, checkpoint.LAST).is_file()
        return TrainingError(
            f"the {what} became {value} at step {self.state.step} (epoch {self.state.epoch + 1}) on the batch "
            f"{', '.join(names[:8]) or '(no names)'}; {'the last good checkpoint is kept' if kept else 'there was no checkpoint yet'}. "
            f"Look at these images, or use a smaller --lr than {self.config.learning_rate:g}"
        )

    def _add(self, values: dict[str, Any]) -> None:
        """Sum up for the epoch's row; tensors stay on the device until it is written."""
        for name, value in values.items():
            self.state.sums[name] = self.state.sums.get(name, 0.0) + value

    def _settle(self) -> None:
        self.state.sums = {name: float(value) for name, value in self.state.sums.items()}

    def _end_epoch(self, done: float, progress: Progress) -> None:
        """Write the epoch's row, validate when it is due, checkpoint, decide whether to go on."""
        state, config = self.state, self.config
        state.finished = done >= 1 or state.epoch + 1 >= config.epochs
        if state.finished and not self._between_updates():
            self.optimiser.zero_grad(set_to_none=True)
        row = self._row()
        state.epoch, state.position, state.sums = state.epoch + 1, 0, {}
        if self.validate and self._due(done):
            row |= self._validated(done)
        state.history.append(row)
        if config.patience and state.without_better >= config.patience:
            state.finished = True
        self._save()
        if self.ranks.first:
            progress.epoch(row, state)

    def _due(self, done: float) -> bool:
        """About ten validations in all; the first ones are left out where they would eat up a short time budget."""
        if self.state.finished or (self.config.eval_every and self.state.epoch % self.config.eval_every == 0):
            return True
        if self.config.eval_every or int(done * 10) <= int(self.state.validated * 10):
            return False
        room = not self.config.time_budget_s or self.state.validation_s < _VALIDATION_SHARE * self.state.wall_s
        return bool(self.ranks.agree(float(room))[0])

    def _validated(self, done: float) -> dict[str, float]:
        """Validate the averaged weights on the first process; keep them when they are the best so far."""
        begun = time.monotonic()
        score = ap50 = 0.0
        if self.ranks.first and self.validate:
            score, ap50 = self.validate(cast("Detector", self.average.model))
        score, ap50 = self.ranks.agree(score, ap50)
        state = self.state
        state.validated = done
        state.validation_s += time.monotonic() - begun
        state.without_better += 1
        if score > state.best:
            state.best, state.best_epoch, state.without_better = score, state.epoch, 0
            self._save_best()
        return {"AP": score, "AP50": ap50}

    def _row(self) -> dict[str, float]:
        self._settle()
        sums, state = self.state.sums, self.state
        count = max(sums.get("batches", 0.0), 1.0)
        parts = {name: value / count for name, value in sums.items() if name.startswith("loss")}
        seconds = max(sums.get("step_s", 0.0), 1e-9)
        return {
            "epoch": state.epoch + 1,
            "step": state.step,
            "images": state.images,
            "wall_s": state.wall_s,
            "cpu_s": state.cpu_s,
            "lr": self.optimiser.param_groups[-1]["lr"],
            "images_per_s": sums.get("batches", 0.0) * self.config.batch_size * self.ranks.world / seconds,
            "wait_share": sums.get("wait_s", 0.0) / seconds,
            "unreadable": state.unreadable,
            **parts,
        }

    def _save(self) -> None:
        if not self.watch.fine():
            return
        self._settle()
        if self.ranks.first:
            checkpoint.save(checkpoint.path_of(self.run_path, checkpoint.LAST), self.document())
            if not self.validate:
                self._save_best()
        self.ranks.most(0.0)

    def _save_best(self) -> None:
        if self.ranks.first:
            weights = {"architecture": self.detector.architecture, "ema": self.average.model.state_dict()}
            document = {**weights, "epoch": self.state.epoch, "score": self.state.best}
            checkpoint.save(checkpoint.path_of(self.run_path, checkpoint.BEST), document)


def _blank(side_px: int) -> Batch:
    """A grey image without boxes."""
    return Batch(torch.full((1, 3, side_px, side_px), 114, dtype=torch.uint8), [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)])

"""A run's frozen config: everything that decides what comes out, written once as `config.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from annotate.coco import Category
from collect.errors import CorruptError, NotFoundError, UsageError, unknown_name
from collect.files import write_atomic

CLOCKS = ("wall", "cpu")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of a run. 0 (or "") = decided when the run begins, by the detector's recipe or the machine.

    Attributes:
        weights: "auto", "none" or a path; `weights_origin` says what the detector really began with.
        crops: a folder per class of cut-out faces that the two-phase detector's final layers are fitted on before the release;
            "" = none.
        crop_px: side of the square cut-outs that are trained on, at the scale of `image_size`; 0 = `image_size`. Smaller ones
            cost less and show small objects as large as they are at test time.
        batch_size: images per step and process; `accumulate` steps make one update.
        learning_rate: at the top of the schedule, for the head; the backbone's is `backbone_rate` times that.
        epochs: the schedule's length, 0 = what `crops` teach is all; `time_budget_s` may end it sooner, and
            then the schedule follows the time.
        budget_clock: what the budget counts: "wall" seconds, or the "cpu" seconds of this process.
        precision: "auto" = bf16 where the device has it in hardware, else fp32.
        threads: cores that a CPU computes with; 0 = as many as are free. Bit-equality holds for one number of them.
        multi_scale: greatest change of the input's side, as a share; 0 = one size.
        patience: epochs without a better score after which training stops; 0 = never.
        freeze: stages of the backbone that are held still; -1 = the recipe's.
        eval_every: epochs between validations; 0 = about ten in all.
        checkpoint_s: wall seconds between checkpoints within an epoch.
    """

    dataset: str
    release: str
    categories: tuple[Category, ...]
    detector: str = "fcos_mobilenet_v2"
    image_size: int = 0
    crop_px: int = 0
    weights: str = "auto"
    weights_origin: str = ""
    crops: str = ""
    batch_size: int = 0
    accumulate: int = 1
    epochs: int = 30
    learning_rate: float = 0.0
    weight_decay: float = -1.0
    backbone_rate: float = -1.0
    warmup_steps: int = 0
    clip_norm: float = 0.0
    ema_decay: float = -1.0
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    time_budget_s: float = 0.0
    budget_clock: str = "wall"
    freeze: int = -1
    patience: int = 0
    eval_every: int = 0
    checkpoint_s: float = 120.0
    workers: int = -1
    threads: int = 0
    sampling: str = "uniform"
    multi_scale: float = 0.0
    zoom_out: float = 0.6
    zoom_in: float = 1.8
    focus: float = 0.5
    pixels: float = 1.0
    mosaic: float = 0.0
    mixup: float = 0.0
    copy_paste: float = 0.0
    mirror: float = 0.5
    turn: float = 0.0
    augment: str = ""
    tensorboard: bool = False

    def __post_init__(self) -> None:
        checks = (
            (self.seed >= 0, f"--seed {self.seed}: at least 0"),
            (self.freeze >= -1, f"--freeze {self.freeze}: stages, at least 0, or -1 for the detector's own"),
            (self.workers >= -1, f"--workers {self.workers}: processes, at least 0, or -1 for what suits the device"),
            (self.epochs >= (0 if self.crops else 1), f"--epochs {self.epochs}: at least 1, or 0 with --crops"),
            (self.batch_size >= 0, f"--batch-size {self.batch_size}: at least 1, or 0 for the detector's own"),
            (self.accumulate >= 1, f"--accumulate {self.accumulate}: at least 1"),
            (self.time_budget_s >= 0, f"--time-budget {self.time_budget_s:g}: seconds, more than 0"),
            (0 <= self.multi_scale < 0.75, f"--multi-scale {self.multi_scale:g}: from 0 to 0.7"),
            (self.threads >= 0, f"--threads {self.threads}: at least 1, or 0 for as many cores as are free"),
            (self.image_size >= 0, f"--image-size {self.image_size}: pixels, more than 0, or 0 for the detector's own"),
            (self.crop_px >= 0, f"--crop {self.crop_px}: pixels, more than 0, or 0 for whole images"),
            (self.learning_rate >= 0, f"--lr {self.learning_rate:g}: more than 0, or 0 for the detector's own"),
            (self.ema_decay < 1, f"--ema {self.ema_decay:g}: below 1; 0 for no average, -1 for the detector's own"),
            (self.patience >= 0, f"--patience {self.patience}: validations, at least 1, or 0 for never"),
            (self.eval_every >= 0, f"--eval-every {self.eval_every}: epochs, at least 1, or 0 for about ten validations in all"),
            (self.checkpoint_s >= 0, f"--checkpoint-every {self.checkpoint_s:g}: seconds, at least 0"),
            *(
                (0 <= getattr(self, chance) <= 1, f"--{chance.replace('_', '-')} {getattr(self, chance):g}: a chance, from 0 to 1")
                for chance in ("mirror", "turn", "mosaic", "mixup", "copy_paste")
            ),
            (0 < self.zoom_out <= self.zoom_in, f"zoom from {self.zoom_out:g} to {self.zoom_in:g}: positive, the smaller first"),
        )
        for holds, message in checks:
            if not holds:
                raise UsageError(message)
        for kind, value, known in (("clock", self.budget_clock, CLOCKS), ("precision", self.precision, PRECISIONS)):
            if value not in known:
                raise unknown_name(kind, value, known)

    def with_options(self, options: dict[str, Any]) -> TrainConfig:
        """A copy with some settings changed.

        Raises:
            UsageError: a setting that there is not, or a value that cannot be.
        """
        known = {entry.name for entry in fields(self)}
        for name in options:
            if name not in known:
                raise unknown_name("training setting", name, known)
        return replace(self, **options)


def write(run_path: Path, config: TrainConfig) -> None:
    """Write `config.json` atomically."""
    write_atomic(run_path / "config.json", json.dumps(asdict(config), indent=2, ensure_ascii=False) + "\n")


def read(run_path: Path) -> TrainConfig:
    """The config of a run.

    Raises:
        NotFoundError: there is no run.
        CorruptError: its config is not one.
    """
    path = run_path / "config.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        categories = tuple(Category(**entry) for entry in document.pop("categories"))
        known = {entry.name for entry in fields(TrainConfig)}
        return TrainConfig(categories=categories, **{name: value for name, value in document.items() if name in known})
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no run at {run_path}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"{path} is no run's config: {error}") from error

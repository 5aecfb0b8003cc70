"""A whole run: open the release, train, judge val and test, write metrics.json and report.html.

`train_run` is what the verb, the demo, `compare` and `retrain` call.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import orjson

from collect.console import Console
from collect.errors import BoxwrightError
from collect.files import exclusive, write_atomic
from collect.workspace import Dataset, Workspace
from train.data.release import Release
from train.detectors.detector import Detector, open_detector
from train.detectors.two_phase import TwoPhase
from train.fitting import checkpoint, crops
from train.fitting.config import TrainConfig
from train.fitting.crops import Crops
from train.fitting.device import check_compiler, has_bf16
from train.fitting.fit import Fit, State, Validate, fit
from train.fitting.plan import Options, Plan, foreseen, plan
from train.fitting.progress import Progress
from train.fitting.ranks import Ranks, joined
from train.judging import report
from train.judging.evaluate import STAT_NAMES, evaluate
from train.serving.predictor import Predictor, detect_split

logger = logging.getLogger(__name__)

JUDGED = ("val", "test")


class TrainingInterruptedError(KeyboardInterrupt):
    """A training that was stopped; `run` can be gone on with. Whoever called for it says by which command."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = run


def train_run(
    workspace: Workspace,
    name: str,
    options: Options,
    console: Console | None = None,
    prepare: Callable[[Detector], str] | None = None,
) -> dict[str, Any]:
    """Plan a training (see :func:`train.fitting.plan.plan`) and carry it out (see :func:`train_planned`)."""
    return train_planned(plan(workspace, name, options), console, prepare)


def train_planned(planned: Plan, console: Console | None = None, prepare: Callable[[Detector], str] | None = None) -> dict[str, Any]:
    """Train a detector as planned and judge it.

    Args:
        planned: settings and release.
        console: who is told how it goes; None = nobody.
        prepare: called with the new detector before it trains (a warm start); says in words what it did.

    Returns:
        `{"run", "path", "metrics"}`; see :func:`judge` for the metrics.

    Raises:
        NotFoundError, UsageError, TrainingError: see :mod:`train.fitting.fit`.
        TrainingInterruptedError: asked to stop.
    """
    settings, dataset, resumed = planned.settings, planned.dataset, planned.resumed
    with joined(planned.device) as ranks:
        told = console if ranks.first else None
        for warning in planned.warnings:
            (told.say if told else logger.info)(warning)
        if settings.compile:
            check_compiler()
        run_path = resumed or _new_run_path(dataset, settings, ranks)
        with exclusive(dataset.locks / f"{run_path.name}-{ranks.rank}", f"train {run_path.name}"):
            try:
                if planned.crops:
                    prepare = _taught(planned.crops, settings, run_path if ranks.first else None, prepare, told)
                return _run(run_path, settings, planned.release, ranks, Fit(resumed is not None, prepare), told)
            except BoxwrightError:
                if ranks.first and not resumed and not checkpoint.path_of(run_path, checkpoint.LAST).is_file():
                    shutil.rmtree(run_path, ignore_errors=True)  # nothing to go on from is no run: the lists of runs would name it
                raise


def check_options(dataset: Dataset, options: Options) -> Detector:
    """Find what is wrong with the options of :func:`train_run` before there is a release to train on; returns the detector they name.

    Raises:
        UsageError, NotFoundError: see :func:`train.fitting.plan.plan`.
    """
    settings = foreseen(dataset, options)
    return open_detector(settings.detector, settings.categories, settings.image_size, settings.weights)


def _new_run_path(dataset: Dataset, settings: TrainConfig, ranks: Ranks) -> Path:
    """A folder that no run has: `v001-fcos_mobilenet_v2-1`; with several processes the first one decides."""
    stem = f"{settings.release}-{settings.detector}"
    number = 0
    if ranks.first:
        taken = [re.fullmatch(re.escape(stem) + r"-(\d+)", path.name) for path in dataset.runs.glob(f"{stem}-*")]
        number = max((int(found[1]) for found in taken if found), default=0) + 1
        (dataset.runs / f"{stem}-{number}").mkdir(parents=True)
    (agreed,) = ranks.agree(float(number))
    return dataset.runs / f"{stem}-{int(agreed)}"


def _taught(
    shown: Crops, settings: TrainConfig, run_path: Path | None, prepare: Callable[[Detector], str] | None, console: Console | None
) -> Callable[[Detector], str]:
    """Prepare a detector by teaching it with crops, after what `prepare` does; writes `crops.json` into the run."""

    def teach(detector: Detector) -> str:
        words = prepare(detector) if prepare else detector.weights_origin
        if console:
            console.say(f"looking at {len(shown.files)} crops")
        taught = crops.teach(cast("TwoPhase", detector), shown, settings.seed)
        if run_path:
            crops.write(run_path, taught)
        if console:
            console.say(taught.sentence())
        return f"{words}; {taught.sentence()}"

    return teach


def _run(run_path: Path, settings: TrainConfig, release: Release, ranks: Ranks, how: Fit, console: Console | None) -> dict[str, Any]:
    say = console.say if console else logger.info
    live = console is not None and not console.quiet and sys.stderr.isatty()
    progress = Progress(run_path if ranks.first else None, say, live, settings.tensorboard and ranks.first)
    device = str(ranks.device)
    validate = _validator(release, device) if release.has_boxes("val") else None
    say(f"training {run_path.name} on {device}")
    if settings.precision == "bf16" and not has_bf16(ranks.device):
        say("this device computes bf16 in software, which can take tens of times as long as fp32: begin a new run with --precision auto")
    try:
        state, settled = fit(settings, release, run_path, ranks, Fit(how.resume, how.prepare, validate, progress))
    except KeyboardInterrupt as stop:
        raise TrainingInterruptedError(run_path.name) from stop
    if not ranks.first:
        return {"run": run_path.name, "path": str(run_path), "metrics": {}}
    say(f"weights it began with: {settled.weights_origin}")
    metrics = judge(run_path, settled, release, state, device)
    say(f"report: {report.write(run_path)}")
    return {"run": run_path.name, "path": str(run_path), "metrics": metrics}


def _validator(release: Release, device: str) -> Validate:
    def validate(detector: Detector) -> tuple[float, float]:
        found, _ = detect_split(Predictor(detector, device), release.splits["val"], release.images)
        stats = evaluate(release.documents["val"], found).stats
        return stats[0], stats[1]

    return validate


def judge(run_path: Path, settings: TrainConfig, release: Release, state: State, device: str) -> dict[str, Any]:
    """Detect on val and test with the best weights; write `detections-<split>.json` and `metrics.json`.

    Returns:
        Per judged split (val and test, or train where both are empty) the twelve COCO numbers by name; besides what the
        training took: `train_wall_s`, `train_cpu_s` (of all its threads), `images`, `epochs`, `best_epoch`, `unreadable`, `parameters`;
        and with `--crops` what they taught: `crops`.
    """
    predictor = Predictor.from_run(run_path, device, num_threads=settings.threads)
    metrics: dict[str, Any] = {
        "run": run_path.name,
        "dataset": release.dataset,
        "release": release.version,
        "detector": settings.detector,
        "weights": settings.weights_origin,
        "image_size": settings.image_size,
        "device": device,
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "steps": state.step,
        "images": state.images,
        "unreadable": state.unreadable,
        "train_wall_s": round(state.wall_s, 3),
        "train_cpu_s": round(state.cpu_s, 3),
        "images_per_s": round(state.images / max(state.wall_s, 1e-9), 3),
        "parameters": sum(parameter.numel() for parameter in predictor.detector.parameters()),
    }
    if taught := crops.read(run_path):
        metrics["crops"] = taught
    for split in [split for split in JUDGED if release.size_of(split)] or ["train"]:
        found, failures = detect_split(predictor, release.splits[split], release.images)
        for failure in failures:
            logger.warning("not judged, since it cannot be read: %s", failure)
        write_atomic(run_path / f"detections-{split}.json", orjson.dumps(found))
        evaluation = evaluate(release.documents[split], found)
        metrics[split] = dict(zip(STAT_NAMES, evaluation.stats, strict=True))
        if metrics.get("threshold") is None:
            metrics["threshold"] = evaluation.best.threshold
    write_atomic(run_path / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics

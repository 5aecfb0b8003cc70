"""A whole run: open the release, train, judge val and test, write metrics.json and report.html.

`train_run` is what the verb, the demo, `compare` and `retrain` call.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

import orjson

from annotate.coco import Category
from collect import definition
from collect.console import Console
from collect.errors import BoxwrightError, UsageError, unknown_name
from collect.files import exclusive, write_atomic
from collect.workspace import Dataset, Workspace
from train.data.release import Release, check_trainable, open_release
from train.detectors.detector import Detector, find_detector, open_detector
from train.detectors.two_phase import TwoPhase
from train.fitting import checkpoint, config, crops
from train.fitting.config import TrainConfig
from train.fitting.crops import Crops
from train.fitting.device import check_compiler, has_bf16
from train.fitting.fit import Fit, State, Validate, fit
from train.fitting.progress import Progress
from train.fitting.ranks import Ranks, joined
from train.judging import report
from train.judging.evaluate import STAT_NAMES, evaluate
from train.serving.predictor import Predictor, detect_split

logger = logging.getLogger(__name__)

Options = Mapping[str, Any]
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
    """Train a detector on a release of the dataset `name` and judge it.

    Args:
        workspace: where datasets and runs lie.
        name: the dataset.
        options: settings of :class:`TrainConfig` by name, and `release` ("" = the newest) or `resume` (a run). What is not
            given comes from `[train]` in dataset.toml, else from the detector's recipe.
        console: who is told how it goes; None = nobody.
        prepare: called with the new detector before it trains (a warm start); says in words what it did.

    Returns:
        `{"run", "path", "metrics"}`; see :func:`judge` for the metrics.

    Raises:
        NotFoundError, UsageError, TrainingError: see :mod:`train.fitting.fit`.
        TrainingInterruptedError: asked to stop.
    """
    dataset = workspace.dataset(name)
    with joined(str(options.get("device", "auto"))) as ranks:
        resume = str(options.get("resume", ""))
        if resume:
            run_path = workspace.run_path(resume, name)
            settings = _resumed(config.read(run_path), dataset, run_path, options)
        else:
            settings = _settings(dataset, options)
        release = open_release(dataset, settings.release)
        quiet = console is None or not ranks.first
        for warning in check_trainable(release):
            (logger.info if quiet or console is None else console.say)(warning)
        find_detector(settings.detector)
        if settings.compile:
            check_compiler()
        shown = _crops(settings, dataset) if settings.crops and not resume else None
        if not resume:
            run_path = _new_run_path(dataset, settings, ranks)
        with exclusive(dataset.locks / f"{run_path.name}-{ranks.rank}", f"train {run_path.name}"):
            told = None if quiet else console
            try:
                if shown:
                    prepare = _taught(shown, settings, run_path if ranks.first else None, prepare, told)
                return _run(run_path, settings, release, ranks, Fit(bool(resume), prepare), told)
            except BoxwrightError:
                if ranks.first and not resume and not checkpoint.path_of(run_path, checkpoint.LAST).is_file():
                    shutil.rmtree(run_path, ignore_errors=True)  # nothing to go on from is no run: the lists of runs would name it
                raise


def check_options(dataset: Dataset, options: Options) -> Detector:
    """Find what is wrong with the options of :func:`train_run` before there is a release to train on; returns the detector they name.

    Raises:
        UsageError, NotFoundError: see :func:`train_run`.
    """
    classes = definition.load(dataset).classes
    settings = _recipe(dataset, options, "", tuple(Category(entry.id, entry.name, entry.supercategory) for entry in classes))
    if settings.crops:
        _crops(settings, dataset)
    return open_detector(settings.detector, settings.categories, settings.image_size, settings.weights)


def _settings(dataset: Dataset, options: Options) -> TrainConfig:
    release = open_release(dataset, options.get("release") or "")
    return _recipe(dataset, options, release.version, release.categories)


def _recipe(dataset: Dataset, options: Options, release: str, categories: tuple[Category, ...]) -> TrainConfig:
    """dataset.toml's recipe, overridden by the options."""
    recipe = definition.load(dataset).train
    known = {entry.name for entry in fields(recipe)} & {entry.name for entry in fields(TrainConfig)}
    given = {key: value for key, value in options.items() if key not in {"resume", "release"} and value is not None}
    return TrainConfig(dataset.name, release, categories, **{key: getattr(recipe, key) for key in known}).with_options(given)


def _resumed(settings: TrainConfig, dataset: Dataset, run_path: Path, options: Options) -> TrainConfig:
    """The run's own config. Only what does not change the result may differ.

    Raises:
        UsageError: the run is of another dataset, or an option would change what it computes.
    """
    if settings.dataset != dataset.name:
        raise UsageError(f"the run {run_path.name} is of {settings.dataset}, not of {dataset.name}")
    free = {"device", "workers", "checkpoint_s", "tensorboard", "time_budget_s", "resume"}
    given = {key: value for key, value in options.items() if value is not None and key not in free}
    for key, value in given.items():
        if key not in {entry.name for entry in fields(TrainConfig)}:
            raise unknown_name("training setting", key, [entry.name for entry in fields(TrainConfig)])
        if getattr(settings, key) != value:
            raise UsageError(f"the run {run_path.name} has {key} = {getattr(settings, key)!r}; a resume cannot change it: start a new run")
    kept = free - {"resume"}
    return settings.with_options({key: value for key, value in options.items() if key in kept and value is not None})


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


def _crops(settings: TrainConfig, dataset: Dataset) -> Crops:
    """The crops that `--crops` names, read before there is a run, so that a wrong folder leaves none behind.

    Raises:
        UsageError: the detector learns from no crops, or a folder is named like no class.
        NotFoundError: no crops at all, or none of a class.
    """
    if settings.detector != "two-phase":
        raise UsageError(
            f"--crops are for the two-phase detector, and {settings.detector} learns from boxes alone: add --detector two-phase"
        )
    folder = Path(settings.crops).expanduser()
    also = {entry.name: (*entry.was, *entry.synonyms) for entry in definition.load(dataset).classes}
    return crops.read_crops(folder, crops.class_folders(folder, settings.categories, also))


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


def what_would_be_done(workspace: Workspace, name: str, options: Options) -> dict[str, Any]:
    """The config that :func:`train_run` would begin with, checked as far as it can be without building the detector."""
    dataset = workspace.dataset(name)
    if options.get("resume"):
        run_path = workspace.run_path(str(options["resume"]), name)
        settings = _resumed(config.read(run_path), dataset, run_path, options)
    else:
        settings = _settings(dataset, options)
    check_trainable(open_release(dataset, settings.release))
    find_detector(settings.detector)
    if settings.crops and not options.get("resume"):
        _crops(settings, dataset)
    return asdict(settings)

"""What a training would do: settings and release, read and checked without torch, so that what is wrong is told at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotate.coco import Category
from collect import definition
from collect.errors import UsageError, unknown_name
from collect.workspace import Dataset, Workspace
from train.data.release import Release, check_trainable, open_release
from train.detectors.table import place_of
from train.fitting import config
from train.fitting.config import TrainConfig

if TYPE_CHECKING:
    from train.fitting.crops import Crops

Options = Mapping[str, Any]

#: Of the run's own, what does not change the result and may differ in a resume.
_FREE = frozenset({"device", "workers", "checkpoint_s", "tensorboard", "time_budget_s"})


@dataclass(frozen=True)
class Plan:
    """A training that can begin.

    Attributes:
        device: what was asked for; a resumed run need not stay on the one that it began on.
        warnings: what the release lacks, as sentences.
        crops: read already, so that a wrong folder leaves no run behind; None where none are asked for.
        resumed: the folder of the run that is gone on with; None = a new one.
    """

    dataset: Dataset
    settings: TrainConfig
    release: Release
    device: str
    warnings: tuple[str, ...]
    crops: Crops | None = None
    resumed: Path | None = None


def plan(workspace: Workspace, name: str, options: Options) -> Plan:
    """Read and check what a training of a detector on a release of the dataset `name` needs.

    Args:
        workspace: where datasets and runs lie.
        name: the dataset.
        options: settings of :class:`TrainConfig` by name, and `release` ("" = the newest) or `resume` (a run). What is not
            given comes from `[train]` in dataset.toml, else from the detector's recipe.

    Raises:
        NotFoundError: no such dataset, release, run or folder of crops.
        UsageError: no such setting or detector, or a value that cannot be.
        TrainingError: the release has nothing to learn from.
    """
    dataset = workspace.dataset(name)
    resumed = workspace.run_path(str(options["resume"]), name) if options.get("resume") else None
    if resumed:
        settings = _resumed(config.read(resumed), dataset, resumed, options)
        release = open_release(dataset, settings.release)
    else:
        release = open_release(dataset, options.get("release") or "")
        settings = _recipe(dataset, options, release.version, release.categories)
    warnings = tuple(check_trainable(release))
    crops = _crops(settings, dataset) if settings.crops and not resumed else None
    return Plan(dataset, settings, release, str(options.get("device", "auto")), warnings, crops, resumed)


def foreseen(dataset: Dataset, options: Options) -> TrainConfig:
    """The settings for a release that is not written yet, which will have the definition's classes.

    Raises:
        NotFoundError, UsageError: see :func:`plan`.
    """
    classes = definition.load(dataset).classes
    settings = _recipe(dataset, options, "", tuple(Category(entry.id, entry.name, entry.supercategory) for entry in classes))
    if settings.crops:
        _crops(settings, dataset)
    return settings


def _recipe(dataset: Dataset, options: Options, release: str, categories: tuple[Category, ...]) -> TrainConfig:
    """dataset.toml's recipe, overridden by the options."""
    recipe = definition.load(dataset).train
    known = {entry.name for entry in fields(recipe)} & {entry.name for entry in fields(TrainConfig)}
    given = {key: value for key, value in options.items() if key not in {"resume", "release"} and value is not None}
    settings = TrainConfig(dataset.name, release, categories, **{key: getattr(recipe, key) for key in known}).with_options(given)
    place_of(settings.detector)
    return settings


def _resumed(settings: TrainConfig, dataset: Dataset, run_path: Path, options: Options) -> TrainConfig:
    """The run's own config. Only what does not change the result may differ.

    Raises:
        UsageError: the run is of another dataset, or an option would change what it computes.
    """
    if settings.dataset != dataset.name:
        raise UsageError(f"the run {run_path.name} is of {settings.dataset}, not of {dataset.name}")
    given = {key: value for key, value in options.items() if value is not None and key != "resume"}
    for key, value in given.items():
        if key not in {entry.name for entry in fields(TrainConfig)}:
            raise unknown_name("training setting", key, [entry.name for entry in fields(TrainConfig)])
        if key not in _FREE and getattr(settings, key) != value:
            raise UsageError(f"the run {run_path.name} has {key} = {getattr(settings, key)!r}; a resume cannot change it: start a new run")
    return settings.with_options({key: value for key, value in given.items() if key in _FREE})


def _crops(settings: TrainConfig, dataset: Dataset) -> Crops:
    """The crops that `--crops` names.

    Raises:
        UsageError: the detector learns from no crops, or a folder is named like no class.
        NotFoundError: no crops at all, or none of a class.
    """
    if settings.detector != "two-phase":
        raise UsageError(
            f"--crops are for the two-phase detector, and {settings.detector} learns from boxes alone: add --detector two-phase"
        )
    from train.fitting import crops  # with torch, and only here

    folder = Path(settings.crops).expanduser()
    also = {entry.name: (*entry.was, *entry.synonyms) for entry in definition.load(dataset).classes}
    return crops.read_crops(folder, crops.class_folders(folder, settings.categories, also))

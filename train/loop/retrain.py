"""Retraining after a dataset update, in steps that can each be interrupted.

    release ── what changed, as the next immutable release
    train   ── a challenger on all of it, old data included, warm-started from the champion
    compare ── both on the same frozen test images
    gate    ── promoted only on evidence, or by force, which is recorded

Where it stands is kept in `runs/NAME/retrain.json`; running the same command again goes on from there. The run it trains
is found again by a token in its config, so that no other run can be taken for it.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from annotate.release import Options as ReleaseOptions
from annotate.release import Release as MadeRelease
from annotate.release import make_release
from collect import definition as definitions
from collect.console import Console
from collect.definition import Definition
from collect.errors import BoxwrightError, NotFoundError, RefusedError, TrainingError, UsageError
from collect.files import exclusive, write_atomic
from collect.workspace import Dataset, Workspace
from train.data.release import Release, check_trainable, open_release
from train.detectors.detector import Detector
from train.fitting import checkpoint, config
from train.fitting.run import check_options, train_run
from train.judging.inputs import read_detections
from train.loop import champion as champions
from train.loop import drift, verdict_page
from train.loop.champion import Champion
from train.loop.trial import Trial, objection
from train.loop.warm_start import WarmStart, warm_start
from train.serving.predictor import load_detector

STATE = "retrain.json"
GATE = "gate.json"


@dataclass(frozen=True)
class Request:
    """What was asked for. `options` go to :func:`train.fitting.run.train_run`; `cold` leaves the warm start out."""

    workspace: Workspace
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    unreviewed: bool = False
    force: bool = False
    cold: bool = False


@dataclass(frozen=True)
class Progress:
    """Where a retrain stands.

    `token` stands in the config of the run that it trains; `asked` are the options it was begun with, as JSON; `run` is set
    once that is trained.
    """

    token: str
    asked: str = ""
    release: str = ""
    run: str = ""


@dataclass
class _Retrain:
    """One retrain under way; holds the dataset's retrain lock."""

    request: Request
    console: Console
    dataset: Dataset
    definition: Definition
    progress: Progress
    objection: str = ""

    def save(self, **changes: str) -> None:
        self.progress = replace(self.progress, **changes)
        write_atomic(self.dataset.runs / STATE, json.dumps(asdict(self.progress), indent=2) + "\n")

    def forget(self) -> None:
        """This retrain is over."""
        (self.dataset.runs / STATE).unlink(missing_ok=True)
        self.warm_start_path.unlink(missing_ok=True)

    @property
    def warm_start_path(self) -> Path:
        return self.dataset.runs / f"warm_start-{self.progress.token}.json"

    def release(self, champion: Champion | None) -> Release:
        """The release to train on: a new one, or the newest where nothing changed since. It is not written where the retrain is refused."""
        if self.progress.release:
            self.console.say(f"going on with the retrain on {self.progress.release}{self.later()}")
            release = open_release(self.dataset, self.progress.release)
            self.check(champion, release.version, release.split_of)
            return release
        made = self.new_release(champion)
        self.console.say(f"{made.version}: {'new' if made.changed else 'nothing changed since it was written'}")
        for note in made.notes:
            self.console.say(f"  {note}")
        self.save(release=made.version)
        return open_release(self.dataset, made.version)

    def later(self) -> str:
        """Where labels or classes changed since the release that is gone on with, that they are not in it."""
        try:
            made = make_release(self.dataset, self.definition, ReleaseOptions(unreviewed=self.request.unreviewed, dry_run=True))
        except BoxwrightError:  # what stands against a new release is told when there is to be one
            return ""
        return "" if made.version == self.progress.release else "; what changed since it was written is for the next retrain"

    def new_release(self, champion: Champion | None, *, dry_run: bool = False) -> MadeRelease:
        detector = check_options(self.dataset, self.options(champion))
        if champion and not self.request.cold and self.options(champion)["detector"] != self.detector_of(champion):
            self.warm_start(detector, champion)  # only to see whether it fits: a refusal leaves no release
        return make_release(
            self.dataset,
            self.definition,
            ReleaseOptions(unreviewed=self.request.unreviewed, dry_run=dry_run),
            lambda made: self.check(champion, made.version, made.assignment.split_of),
        )

    def check(self, champion: Champion | None, version: str, split_of: Mapping[str, str]) -> None:
        """Refuse a release that the champion cannot be judged on; with `force` the objection is kept for the verdict."""
        self.objection = objection(self.dataset, self.definition, champion, version, split_of, self.console.say)
        if self.objection and not self.request.force:
            raise RefusedError(self.objection)

    def options(self, champion: Champion | None) -> dict[str, Any]:
        """What was asked for, on the champion's detector where no other was."""
        options = dict(self.request.options)
        if champion and not self.request.cold:
            options.setdefault("detector", self.detector_of(champion))
        return options

    def detector_of(self, champion: Champion) -> str:
        return config.read(self.dataset.runs / champion.run).detector

    def train(self, champion: Champion | None) -> str:
        """Train the challenger, or go on with it; returns its run."""
        if self.progress.run:
            return self.progress.run
        begun = self.own_run()
        for path in _runs_with_token(self.dataset, self.progress.token):
            if path.name != begun:  # killed before its first checkpoint: nothing to go on from, and the lists of runs would name it
                shutil.rmtree(path)
        where = {"resume": f"{self.dataset.name}/{begun}"} if begun else {"release": self.progress.release}
        result = train_run(
            self.request.workspace,
            self.dataset.name,
            {**self.options(champion), **where},
            self.console,
            lambda detector: self._prepare(detector, champion),
        )
        self.save(run=result["run"])
        return str(result["run"])

    def _prepare(self, detector: Detector, champion: Champion | None) -> str:
        """The warm start, in words that carry the token of this retrain."""
        words = detector.weights_origin
        if champion and not self.request.cold:
            started = self.warm_start(detector, champion)
            write_atomic(self.warm_start_path, json.dumps(started.to_json(), indent=2))
            words = started.sentence()
            self.console.say(words)
        return f"{words} (retrain {self.progress.token})"

    def warm_start_told(self) -> dict[str, Any] | None:
        """What the warm start copied, as it was told when the training began."""
        return dict(json.loads(self.warm_start_path.read_bytes())) if self.warm_start_path.is_file() else None

    def own_run(self) -> str:
        """The run that this retrain trains or trained, "" where it has not begun."""
        if self.progress.run:
            return self.progress.run
        begun = [
            path for path in _runs_with_token(self.dataset, self.progress.token) if checkpoint.path_of(path, checkpoint.LAST).is_file()
        ]
        return begun[0].name if begun else ""

    def warm_start(self, detector: Detector, champion: Champion) -> WarmStart:
        return warm_start(detector, load_detector(self.dataset.runs / champion.run), champion.run, self.definition)


def retrain(request: Request, console: Console) -> dict[str, Any]:
    """Release, train, compare, decide; returns the gate's document with `run`, `release`, `champion` and `drift`.

    Raises:
        BusyError: another retrain of this dataset is at work.
        RefusedError: the frozen test set changed, or the two models have no category in common (not with `force`).
        KeyboardInterrupt: run the same command again to go on.
    """
    dataset = request.workspace.dataset(request.name)
    with exclusive(dataset.locks / "retrain", f"retrain {request.name}"):
        work = _Retrain(request, console, dataset, definitions.load(dataset), _progress(dataset, request, console))
        champion = _champion(dataset, console, work.own_run())
        if champion and champion.run == work.progress.run:  # killed between the crowning and the end
            work.forget()
            return dict(json.loads((dataset.runs / champion.run / GATE).read_bytes()))
        try:
            release = work.release(champion)
            if champion:
                champions.crown(dataset, champion)  # it may have been chosen just now
            run = work.train(champion)
        except (TrainingError, UsageError, RefusedError):  # it would fail again: the next retrain shall not go on with this one
            work.forget()
            raise
        trial = Trial(dataset, work.definition, release, champion, str(request.options.get("device", "auto")), request.force)
        result = trial.judge(run, work.objection) | {
            "warnings": check_trainable(release), "warm_start": work.warm_start_told(), "drift": _drift(dataset, champion, release, run),
        }  # fmt: skip
        _keep(dataset.runs / run, result)
        if result["champion"] == run:
            champions.crown(dataset, Champion(run, release.version, result["challenger_ap"], forced=result["forced"]))
        work.forget()
        return result


def foresee(request: Request, console: Console) -> tuple[str, str]:
    """The release that :func:`retrain` would train on, and the run that it would compare with, "" for none. Writes nothing.

    Raises:
        RefusedError, UsageError, NotFoundError: as the retrain would.
    """
    dataset = request.workspace.dataset(request.name)
    work = _Retrain(request, console, dataset, definitions.load(dataset), Progress(""))
    champion = _champion(dataset, console, "")
    return work.new_release(champion, dry_run=True).version, champion.run if champion else ""


def _progress(dataset: Dataset, request: Request, console: Console) -> Progress:
    """Where an interrupted retrain stood; a fresh start where there is none, or other options are asked for now."""
    asked = json.dumps([dict(request.options), request.cold, request.unreviewed], sort_keys=True)
    try:
        kept = Progress(**json.loads((dataset.runs / STATE).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return Progress(secrets.token_hex(4), asked)
    if kept.asked != asked:
        console.say("an interrupted retrain had other options; this one begins anew")
        return Progress(secrets.token_hex(4), asked)
    if kept.release not in {"", *dataset.release_names()}:
        console.say(f"{kept.release}, which an interrupted retrain was at work on, is gone; this one begins anew")
        return Progress(secrets.token_hex(4), asked)
    if kept.run and not (dataset.runs / kept.run / "config.json").is_file():
        console.say(f"{kept.run}, which an interrupted retrain had trained, is gone; it is trained anew")
        return replace(kept, run="")
    return kept


def _champion(dataset: Dataset, console: Console, own_run: str) -> Champion | None:
    """The champion; where there is none yet, the best finished run (but not this retrain's own) is to be it, and that is said."""
    champion = champions.read(dataset)
    if champion is None:
        best = champions.best_finished_run(dataset, but=own_run)
        if best is None:
            console.say(f"{dataset.name} has no champion and no finished run: what is trained now becomes the first champion")
            return None
        champion = Champion(best.path.name, best.release, best.test_ap)
        console.say(
            f"{dataset.name} had no champion yet: the best of its runs on {best.release}, {champion.run}"
            f" (AP {best.ap:.3f} on {best.split or 'nothing'}), is taken for it"
        )
    if not (dataset.runs / champion.run / "config.json").is_file():
        raise NotFoundError(
            f"the champion {champion.run} is not in {dataset.runs}; put it back, or remove {dataset.champion} to begin anew"
        )
    return champion


def _runs_with_token(dataset: Dataset, token: str) -> list[Path]:
    """What a retrain began to train, by the token in its config."""
    return [path.parent for path in dataset.runs.glob("*/config.json") if f"(retrain {token})" in config.read(path.parent).weights_origin]


def _drift(dataset: Dataset, champion: Champion | None, release: Release, run: str) -> dict[str, Any]:
    """How the images that are new since the champion's release differ from the old, and where the winner fails."""
    before = open_release(dataset, champion.release) if champion else None
    results = read_detections(dataset.runs / run / "detections-test.json") if release.size_of("test") else []
    return drift.report(dataset, before, release, results)


def _keep(run_path: Path, result: dict[str, Any]) -> None:
    """`gate.json` for scripts, `retrain.md` and a section of the report for people."""
    write_atomic(run_path / GATE, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    verdict_page.write(run_path, result)

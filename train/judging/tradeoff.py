"""Detectors side by side on the same release, budget and machine, as in Huang et al. (CVPR 2017): what accuracy costs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from collect.errors import BoxwrightError
from collect.files import write_atomic
from collect.workspace import Workspace
from train.judging import charts, intervals, latency
from train.judging.charts import Axis, Point
from train.judging.evaluate import Evaluation, evaluate
from train.judging.inputs import read_detections
from train.judging.report import page
from train.judging.run_files import open_run

logger = logging.getLogger(__name__)

_COSTS = {
    "memory_mb": "memory while detecting, MB",
    "parameters": "parameters, millions",
    "train_cpu_s": "training, CPU-seconds",
}
#: What of train/ decides a row.
_CODE = ("data", "detectors", "fitting", "judging", "serving")
Train = Callable[[Workspace, str, Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """One detector. Memory is the peak while detecting one image at a time; `error` says why there is nothing else."""

    detector: str
    run: str = ""
    ap: float = -1.0
    ap50: float = -1.0
    ap_low: float | None = None
    ap_high: float | None = None
    latency_ms: float = 0.0
    latency_low_ms: float = 0.0
    latency_high_ms: float = 0.0
    memory_mb: float = 0.0
    parameters: int = 0
    train_s: float = 0.0
    train_cpu_s: float = 0.0
    epochs: int = 0
    image_size: int = 0
    weights: str = ""
    error: str = ""


@dataclass(frozen=True)
class Plan:
    """What is compared. `options` are settings of a training that all detectors share."""

    dataset: str
    detectors: tuple[str, ...]
    options: Mapping[str, Any]
    device: str = "auto"


def compare(workspace: Workspace, plan: Plan, train: Train, say: Callable[[str], None]) -> dict[str, Any]:
    """Train and measure every detector; writes `runs/NAME/compare.json` and `compare.html`.

    A detector that cannot be trained gets a row with the reason. The result is written after each detector, and whoever is
    interrupted goes on with the same command: what was measured with the same settings and code on the same machine is kept.

    Raises:
        BoxwrightError: not one detector could be trained; the last one's reason.
    """
    folder = workspace.dataset(plan.dataset).runs
    settings = {**plan.options, "device": plan.device, "machine": machine(), "code": code()}
    rows = {name: row for name, row in _kept(folder / "compare.json", settings, say).items() if name in plan.detectors}
    for place, name in enumerate(plan.detectors, 1):
        if name in rows:
            say(f"{name} ({place} of {len(plan.detectors)}): measured already, in {rows[name].run}")
            continue
        say(f"{name} ({place} of {len(plan.detectors)})")
        try:
            rows[name] = _measured(workspace, plan, name, train)
        except BoxwrightError as error:
            logger.info("%s failed", name, exc_info=True)
            say(f"{name}: {error}")
            rows[name] = Row(name, error=str(error))
        _write(folder, plan, settings, rows)
    if all(row.error for row in rows.values()):
        raise BoxwrightError(f"not one detector could be compared; the last reason: {list(rows.values())[-1].error}")
    return _write(folder, plan, settings, rows)


def pareto(rows: Sequence[Row]) -> set[str]:
    """The detectors that no other one beats in both accuracy and latency (equal in one and better in the other counts as beaten)."""
    told = [row for row in rows if not row.error]
    return {
        row.detector
        for row in told
        if not any(
            other.ap >= row.ap and other.latency_ms <= row.latency_ms and (other.ap > row.ap or other.latency_ms < row.latency_ms)
            for other in told
        )
    }


def machine() -> dict[str, Any]:
    """What a figure of speed belongs to."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    return {"cpu": _cpu_name(), "cpus": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu, "torch": torch.__version__}


def code(room: Path = Path(__file__).parents[1]) -> str:
    """Which code trains and measures: 12 hex digits that change with any of its files, so that two versions share no row."""
    files = sorted(path for folder in _CODE for path in (room / folder).rglob("*.py"))
    told = hashlib.sha256()
    for path in files:
        told.update(f"{path.relative_to(room).as_posix()}\n".encode() + path.read_bytes())
    return told.hexdigest()[:12]


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _measured(workspace: Workspace, plan: Plan, name: str, train: Train) -> Row:
    result = train(workspace, plan.dataset, {**plan.options, "detector": name, "device": plan.device})
    metrics, path = result["metrics"], Path(result["path"])
    evaluation = _evaluation(path)
    bounds = intervals.of_evaluation(evaluation).ap
    speed = latency.of_run(path, open_run(path).choose_split(), plan.device, int(plan.options.get("threads", 0)))
    return Row(
        detector=name,
        run=result["run"],
        ap=evaluation.stats[0],
        ap50=evaluation.stats[1],
        ap_low=bounds.low,
        ap_high=bounds.high,
        latency_ms=speed.median_ms,
        latency_low_ms=speed.low_ms,
        latency_high_ms=speed.high_ms,
        memory_mb=speed.memory_mb,
        parameters=int(metrics.get("parameters", 0)),
        train_s=float(metrics.get("train_wall_s", 0.0)),
        train_cpu_s=float(metrics.get("train_cpu_s", 0.0)),
        epochs=int(metrics.get("epochs", 0)),
        image_size=int(metrics.get("image_size", 0)),
        weights=str(metrics.get("weights", "")),
    )


def _evaluation(run_path: Path) -> Evaluation:
    run = open_run(run_path)
    split = run.choose_split()
    return evaluate(run.ground_truth(split), read_detections(run.detections(split)))


def _kept(path: Path, settings: Mapping[str, Any], say: Callable[[str], None]) -> dict[str, Row]:
    """Rows of an earlier comparison with these settings whose runs are still there; failures are tried again."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        before, now = document["settings"], json.loads(json.dumps(settings))
        known = {field.name for field in dataclasses.fields(Row)}
        rows = [Row(**{key: value for key, value in row.items() if key in known}) for row in document["rows"]]
        other = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    if other:
        say(f"{path.name} was measured with other settings ({', '.join(other)}): measuring anew")
        return {}
    return {row.detector: row for row in rows if not row.error and (path.parent / row.run / "config.json").is_file()}


def _write(folder: Path, plan: Plan, settings: Mapping[str, Any], rows: Mapping[str, Row]) -> dict[str, Any]:
    ordered = sorted(rows.values(), key=lambda row: (bool(row.error), -row.ap))
    front = pareto(ordered)
    told = [row for row in ordered if not row.error]
    against = dict(_against_best(folder, told))
    split = open_run(folder / told[0].run).choose_split() if told else ""
    document = {
        "dataset": plan.dataset,
        "release": open_run(folder / told[0].run).config["release"] if told else plan.options.get("release", ""),
        "split": split,
        "settings": dict(settings),
        "rows": [
            {**dataclasses.asdict(row), "pareto": row.detector in front, "against_best": against.get(row.detector)} for row in ordered
        ],
        "html": str(folder / "compare.html"),
    }
    write_atomic(folder / "compare.json", json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    told_of = {**settings["machine"], **plan.options, "device": plan.device, "code": settings["code"]}
    facts = {key.replace("_", " "): value for key, value in told_of.items() if value}
    scratch = [row.detector for row in told if row.weights.startswith("none")]
    content = {**document, **_plots(told, front), "table": list(_table(ordered, front, against)), "facts": facts, "scratch": scratch}
    write_atomic(folder / "compare.html", page("compare.html", content))
    return document


def _against_best(folder: Path, rows: Sequence[Row]) -> Iterator[tuple[str, dict[str, Any]]]:
    """AP against the best detector's, resampled on the same images."""
    if len(rows) < 2:
        return
    best = _evaluation(folder / rows[0].run)
    for row in rows[1:]:
        delta = intervals.paired(best.truth, best.found, _evaluation(folder / row.run).found).delta_ap
        yield row.detector, dataclasses.asdict(delta)


def _plots(rows: Sequence[Row], front: set[str]) -> dict[str, Any]:
    accuracy = Axis("AP", 0)
    others: list[Markup] = []
    for name, label in _COSTS.items():
        scale = 1e6 if name == "parameters" else 1.0
        points = [Point(row.detector, max(getattr(row, name) / scale, 1e-3), row.ap) for row in rows]
        others.append(charts.scatter(points, Axis(label, log=True), accuracy, f"AP against {label}"))
    points = [Point(row.detector, row.latency_ms, row.ap, (row.latency_low_ms, row.latency_high_ms), row.detector in front) for row in rows]
    main = charts.scatter(
        points, Axis("milliseconds for one image (median and quartiles)", log=True), accuracy, "AP against latency", (820, 420)
    )
    return {"main": main, "others": others}


def _table(rows: Sequence[Row], front: set[str], against: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        delta = against.get(row.detector)
        differs = ""
        if delta and delta["low"] is not None:
            differs = f"{delta['point']:+.3f} ({delta['low']:+.3f} to {delta['high']:+.3f})"
        yield {
            "name": row.detector,
            "front": row.detector in front,
            "error": row.error,
            "cells": [
                f"{row.ap:.3f}",
                f"{row.ap_low:.3f} – {row.ap_high:.3f}" if row.ap_low is not None and row.ap_high is not None else "–",
                f"{row.ap50:.3f}",
                differs or "–",
                f"{row.latency_ms:.1f} ({row.latency_low_ms:.1f} – {row.latency_high_ms:.1f})",
                f"{row.memory_mb:,.0f}",
                f"{row.parameters / 1e6:.1f}",
                f"{row.train_s:,.0f}",
                f"{row.train_cpu_s:,.0f}",
                row.epochs,
                row.image_size,
                row.weights.partition(" ")[0].rstrip(":,"),  # whence exactly: compare.json and the run's report
            ],
        }

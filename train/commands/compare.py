"""`boxwright compare`: detectors side by side on one release."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from collect.console import Console
from collect.errors import UsageError
from collect.workspace import Workspace
from train.fitting.plan import plan

#: option -> (setting of a training, type, help)
_SETTINGS: dict[str, tuple[str, type, str]] = {
    "--release": ("release", str, "the release to learn from (default: the newest)"),
    "--epochs": ("epochs", int, "how often the train split is gone through"),
    "--time-budget": ("time_budget_s", float, "seconds of training for each detector"),
    "--budget-clock": ("budget_clock", str, "what the budget counts: wall or cpu seconds"),
    "--image-size": ("image_size", int, "longest side of the input in pixels (default: each detector's own)"),
    "--batch-size": ("batch_size", int, "images per step (default: each detector's own)"),
    "--weights": ("weights", str, "auto or none: from trained weights where there are any, or all from scratch"),
    "--seed": ("seed", int, "of all random numbers"),
    "--threads": ("threads", int, "cores that a CPU trains and detects with; 0 = as many as are free when each training begins"),
    "--workers": ("workers", int, "loader processes; -1 = by the device"),
}


class Compare:
    """Trains each, measures each, and draws what accuracy costs; the work is :mod:`train.judging.tradeoff`'s."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the dataset")
        parser.add_argument("--detectors", required=True, metavar="A,B,C", help="their names, with commas between them")
        parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
        for option, (setting, kind, text) in _SETTINGS.items():
            parser.add_argument(option, dest=setting, type=kind, metavar=kind.__name__.upper(), help=text)

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        names = tuple(dict.fromkeys(name.strip() for name in arguments.detectors.split(",") if name.strip()))
        if not names:
            raise UsageError("--detectors needs at least one name, such as --detectors fcos_mobilenet_v2,ssdlite320_mobilenet_v3_large")
        settings = [setting for setting, _, _ in _SETTINGS.values()]
        options = {name: value for name in settings if (value := getattr(arguments, name)) is not None}
        plans = [asdict(plan(console.workspace, arguments.name, {**options, "detector": name}).settings) for name in names]
        if console.dry_run:
            columns = ("detector", "release", "epochs", "time_budget_s")
            console.table(columns, [[settings[column] for column in columns] for settings in plans])
            return {"plans": plans}
        from train.fitting.run import train_run  # loads torch: after what can be refused without
        from train.judging.tradeoff import Plan, compare

        def train(workspace: Workspace, dataset: str, given: Mapping[str, Any]) -> dict[str, Any]:
            return train_run(workspace, dataset, given, console)

        result = compare(console.workspace, Plan(arguments.name, names, options, arguments.device), train, console.say)
        headings = ["detector", "AP", "AP50", "ms", "MB", "M params", "train s", "front"]
        console.table(headings, [_cells(row) for row in result["rows"]])
        if scratch := [row["detector"] for row in result["rows"] if row["weights"].startswith("none")]:
            console.out(f"from scratch, so no verdict on the design: {', '.join(scratch)}")
        console.out(f"● stands on the Pareto front: no other is at least as accurate and as fast. {result['html']} draws it")
        return result


def _cells(row: Mapping[str, Any]) -> list[object]:
    if row["error"]:
        return [row["detector"], *["–"] * 6, row["error"]]
    costs = round(row["latency_ms"]), round(row["memory_mb"]), row["parameters"] / 1e6, round(row["train_s"])
    return [row["detector"], row["ap"], row["ap50"], *costs, "●" if row["pareto"] else ""]


COMPARE = Compare()

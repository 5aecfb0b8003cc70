"""`boxwright train`: fine-tune a detector on a release."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import Any

from collect.console import Console
from train.fitting.plan import plan

#: option -> (setting of TrainConfig, type, help)
_SETTINGS: dict[str, tuple[str, type, str]] = {
    "--release": ("release", str, "the release to learn from (default: the newest)"),
    "--detector": ("detector", str, "which detector (default: that of dataset.toml)"),
    "--epochs": ("epochs", int, "how often the train split is gone through; 0 = not at all, with --crops"),
    "--batch-size": ("batch_size", int, "images per step; 0 = the detector's own, on a GPU the largest that fits"),
    "--accumulate": ("accumulate", int, "steps whose gradients make one update"),
    "--image-size": ("image_size", int, "longest side of the input in pixels"),
    "--crop": ("crop_px", int, "side of the cut-outs trained on, at the scale of --image-size; 0 = whole images"),
    "--lr": ("learning_rate", float, "learning rate at the top of the schedule"),
    "--seed": ("seed", int, "of all random numbers"),
    "--device": ("device", str, "auto, cpu, cuda, cuda:1, mps"),
    "--precision": ("precision", str, "auto, fp32 or bf16; auto = bf16 where the hardware has it"),
    "--time-budget": ("time_budget_s", float, "seconds of training, validation not counted; the schedule follows the time"),
    "--budget-clock": ("budget_clock", str, "what the budget counts: wall or cpu seconds"),
    "--weights": ("weights", str, "auto, none, or the path of a checkpoint or state dict to begin with"),
    "--crops": ("crops", str, "a folder per class of cut-out faces: the two-phase detector's final layers begin with these"),
    "--freeze": ("freeze", int, "stages of the backbone to hold still, from the input inwards; -1 = the detector's own"),
    "--ema": ("ema_decay", float, "decay of the weights' moving average; 0 = none"),
    "--patience": ("patience", int, "validations without a better score after which it stops; 0 = never"),
    "--eval-every": ("eval_every", int, "epochs between validations; 0 = about ten in all"),
    "--sampling": ("sampling", str, "uniform, repeat-factor or class-balanced"),
    "--multi-scale": ("multi_scale", float, "greatest change of the input's side, such as 0.25"),
    "--zoom-in": ("zoom_in", float, "greatest magnification of a training image"),
    "--zoom-out": ("zoom_out", float, "least magnification of a training image"),
    "--mirror": ("mirror", float, "chance of a mirrored image; 0 where left and right are different things, as in writing"),
    "--turn": (
        "turn",
        float,
        "chance of a quarter, half or three-quarter turn, for pictures without an up: from above, through a microscope",
    ),
    "--mosaic": ("mosaic", float, "chance of four images in one"),
    "--mixup": ("mixup", float, "chance of two images blended"),
    "--copy-paste": ("copy_paste", float, "chance of pasting objects of another image"),
    "--augment": ("augment", str, "an albumentations pipeline of your own (JSON or YAML)"),
    "--checkpoint-every": ("checkpoint_s", float, "seconds between checkpoints within an epoch (there is one at each epoch's end)"),
    "--threads": ("threads", int, "cores to compute with on a CPU; 0 = as many as are free when it begins"),
    "--workers": ("workers", int, "loader processes; -1 = by the device"),
}


#: setting -> what its 0 or "" stands for, before the run has begun
_WHEN_IT_BEGINS = {
    "image_size": "the detector's own", "crop_px": "whole images", "weights_origin": "known when it begins",
    "batch_size": "the detector's own", "learning_rate": "the detector's own", "warmup_steps": "50",
    "clip_norm": "the detector's own", "time_budget_s": "none", "patience": "never stops early", "eval_every": "about ten in all",
    "workers": "by the device", "threads": "as many as are free",
}  # fmt: skip


def add_settings(parser: ArgumentParser, *without: str) -> None:
    """Every setting of a training as an option; `retrain` takes the same, without the release, which it makes itself."""
    for option, (setting, kind, text) in _SETTINGS.items():
        if option in without:
            continue
        parser.add_argument(option, dest=setting, type=kind, metavar=kind.__name__.upper(), help=text)
    parser.add_argument("--amp", action="store_const", const="bf16", dest="precision", help="the same as --precision bf16")
    parser.add_argument("--compile", action="store_const", const=True, dest="compile", help="torch.compile the detector")
    parser.add_argument("--tensorboard", action="store_const", const=True, dest="tensorboard", help="also write TensorBoard's events")


def given_settings(arguments: Namespace) -> dict[str, Any]:
    """The settings that were given, by their names in :class:`train.fitting.config.TrainConfig`."""
    names = [*(setting for setting, _, _ in _SETTINGS.values()), "compile", "tensorboard"]
    return {name: value for name in names if (value := getattr(arguments, name, None)) is not None}


class Train:
    """Trains, judges and reports; the work is :func:`train.fitting.run.train_planned`'s."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the dataset")
        add_settings(parser)
        parser.add_argument("--resume", metavar="RUN", help="go on with a run that was stopped")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        options = given_settings(arguments) | ({"resume": arguments.resume} if arguments.resume else {})
        planned = plan(console.workspace, arguments.name, options)
        if console.dry_run:
            settings = asdict(planned.settings)
            console.table(["setting", "value"], [[key, _planned(key, value)] for key, value in settings.items()])
            return {"plan": settings}
        from train.fitting.run import TrainingInterruptedError, train_planned  # loads torch: after what can be refused without

        try:
            result = train_planned(planned, console)
        except TrainingInterruptedError as stop:
            raise KeyboardInterrupt(f"`boxwright train {arguments.name} --resume {stop.run}` goes on from there.") from stop
        _tell(arguments.name, result, console)
        return result


def _tell(name: str, result: dict[str, Any], console: Console) -> None:
    judged: dict[str, dict[str, float]] = {split: stats for split in ("val", "test", "train") if (stats := result["metrics"].get(split))}
    if judged:
        # pycocotools writes -1 where there is no box of that size
        rows = [[name, *(s[name] if s[name] >= 0 else "–" for s in judged.values())] for name in next(iter(judged.values()))]
        console.table(["number", *judged], rows)
    if list(judged) == ["train"]:
        console.out("val and test are empty, so these are numbers on the images it was trained on: no measure of others")
    run = f"{name}/{result['run']}"
    console.out(f"{result['path']}; `boxwright evaluate {run}` tells it by class, `boxwright detect {run} PATH` puts it to use")


def _planned(setting: str, value: Any) -> str:
    """A setting as a person reads it: what is decided when the run begins is said so."""
    if setting == "categories":
        return ", ".join(entry["name"] for entry in value)
    if (setting in _WHEN_IT_BEGINS and value in (0, "")) or value == -1:
        return _WHEN_IT_BEGINS.get(setting, "the detector's own")
    return "–" if value == "" else str(value)


TRAIN = Train()

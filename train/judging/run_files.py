"""What a run's folder and its release hold, opened for judging."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotate.coco import Document, read_document
from collect.errors import CorruptError, NotFoundError, UsageError
from collect.workspace import Workspace

SPLITS = ("test", "val", "train")


@dataclass(frozen=True)
class RunFiles:
    """A run that is to be judged. `images` is the folder that `file_name`s are relative to."""

    path: Path
    config: dict[str, Any]
    release: Path
    images: Path

    @property
    def name(self) -> str:
        return self.path.name

    def splits(self) -> list[str]:
        """The splits of the release that hold images, in the order in which they are preferred for judging."""
        return [split for split in SPLITS if (self.release / f"{split}.json").is_file() and self.ground_truth(split)["images"]]

    def choose_split(self, split: str = "") -> str:
        """That split, or the first of test, val, train that has images.

        Raises:
            UsageError: the release has no such split, or no images in it; lists those there are.
        """
        there = self.splits()
        if not there:
            raise UsageError(f"the release of {self.name} has no images in any split, so there is nothing to judge on")
        if split and split not in there:
            raise UsageError(f"the release of {self.name} has no images in a split '{split}'; there are: {', '.join(there)}")
        return split or there[0]

    def ground_truth(self, split: str) -> Document:
        return read_document(self.release / f"{split}.json")

    def detections(self, split: str) -> Path:
        return self.path / f"detections-{split}.json"

    def metrics(self) -> dict[str, Any]:
        """metrics.json, {} where the run has none yet."""
        return _metrics(self.path)

    def history(self) -> list[dict[str, float]]:
        """The rows of metrics.csv; what is no number is left out."""
        path = self.path / "metrics.csv"
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return [{key: float(value) for key, value in row.items() if key and _is_number(value)} for row in csv.DictReader(file)]


def open_run(path: Path) -> RunFiles:
    """The run in `<root>/runs/NAME/RUN`, with the release it was trained on.

    Raises:
        NotFoundError: no run there, or its dataset or release is gone.
        CorruptError: config.json is broken.
    """
    path = path.resolve()
    config = _json(path / "config.json")
    try:
        name, version = str(config["dataset"]), str(config["release"])
    except KeyError as error:
        raise CorruptError(f"{path / 'config.json'} has no {error}; it is no run of Boxwright's") from error
    dataset = Workspace.at(str(path.parents[2])).dataset(name)
    return RunFiles(path, config, dataset.release_path(version), dataset.images)


def best_f1_score(path: Path) -> float | None:
    """The score at which the F1 of the run in this folder was best where it was judged; None where it never was.

    Raises:
        CorruptError: metrics.json is broken.
    """
    told = _metrics(path).get("threshold")
    return None if told is None else float(told)


def _metrics(path: Path) -> dict[str, Any]:
    file = path / "metrics.json"
    return _json(file) if file.is_file() else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {path}") from error
    except ValueError as error:
        raise CorruptError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CorruptError(f"{path} must hold a JSON object")
    return content


def _is_number(text: object) -> bool:
    try:
        float(str(text))
    except ValueError:
        return False
    return True

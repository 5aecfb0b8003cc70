"""champion.json: which run is the dataset's model. It moves only through the gate, or by force, which it says."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from collect.clock import now
from collect.errors import CorruptError
from collect.files import write_atomic
from collect.workspace import Dataset


@dataclass(frozen=True)
class Champion:
    """`ap` is that on the test split of `release`, a share of 1, None where it was never measured."""

    run: str
    release: str
    ap: float | None
    promoted_at: str = field(default_factory=now)
    forced: bool = False


def read(dataset: Dataset) -> Champion | None:
    """The champion, or None where there is none yet.

    Raises:
        CorruptError: champion.json is not what was written.
    """
    try:
        return Champion(**json.loads(dataset.champion.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise CorruptError(f"{dataset.champion} is no champion's entry ({error}); mend or remove it, then `boxwright retrain`") from error


def crown(dataset: Dataset, champion: Champion) -> None:
    """Make a run the champion."""
    write_atomic(dataset.champion, json.dumps(asdict(champion), indent=2) + "\n")


@dataclass(frozen=True)
class Finished:
    """A run that has metrics and a checkpoint; `ap` on `split`, which is val where that has boxes."""

    path: Path
    release: str
    split: str
    ap: float
    test_ap: float | None


def best_finished_run(dataset: Dataset, but: str = "") -> Finished | None:
    """The best of the finished runs on the newest release that has any, other than the one named `but`.

    The best, not the newest: after a `compare` that would be whichever detector was named last.
    """
    finished = [
        _finished(path)
        for path in dataset.runs.glob("*/metrics.json")
        if path.parent.name != but and any(path.parent.glob("checkpoints/*.pt"))
    ]
    return max(finished, key=lambda run: (int(run.release.removeprefix("v")), run.ap, run.path.name)) if finished else None


def _finished(path: Path) -> Finished:
    metrics = json.loads(path.read_bytes())
    split = next((name for name in ("val", "test", "train") if metrics.get(name, {}).get("AP", -1.0) >= 0), "")
    return Finished(
        path.parent, str(metrics["release"]), split, float(metrics.get(split, {}).get("AP", -1.0)), metrics.get("test", {}).get("AP")
    )

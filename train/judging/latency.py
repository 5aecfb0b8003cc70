"""How long a run's detector takes for one image and how much memory it needs, measured in a process of its own.

    python -m train.judging.latency RUN_FOLDER SPLIT DEVICE THREADS

Prints one JSON document. An own process, so that the peak of memory is this detector's alone; batch 1 on real images that are
decoded beforehand, resizing and taking boxes back to the original included, since a user waits for these as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from collect.errors import BoxwrightError

WARM_UP = 3
LEAST_TIMINGS, MOST_S, MOST_IMAGES = 30, 20.0, 32


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one image (median and quartiles of `timings`), and the peak memory of the process or the GPU in MB."""

    median_ms: float
    low_ms: float
    high_ms: float
    timings: int
    memory_mb: float


def of_run(run_path: Path, split: str, device: str = "auto", threads: int = 0) -> Latency:
    """Measure in a new process, which computes on a CPU with so many threads; 0 = one for each core that is free.

    Raises:
        BoxwrightError: the process failed; says with what.
    """
    command = [sys.executable, "-m", "train.judging.latency", str(run_path), split, device, str(threads)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise BoxwrightError(f"could not measure {run_path.name}: {last}")
    return Latency(**json.loads(ended.stdout.splitlines()[-1]))


def measure(run_path: Path, split: str, device: str, threads: int = 0) -> Latency:
    """Measure in this process: whoever wants the memory of the detector alone calls :func:`of_run`."""
    from train.serving.machine import peak_mb
    from train.serving.predictor import Predictor

    images = _images(run_path, split)
    predictor = Predictor.from_run(run_path, device, num_threads=threads)
    timings_ms: list[float] = []
    begun = time.perf_counter()
    while len(timings_ms) < WARM_UP + LEAST_TIMINGS and (time.perf_counter() - begun < MOST_S or len(timings_ms) <= WARM_UP):
        image = images[len(timings_ms) % len(images)]
        started = time.perf_counter()
        list(predictor([image]))
        timings_ms.append(1000 * (time.perf_counter() - started))
    kept = timings_ms[WARM_UP:]
    low, high = np.quantile(kept, [0.25, 0.75])
    return Latency(median(kept), float(low), float(high), len(kept), peak_mb(predictor.device))


def _images(run_path: Path, split: str) -> list[Any]:
    from train.data.cache import UnreadableError, decode
    from train.judging.run_files import open_run

    run = open_run(run_path)
    images = []
    for entry in run.ground_truth(split)["images"]:
        try:
            images.append(decode(run.images / entry["file_name"]))
        except UnreadableError:
            continue
        if len(images) == MOST_IMAGES:
            break
    if not images:
        raise BoxwrightError(f"no image of {split} can be read, so nothing can be timed")
    return images


if __name__ == "__main__":
    sys.stdout.write(json.dumps(vars(measure(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))) + "\n")

"""How many cores are free, and that a run computes with what it decided on."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from annotate.coco import Category
from collect.errors import UsageError
from train.detectors.detector import open_detector
from train.fitting import recipe
from train.fitting.config import TrainConfig
from train.fitting.device import free_cores, threads
from train.fitting.ranks import Ranks

CORES = len(os.sched_getaffinity(0))
CONFIG = TrainConfig("shapes", "v001", (Category(1, "a"),))


def test_free_cores__not_those_that_others_keep_busy() -> None:
    assert 1 <= free_cores(0.1) <= CORES
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(CORES)]
    try:
        assert free_cores(1.0) <= max(1, CORES // 2)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_threads__hold_for_the_training_only() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with threads(0):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


def test_complete__decides_on_threads_once() -> None:
    detector = open_detector("fcos_mobilenet_v2", CONFIG.categories, 96, "none")
    ranks = Ranks(torch.device("cpu"))
    with threads(1):
        assert recipe.complete(CONFIG, detector, ranks).threads == 1
    with threads(CORES):
        assert 1 <= recipe.complete(CONFIG, detector, ranks).threads <= CORES
    assert recipe.complete(replace(CONFIG, threads=3), detector, ranks).threads == 3
    with pytest.raises(UsageError, match="--threads -1"):
        replace(CONFIG, threads=-1)

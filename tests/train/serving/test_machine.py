"""`doctor --gpu` and the benchmark for cards: what of them runs without a card runs here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from collect.console import Console
from collect.errors import MissingServiceError
from collect.workspace import Workspace
from train.serving import machine

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("BOXWRIGHT_TEST_DATA", ROOT.parent / "shared" / "data"))


def test_measured__says_batch_precision_and_speed(workspace: Workspace, one_thread: None) -> None:
    told = machine.measured(Console(workspace, quiet=True), ("yolox_nano",), torch.device("cpu"), 0.1, 64)["yolox_nano"]
    assert told["image_size"] == 64
    assert told["precision"] in {"fp32", "bf16"}
    assert told["fp32"]["batch"] == 8 and told["fp32"]["images_per_s"] > 0
    assert told[told["precision"]]["images_per_s"] >= told["fp32"]["images_per_s"]


def test_peak_mb__counts_what_was_given_back() -> None:
    before = machine.peak_mb(torch.device("cpu"))
    block = torch.ones(60, 2**20)
    del block
    assert machine.peak_mb(torch.device("cpu")) >= before > 50


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_describe_gpu__without_a_card(workspace: Workspace) -> None:
    with pytest.raises(MissingServiceError, match="no CUDA card"):
        machine.describe_gpu(Console(workspace))


@pytest.mark.gpu
def test_describe_gpu(workspace: Workspace) -> None:
    told = machine.describe_gpu(Console(workspace), 0.5)
    assert told["memory_gb"] > 1 and set(told["detectors"]) == set(machine.TRIED)
    assert all(entry[entry["precision"]]["images_per_s"] > 0 for entry in told["detectors"].values())


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "raccoon").is_dir(), reason=f"the raccoon photographs are not at {DATA}")
def test_bench_gpu__all_sides_run() -> None:
    """On the CPU, a few steps each: every figure that a card would fill in is there."""
    words = [sys.executable, str(ROOT / "tests" / "benchmarks" / "bench_gpu.py"), "--tiny", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr[-2000:]
    told = json.loads(ended.stdout)
    assert {"times_faster", "delta_AP_points", "fp32", "bf16"} <= set(told["precision"]), told["precision"]
    assert set(told["precision"]["fp32"]) == {"images_per_s", "wait_share", "AP", "peak_mb"}
    for group in ("faster_rcnn", "transformer"):
        for side, found in told[group].items():
            missing_peer = side == "trainer" and "accelerate" in found.get("failed", "")
            assert missing_peer or (found["images_per_s"] > 0 and found["peak_mb"] > 0), (group, side, found)

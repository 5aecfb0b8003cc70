"""The device that training and detection run on, the precision it is good at, and how many cores are free."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from collect.errors import MissingServiceError, UsageError


def find_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" = the first GPU, else the CPU.

    Raises:
        UsageError: no device is called that.
        MissingServiceError: this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device '{name}'; valid: auto, cpu, cuda, cuda:1, mps") from error
    if device.type not in {"cpu", "cuda", "mps"}:
        raise UsageError(f"'{name}' is no device that this trains on; valid: auto, cpu, cuda, cuda:1, mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MissingServiceError(f"there is no device '{name}' here ({torch.cuda.device_count()} GPUs); use --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise MissingServiceError("there is no Apple GPU here; use --device cpu")
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 in hardware, so that it saves time (a CPU: AVX512-BF16 or AMX)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    features = getattr(torch.cpu, "_is_avx512_bf16_supported", None), getattr(torch.cpu, "_is_amx_tile_supported", None)
    return any(bool(feature()) for feature in features if feature is not None)


def check_compiler() -> None:
    """What torch.compile generates is C++ on a CPU, and Triton starts its kernels through C on a GPU.

    Raises:
        MissingServiceError: there is no compiler; says which package brings one.
    """
    wanted = os.environ.get("CXX", "g++")
    if shutil.which(wanted) is None:
        raise MissingServiceError(
            f"--compile needs a C++ compiler, and there is no {wanted} here: install one (Debian: apt install g++), or train without"
        )


def free_cores(watch_s: float = 0.5) -> int:
    """How many of the cores that this process may use nobody else keeps busy, at least 1; watches them for `watch_s` seconds.

    Where the system does not tell (no `/proc/stat`), all of them.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    before, begun = _idle_s(), time.monotonic()
    time.sleep(watch_s)
    after, seconds = _idle_s(), time.monotonic() - begun
    told = [core for core in allowed if core in before and core in after]
    if not told:
        return len(allowed)
    return max(1, round(sum(min((after[core] - before[core]) / seconds, 1.0) for core in told)))


def _idle_s() -> dict[int, float]:
    """Seconds that each core has idled since the machine began, waiting for disks included (`man proc_stat`)."""
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    rows = [line.split() for line in lines if line.startswith("cpu") and not line.startswith("cpu ")]
    return {int(row[0][3:]): (int(row[4]) + int(row[5])) / ticks_per_s for row in rows}


def free_threads(device: torch.device, processes: int = 1) -> int:
    """How many threads each of some processes should have: on a CPU one for each core that is free now, for a GPU 0, torch's choice.

    A thread that waits for another one whose core somebody else has burns its own: beside each other on two cores, two
    trainings of two threads did 2.2 images per CPU-second each, with one thread each 6; two detections took 8.4 CPU-seconds
    each and as long, with one thread 5.6 (LOG.md, 2026-11-26 and 27).
    """
    if device.type != "cpu":
        return 0
    most = torch.get_num_threads()
    return 1 if most == 1 else max(1, min(most, free_cores() // processes))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads; 0 = as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""The device that training and detection run on, and the precision it is good at."""

from __future__ import annotations

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

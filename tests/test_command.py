"""The command: quick to answer, one exit code per kind of error, nothing heavy imported for help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import boxwright

ROOT = Path(__file__).parent.parent


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "boxwright", *words], capture_output=True, text=True, cwd=ROOT, check=False)


def test_help__imports_nothing_heavy() -> None:
    script = (
        "import sys, boxwright; boxwright.main(['--help']);"
        "heavy = {'torch', 'fiftyone', 'selenium', 'numpy', 'cv2', 'PIL', 'aiohttp', 'rich'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in boxwright.VERBS)


@pytest.mark.parametrize("verb", boxwright.VERBS)
def test_every_verb__resolves_and_explains_itself(verb: str) -> None:
    implementation = boxwright.resolve(verb)
    text = boxwright.parser_for(verb, implementation).format_help()
    assert "--json" in text
    assert "--dry-run" in text


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["audit", "pets", "--folds", "1"], 2, "at least 2"),
        (["audit", "pets", "--folds", "0"], 2, "at least 2"),
        (["propose", "pets", "--limit", "-1"], 2, "at least 1"),
        (["detect", "RUN", "photos", "--out", "photos"], 2, "would replace yours"),
        (["detect", "RUN", "photos/a.png", "--out", "photos"], 2, "would replace yours"),
        (["colect"], 2, "did you mean 'collect'"),
        (["init"], 2, "required"),
        (["status", "nosuch"], 3, "boxwright init nosuch"),
        (["init", "../up", "--class", "a"], 2, "cannot name a dataset"),
    ],
)
def test_bad_words__get_a_sentence_and_a_code(tmp_path: Path, words: list[str], code: int, says: str) -> None:
    done = command(*words, *(["--root", str(tmp_path)] if len(words) > 1 else []))
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_init__json_is_one_document(tmp_path: Path) -> None:
    done = command("init", "pets", "--class", "cat", "--json", "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)["path"]).is_file()


def test_init__dry_run_writes_nothing(tmp_path: Path) -> None:
    done = command("init", "pets", "--class", "cat", "--dry-run", "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert not any(tmp_path.iterdir())


def test_train__numbers_on_its_own_train_images_are_called_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from collect.console import Console
    from collect.workspace import Workspace
    from train.commands.train import _tell

    result = {"path": "runs/pets/v001-x-1", "run": "v001-x-1", "metrics": {"train": {"AP": 0.9, "APsmall": -1.0}}}
    _tell("pets", result, Console(Workspace(tmp_path)))
    told = capsys.readouterr().out
    assert "no measure of others" in told
    assert "-1.0" not in told, "there was no small box"
    assert "boxwright evaluate pets/v001-x-1" in told, "a name that other datasets' runs do not share"

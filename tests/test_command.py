"""The command: quick to answer, one exit code per kind of error, nothing heavy imported for help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

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


#: What a command says of a wrong name, or of what is not there yet, comes before what takes seconds to load.
REFUSED_AT_ONCE = [
    ("detect nosuch photo.jpg", 3, "unknown run"),
    ("detect pets/champion photo.jpg", 3, "no champion yet"),
    ("detect nosuch photo.jpg --threshold 7", 2, "no score"),
    ("propose nosuch --from run:x", 3, "unknown dataset"),
    ("propose pets --from nosuch", 2, "unknown proposer"),
    ("propose pets --from run:nosuch", 3, "unknown run"),
    ("propose empty --from run:nosuch", 3, "unknown run"),
    ("propose empty --from opencv-face", 2, "no images yet"),
    ("train nosuch", 3, "unknown dataset"),
    ("train empty", 3, "no release yet"),
    ("train pets --release v009", 3, "no release 'v009'"),
    ("train pets --detector nosuch", 2, "unknown detector"),
    ("train pets --epochs 0", 2, "at least 1"),
    ("train pets --resume nosuch", 3, "unknown run"),
    ("train pets --dry-run", 0, ""),
    ("compare nosuch --detectors yolox_nano", 3, "unknown dataset"),
    ("compare pets --detectors ,", 2, "at least one name"),
    ("compare pets --detectors yolox_nano,nosuch", 2, "unknown detector"),
    ("audit nosuch", 3, "unknown dataset"),
    ("audit pets --detector nosuch", 2, "unknown detector"),
    ("audit empty", 2, "no accepted image"),
    ("queue nosuch", 3, "unknown dataset"),
    ("queue pets --run nosuch", 3, "unknown run"),
    ("queue empty", 2, "no images yet"),
    ("retrain nosuch", 3, "unknown dataset"),
    ("retrain pets --detector nosuch", 2, "unknown detector"),
    ("retrain empty", 2, "no images yet"),
    ("evaluate nosuch", 3, "unknown run"),
    ("evaluate", 2, "say what to evaluate"),
    ("onnx nosuch", 3, "unknown run"),
    ("onnx", 2, "name a run"),
    ("review pets --run nosuch --no-open", 3, "unknown run"),
]


def test_refusals__before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    root = tmp_path / "root"
    picture = tmp_path / "pets" / "cat" / "one.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (64, 48), (200, 120, 40)).save(picture)
    label = {"image": "cat/one.png", "xmin": 5, "ymin": 5, "xmax": 40, "ymax": 40, "label": "cat"}
    (tmp_path / "pets" / "boxes.csv").write_text(",".join(label) + "\n" + ",".join(map(str, label.values())) + "\n")
    boxwright.main(["import", "pets", str(tmp_path / "pets" / "boxes.csv"), "--format", "csv", "--license", "CC0-1.0", "--root", str(root)])
    boxwright.main(["release", "pets", "--root", str(root)])
    boxwright.main(["init", "empty", "--class", "cat", "--root", str(root)])
    script = (
        "import io, json, sys, boxwright\n"
        "from contextlib import redirect_stderr, redirect_stdout\n"
        "told = []\n"
        f"for words in {[words for words, _, _ in REFUSED_AT_ONCE]!r}:\n"
        "    said = io.StringIO()\n"
        "    with redirect_stderr(said), redirect_stdout(io.StringIO()):\n"
        f"        code = boxwright.main([*words.split(), '--root', {str(root)!r}])\n"
        "    told.append([words, code, said.getvalue(), sorted({'torch', 'transformers', 'fiftyone'} & set(sys.modules))])\n"
        "print(json.dumps(told))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    for (words, code, says), (_, got, said, heavy) in zip(REFUSED_AT_ONCE, json.loads(done.stdout), strict=True):
        assert (got, heavy) == (code, []), (words, said)
        assert says in said, words

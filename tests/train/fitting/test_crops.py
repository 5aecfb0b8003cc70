"""Final layers from crops: class folders, groups, and `boxwright train NAME --detector two-phase --crops DIR`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from annotate.boxes import Floats
from annotate.coco import Category
from boxwright import main
from collect.errors import NotFoundError, TrainingError, UsageError
from collect.workspace import Dataset, Workspace
from train.detectors.face import FaceDetector, find_folder
from train.detectors.two_phase import FEATURES, TwoPhase, two_phase
from train.fitting import crops as teaching
from train.fitting.crops import class_folders, embed_twice, fit_final_layers, is_right, read_crops, split_groups
from train.fitting.plan import plan
from train.fitting.run import train_run

CATEGORIES = (Category(3, "disc"), Category(9, "square"))
MakeRelease = Callable[..., Dataset]
SMALL = {"detector": "two-phase", "image_size": 64, "batch_size": 4, "weights": "none", "precision": "fp32", "device": "cpu"}
pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Blind(FaceDetector):
    """Finds no face, and needs no files."""

    def detect(self, image_HW3: np.ndarray, threshold: float = 0.5) -> tuple[Floats, Floats]:
        return np.zeros((0, 4)), np.zeros(0)


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Blind:
    detector = Blind(tmp_path)
    monkeypatch.setattr("train.detectors.two_phase.find_folder", lambda: tmp_path)
    monkeypatch.setattr("train.detectors.two_phase.FaceDetector", lambda _folder: detector)
    return detector


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Twelve crops of each class, red or blue."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "crops"
    for name, colour in (("disc", (40, 40, 240)), ("square", (240, 60, 40))):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)  # distinct looks, so that none is another's near-duplicate
            picture = cv2.resize(coarse, (48, 48), interpolation=cv2.INTER_CUBIC)
            cv2.circle(picture, (24, 24), 16, colour, -1)
            cv2.imwrite(str(folder / name / f"{number}.png"), picture)
    return folder


def test_class_folders__by_name_synonym_and_case(shapes: Path) -> None:
    assert class_folders(shapes, CATEGORIES) == {"disc": 0, "square": 1}
    (shapes / "square").rename(shapes / "Box")
    (shapes / "round").mkdir()
    assert class_folders(shapes, CATEGORIES, {"square": ("box",), "disc": ("round",)}) == {"Box": 1, "disc": 0, "round": 0}


def test_class_folders__what_is_wrong_is_said(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no folder of crops at .* disc, square"):
        class_folders(tmp_path / "elsewhere", CATEGORIES)
    with pytest.raises(NotFoundError, match="has no folder of crops for bar; make one"):
        class_folders(shapes, (*CATEGORIES, Category(10, "bar")))
    (shapes / "squares").mkdir()
    with pytest.raises(UsageError, match="'squares'; did you mean 'square'"):
        class_folders(shapes, CATEGORIES)


def test_read_crops__equal_bytes_once_and_no_empty_class(shapes: Path) -> None:
    labels = class_folders(shapes, CATEGORIES)
    (shapes / "disc" / "broken.jpg").write_bytes(b"no picture")
    (shapes / "square" / "again.png").write_bytes((shapes / "square" / "0.png").read_bytes())
    crops = read_crops(shapes, labels)
    assert len(crops.files) == 24
    assert crops.labels_N.tolist() == [0] * 12 + [1] * 12
    for path in (shapes / "square").iterdir():
        path.unlink()
    with pytest.raises(NotFoundError, match="square holds no picture"):
        read_crops(shapes, labels)


def test_one_group_at_least_is_held_out(shapes: Path) -> None:
    crops = read_crops(shapes, class_folders(shapes, CATEGORIES))
    train, held = split_groups(crops, 0.001, 0)
    assert held.any() and train.any() and not (train & held).any()


def test_where_no_face_is_found_both_looks_are_the_crop(blind: Blind, shapes: Path) -> None:
    torch.manual_seed(0)
    detector = TwoPhase(CATEGORIES, 64, blind)
    plain, mirrored = embed_twice(detector, read_crops(shapes, class_folders(shapes, CATEGORIES)))
    assert plain.shape == mirrored.shape == (24, FEATURES)
    assert torch.allclose(plain[:, : FEATURES // 2], plain[:, FEATURES // 2 :], atol=1e-5)


def test_train_crops__alone(make_release: MakeRelease, workspace: Workspace, blind: Blind, shapes: Path) -> None:
    """No epoch: what the crops taught is kept, judged, and told in config.json, crops.json and metrics.json."""
    make_release()
    result = train_run(workspace, "shapes", {**SMALL, "crops": str(shapes), "epochs": 0})
    path = Path(result["path"])
    told = result["metrics"]["crops"]
    assert told == json.loads((path / "crops.json").read_text())
    assert told["crops"] == 24 and 1 <= told["held_out"] < 8
    assert len(told["misjudged"]) == round((1 - told["accuracy"]) * told["held_out"])
    settled = json.loads((path / "config.json").read_text())
    assert settled["crops"] == str(shapes)
    assert f"final layers fitted on 24 crops of {shapes}" in settled["weights_origin"]
    assert result["metrics"]["epochs"] == 0 and result["metrics"]["images"] == 0
    assert (path / "report.html").is_file() and set(result["metrics"]) >= {"val", "test"}
    again = train_run(workspace, "shapes", {"resume": result["run"]})
    assert again["metrics"]["val"] == result["metrics"]["val"] and again["metrics"]["crops"] == told


def test_train_crops__then_the_release(make_release: MakeRelease, workspace: Workspace, blind: Blind, shapes: Path) -> None:
    make_release()
    result = train_run(workspace, "shapes", {**SMALL, "crops": str(shapes), "epochs": 1}, prepare=lambda _detector: "a warm start")
    assert result["metrics"]["epochs"] == 1
    assert result["metrics"]["weights"].startswith("a warm start; final layers fitted on 24 crops")


def test_teach__starts_from_the_layers_there_are(blind: Blind, shapes: Path) -> None:
    """What is measured is measured on new layers: those there are may know the crops that are held out."""
    crops = read_crops(shapes, class_folders(shapes, CATEGORIES))
    told = []
    for seed in (1, 2):
        torch.manual_seed(7)
        detector = TwoPhase(CATEGORIES, 64, blind)
        teaching.reset_final_layers(detector, seed)
        told.append((teaching.teach(detector, crops), detector.output.weight.clone()))
    assert told[0][0] == told[1][0]
    assert not torch.equal(told[0][1], told[1][1])


def test_train_crops__refused_before_there_is_a_run(make_release: MakeRelease, workspace: Workspace, shapes: Path, tmp_path: Path) -> None:
    make_release()
    wrong = (
        (UsageError, "add --detector two-phase", {"crops": str(shapes), "detector": "fcos_mobilenet_v2"}),
        (NotFoundError, "no folder of crops at", {"crops": str(tmp_path / "nowhere")}),
        (UsageError, "at least 1, or 0 with --crops", {"epochs": 0}),
    )
    for kind, words, options in wrong:
        for act in (train_run, plan):
            with pytest.raises(kind, match=words):
                act(workspace, "shapes", {**SMALL, **options})
    assert not (workspace.runs / "shapes").exists()


def test_crops__groups_do_not_cross_and_the_final_layers_learn(real_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOXWRIGHT_FACE_DETECTOR", str(real_data / "face-detector"))
    categories = (Category(1, "mask"), Category(2, "nomask"))
    some_crops(real_data, tmp_path, 40)
    crops = read_crops(tmp_path, class_folders(tmp_path, categories))
    assert len(crops.files) <= 80
    train, held = split_groups(crops, 0.25, 0)
    assert not set(crops.groups_N[train]) & set(crops.groups_N[held])
    detector = two_phase(categories, 320, "auto")
    assert isinstance(detector, TwoPhase)
    features = embed_twice(detector, crops)
    fit_final_layers(detector, features, crops.labels_N, train, epochs=15)
    assert is_right(detector, features, crops.labels_N)[train].mean() > 0.9
    with pytest.raises(TrainingError, match="no crop"):
        fit_final_layers(detector, features, crops.labels_N, crops.labels_N.numpy() == 0)


def some_crops(real_data: Path, target: Path, count: int) -> None:
    for name in ("mask", "nomask"):
        (target / name).mkdir(parents=True)
        for path in sorted((real_data / "face-crops" / name).iterdir())[:count]:
            (target / name / path.name).write_bytes(path.read_bytes())


def test_the_command_on_real_faces(
    real_data: Path, make_release: MakeRelease, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """`boxwright train … --crops` as a person types it; classes by synonym; the run then finds and names faces."""
    from train.data.cache import decode
    from train.serving.predictor import Predictor

    monkeypatch.setenv("BOXWRIGHT_FACE_DETECTOR", str(real_data / "face-detector"))
    assert find_folder()
    dataset = make_release()
    text = dataset.definition.read_text().replace('name = "disc"', 'name = "disc"\nsynonyms = ["mask"]')
    dataset.definition.write_text(text.replace('name = "square"', 'name = "square"\nsynonyms = ["nomask"]'))
    some_crops(real_data, tmp_path / "faces", 30)
    words = ["train", "shapes", "--root", str(workspace.root), "--detector", "two-phase", "--image-size", "640", "--device", "cpu"]
    assert main([*words, "--crops", str(tmp_path / "faces"), "--epochs", "0", "--json"]) == 0
    captured = capsys.readouterr()
    assert "final layers fitted on" in captured.err
    assert json.loads(captured.out)["metrics"]["crops"]["accuracy"] > 0.7
    predictor = Predictor.from_run(workspace.runs / "shapes" / "v001-two-phase-1", "cpu")
    (found,) = predictor([decode(real_data / "face-photos" / "example_05.PNG")])
    assert sum(found.scores_N > 0.5) >= 3

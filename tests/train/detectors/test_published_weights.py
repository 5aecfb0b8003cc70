"""Weights of the hubs, laid out as their publishers do and given by a path: torchvision's state dicts, transformers' folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.models import detection

from annotate.coco import Category
from collect.errors import UsageError
from collect.workspace import Dataset, Workspace
from train.detectors import transformers_family
from train.detectors.detector import freeze, open_detector
from train.fitting.run import train_run
from train.serving.predictor import load_detector

CATEGORIES = (Category(3, "disc"), Category(9, "square"))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """SSDLite as torchvision's hub has it for COCO: a bare state dict, 91 classes, no prefix in its names."""
    torch.manual_seed(0)
    model = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91)
    path = tmp_path / "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"
    torch.save(model.state_dict(), path)
    return path


def test_torchvision__a_published_file_fills_all_but_the_head(published: Path) -> None:
    released = torch.load(published, weights_only=True)
    torch.manual_seed(1)
    detector = open_detector("ssdlite320_mobilenet_v3_large", CATEGORIES, 0, str(published))
    assert published.name in detector.weights_origin
    mine = {name.removeprefix("model."): value for name, value in detector.state_dict().items()}
    heads = {name.removeprefix("model.") for name in detector.head_rows()}
    different = {name for name, value in released.items() if mine[name].shape != value.shape or not torch.equal(mine[name], value)}
    assert different == heads


def test_torchvision__weights_of_another_family_are_refused(published: Path) -> None:
    with pytest.raises(UsageError, match="of another architecture"):
        open_detector("fcos_mobilenet_v2", CATEGORIES, 64, str(published))


def small_rtdetr(categories: tuple[Category, ...], weights: str) -> transformers_family.TransformersDetector:
    family = replace(transformers_family.FAMILIES["rtdetr_v2_r18"], offline={"decoder_layers": 2, "num_queries": 20})
    return transformers_family.TransformersDetector(family, categories, 64, weights)


def test_transformers__a_saved_folder_fills_all_but_the_head(tmp_path: Path) -> None:
    """A folder as `save_pretrained` writes it and the hub serves it, with COCO's 80 classes."""
    torch.manual_seed(0)
    released = small_rtdetr(tuple(Category(number, str(number)) for number in range(1, 81)), "none")
    released.model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    torch.manual_seed(1)
    detector = open_detector("rtdetr_v2_r18", CATEGORIES, 64, str(tmp_path))
    assert detector.weights_origin == str(tmp_path)
    state, mine = released.state_dict(), detector.state_dict()
    different = {name for name, value in state.items() if mine[name].shape != value.shape or not torch.equal(mine[name], value)}
    assert different == set(detector.head_rows())
    assert detector.model.config.id2label == {0: "disc", 1: "square"}
    assert detector.model.config.decoder_layers == 2, "the architecture is that of the folder"


def test_transformers__a_run_from_a_folder_keeps_its_architecture(
    make_release: Callable[..., Dataset], workspace: Workspace, tmp_path: Path, one_thread: None
) -> None:
    """Neither the hub nor the folder need be there when the run is judged, resumed, or begun from by another one."""
    folder, settings = tmp_path / "folder", {"image_size": 64, "batch_size": 2, "precision": "fp32", "device": "cpu", "epochs": 1}
    family = replace(transformers_family.FAMILIES["dfine_n"], offline={"decoder_layers": 2, "num_queries": 20})
    transformers_family.TransformersDetector(family, CATEGORIES, 64, "none").model.save_pretrained(folder)
    make_release(train=2, val=1, test=1)
    run = train_run(workspace, "shapes", {**settings, "detector": "dfine_n", "weights": str(folder)})
    shutil.rmtree(folder)
    path = Path(run["path"])
    detector = load_detector(path)
    assert (detector.model.config.decoder_layers, detector.model.config.num_queries) == (2, 20)
    assert not detector.model.model.decoder.reg_scale.requires_grad
    assert "_name_or_path" not in detector.architecture
    again = train_run(workspace, "shapes", {"resume": run["run"], "device": "cpu"})
    assert again["metrics"]["val"] == run["metrics"]["val"]
    following = open_detector("dfine_n", CATEGORIES, 64, str(path / "checkpoints" / "best.pt"))
    assert "0 tensors new" in following.weights_origin
    assert all(torch.equal(value, following.state_dict()[name]) for name, value in detector.state_dict().items())


def test_transformers__constants_are_not_trained(tmp_path: Path) -> None:
    """Read from a folder, D-FINE's `up` and `reg_scale` lose that they are constants."""
    family = replace(transformers_family.FAMILIES["dfine_n"], offline={"decoder_layers": 2, "num_queries": 20})
    fresh = transformers_family.TransformersDetector(family, CATEGORIES, 64, "none")
    fresh.model.save_pretrained(tmp_path)
    read = transformers_family.TransformersDetector(family, CATEGORIES, 64, str(tmp_path))
    still = {name for name, value in fresh.named_parameters() if not value.requires_grad}
    assert still == {name for name, value in read.named_parameters() if not value.requires_grad}
    assert still == {"model.model.decoder.up", "model.model.decoder.reg_scale"}


SIZES = {"dfine_n": 3.77, "dfine_s": 10.31, "dfine_m": 19.56, "rtdetr_v2_r18": 20.17, "deimv2_n": 3.60, "rfdetr_n": 30.43}


@pytest.mark.parametrize("name", SIZES)
def test_transformers__offline_sizes_are_the_published_ones(name: str) -> None:
    """Millions of parameters for COCO's 80 classes; published: 3.8, 10, 19, 20, 3.6, 30.5 (without what only training needs)."""
    with torch.device("meta"):
        detector = open_detector(name, tuple(Category(number, str(number)) for number in range(1, 81)), 0, "none")
        freeze(detector, len(detector.stages()))
    assert sum(value.numel() for value in detector.parameters()) / 1e6 == pytest.approx(SIZES[name], abs=0.01)
    held = sum(not value.requires_grad for value in detector.parameters())
    assert held >= len(detector.backbone_parameters()) > 50 or name == "rtdetr_v2_r18"


def test_transformers__an_image_too_small_for_the_queries() -> None:
    with pytest.raises(UsageError, match="196 places for this detector's 300 queries; use --image-size 288 or more"):
        open_detector("rfdetr_n", CATEGORIES, 224, "none")


def test_transformers__a_folder_of_another_family_is_refused(tmp_path: Path) -> None:
    small_rtdetr(CATEGORIES, "none").model.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="of another architecture: rt_detr_v2, not DFine"):
        open_detector("dfine_n", CATEGORIES, 64, str(tmp_path))

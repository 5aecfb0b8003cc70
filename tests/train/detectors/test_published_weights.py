"""Weights of the hubs, laid out as their publishers do and given by a path: torchvision's state dicts, transformers' folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models import detection

from annotate.coco import Category
from collect.errors import UsageError
from train.detectors import transformers_family
from train.detectors.detector import open_detector

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
    from dataclasses import replace

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


def test_transformers__a_folder_of_another_family_is_refused(tmp_path: Path) -> None:
    small_rtdetr(CATEGORIES, "none").model.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="of another architecture: rt_detr_v2, not DFine"):
        open_detector("dfine_n", CATEGORIES, 64, str(tmp_path))

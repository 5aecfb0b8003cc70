"""What the detectors on MobileNetV2 have in common: its features, a slim pyramid on them, and towers that all levels share.

A feature pyramid (Lin et al., CVPR 2017) with depthwise separable convolutions; the towers' convolutions are shared by all
levels, with batch norm of each level's own (Lyu et al., "RTMDet", 2022). Few new layers, each of which learns from every
box: that is what a short training needs (LOG.md, 2026-11-26).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import mobilenet_v2

CHANNELS = 96
#: stride -> (place in `mobilenet_v2().features` after which it is read, channels there)
_TAPS = {4: (3, 24), 8: (6, 32), 16: (13, 96), 32: (18, 1280)}


def untrained() -> nn.Sequential:
    """The features of torchvision's MobileNetV2."""
    features: nn.Sequential = mobilenet_v2().features
    return features


def stages(features: nn.Sequential) -> list[list[nn.Module]]:
    """Its five scales, from the input inwards."""
    layers = list(features)
    return [layers[:2], layers[2:4], layers[4:7], layers[7:14], layers[14:]]


class Normalise(nn.Module):
    """RGB in 0..255, any dtype → ImageNet's mean and deviation taken out, channels last."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def read_at(features: nn.Sequential, x: Tensor, strides: Sequence[int]) -> list[Tensor]:
    """What the features say at each of `strides`, finest first."""
    taps, taken = {_TAPS[stride][0] for stride in strides}, []
    for place, layer in enumerate(features):
        x = layer(x)
        if place in taps:
            taken.append(x)
    return taken


def _separable(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
    )


class Pyramid(nn.Module):
    """Lateral 1×1, top-down by nearest neighbours, one separable 3×3 on each level."""

    def __init__(self, strides: Sequence[int], channels: int = CHANNELS) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(_TAPS[stride][1], channels, 1, bias=False), nn.BatchNorm2d(channels)) for stride in strides
        )
        self.smooth = nn.ModuleList(nn.Sequential(_separable(channels), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)) for _ in strides)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        laterals = [layer(feature) for layer, feature in zip(self.lateral, features, strict=True)]
        for place in range(len(laterals) - 2, -1, -1):
            laterals[place] = laterals[place] + functional.interpolate(laterals[place + 1], size=laterals[place].shape[-2:], mode="nearest")
        return [layer(lateral) for layer, lateral in zip(self.smooth, laterals, strict=True)]


class Tower(nn.Module):
    """Convolutions that all levels share, with batch norm of each level's own."""

    def __init__(self, levels: int, channels: int = CHANNELS, depth: int = 2) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(_separable(channels) for _ in range(depth))
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(depth)) for _ in range(levels))

    def forward(self, feature: Tensor, level: int) -> Tensor:
        norms = self.norms[level]
        assert isinstance(norms, nn.ModuleList)
        for convolution, norm in zip(self.convolutions, norms, strict=True):
            feature = functional.relu(norm(convolution(feature)), inplace=True)
        return feature

"""YOLOX's networks: CSPDarknet, a pyramid that goes down and up again, and a decoupled head; a slim one on MobileNetV2.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021". Parts of :func:`released` carry the names of Megvii's Apache-2.0 release,
so that its checkpoints load by name; the code is our own. Channels are `width` × (256, 512, 1024) at strides 8, 16 and 32.
:func:`slim` has no such checkpoint to begin with, so that the release's two dozen new layers are only slow to learn there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.detectors import mobilenet

STRIDES = (8, 16, 32)
_CHANNELS = (256, 512, 1024)
#: Where a training begins: this many places of each level answer in an image of 640 px, as in YOLOv5, with a box of so many
#: strides. The release begins with a hundredth of all places, 84, and boxes of one stride: 300 epochs unlearn that, a short
#: training does not.
_ANSWERS, _ANSWERS_PX, _SIDE = 8, 640, 4.0


class Size(NamedTuple):
    """How deep and how wide a YOLOX is, and whether its 3×3 convolutions are depthwise separable."""

    depth: float
    width: float
    separable: bool = False

    @property
    def channels(self) -> tuple[int, int, int]:
        """At strides 8, 16 and 32."""
        small, middle, large = (int(count * self.width) for count in _CHANNELS)
        return small, middle, large


class Answer(NamedTuple):
    """The head's answer, levels joined to P places: boxes (B, P, 4) undecoded, objectness (B, P) and classes (B, P, C) as logits."""

    boxes: Tensor
    objectness: Tensor
    classes: Tensor


class Conv(nn.Module):
    """Convolution, batch norm, SiLU. The release's momentum of .03 is for 300 epochs; after a short training its statistics lag."""

    def __init__(self, given: int, made: int, side: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, made, side, stride, side // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(made, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.bn(self.conv(x)), inplace=True)


class _Separable(nn.Module):
    def __init__(self, given: int, made: int, side: int, stride: int = 1) -> None:
        super().__init__()
        self.dconv = Conv(given, given, side, stride, groups=given)
        self.pconv = Conv(given, made, 1)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.pconv(self.dconv(x)))


def _spatial(size: Size, given: int, made: int, stride: int = 1) -> nn.Module:
    return _Separable(given, made, 3, stride) if size.separable else Conv(given, made, 3, stride)


class _Bottleneck(nn.Module):
    def __init__(self, size: Size, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels, 1)
        self.conv2 = _spatial(size, channels, channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv2(self.conv1(x))
        return x + found if self.shortcut else found


class _CrossStage(nn.Module):
    """Half of the channels go through `count` bottlenecks, half go by (Wang et al., CSPNet, 2020)."""

    def __init__(self, size: Size, given: int, made: int, count: int, shortcut: bool = True) -> None:
        super().__init__()
        hidden = made // 2
        self.conv1, self.conv2, self.conv3 = Conv(given, hidden, 1), Conv(given, hidden, 1), Conv(2 * hidden, made, 1)
        self.m = nn.Sequential(*(_Bottleneck(size, hidden, shortcut) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], 1)))


class _PyramidPooling(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = Conv(channels, channels // 2, 1), Conv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        pooled = [functional.max_pool2d(x, side, 1, side // 2) for side in (5, 9, 13)]
        return cast("Tensor", self.conv2(torch.cat([x, *pooled], 1)))


class _Focus(nn.Module):
    """Every second pixel of every second row, four times: 12 channels at half the size."""

    def __init__(self, made: int) -> None:
        super().__init__()
        self.conv = Conv(12, made, 3)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        return cast("Tensor", self.conv(torch.cat(parts, 1)))


class CspDarknet(nn.Module):
    """RGB in 0..255 → features at strides 8, 16 and 32. The release's weights want BGR as it is, so that is what it computes on."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        first, count = int(64 * size.width), max(round(3 * size.depth), 1)
        self.stem = _Focus(first)
        self.dark2 = nn.Sequential(_spatial(size, first, 2 * first, 2), _CrossStage(size, 2 * first, 2 * first, count))
        self.dark3 = nn.Sequential(_spatial(size, 2 * first, 4 * first, 2), _CrossStage(size, 4 * first, 4 * first, 3 * count))
        self.dark4 = nn.Sequential(_spatial(size, 4 * first, 8 * first, 2), _CrossStage(size, 8 * first, 8 * first, 3 * count))
        self.dark5 = nn.Sequential(
            _spatial(size, 8 * first, 16 * first, 2),
            _PyramidPooling(16 * first),
            _CrossStage(size, 16 * first, 16 * first, count, shortcut=False),
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        x = images.float()
        x = torch.cat([x[:, 2:], x[:, 1:2], x[:, :1]], 1).contiguous(memory_format=torch.channels_last)
        third = self.dark3(self.dark2(self.stem(x)))
        fourth = self.dark4(third)
        return [third, fourth, self.dark5(fourth)]

    def stages(self) -> list[list[nn.Module]]:
        """From the input inwards."""
        return [[self.stem], [self.dark2], [self.dark3], [self.dark4], [self.dark5]]


class Pyramid(nn.Module):
    """Top-down, then bottom-up (Liu et al., PANet, 2018), with cross-stage blocks between."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        small, middle, large = size.channels
        count = round(3 * size.depth)
        self.backbone = CspDarknet(size)
        self.lateral_conv0 = Conv(large, middle, 1)
        self.C3_p4 = _CrossStage(size, 2 * middle, middle, count, shortcut=False)
        self.reduce_conv1 = Conv(middle, small, 1)
        self.C3_p3 = _CrossStage(size, 2 * small, small, count, shortcut=False)
        self.bu_conv2 = _spatial(size, small, small, 2)
        self.C3_n3 = _CrossStage(size, 2 * small, middle, count, shortcut=False)
        self.bu_conv1 = _spatial(size, middle, middle, 2)
        self.C3_n4 = _CrossStage(size, 2 * middle, large, count, shortcut=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine, middle, coarse = self.backbone(images)
        down0 = self.lateral_conv0(coarse)
        down1 = self.reduce_conv1(self.C3_p4(torch.cat([_doubled(down0), middle], 1)))
        out8 = self.C3_p3(torch.cat([_doubled(down1), fine], 1))
        out16 = self.C3_n3(torch.cat([self.bu_conv2(out8), down1], 1))
        return [out8, out16, self.C3_n4(torch.cat([self.bu_conv1(out16), down0], 1))]

    def stages(self) -> list[list[nn.Module]]:
        """Those of the backbone."""
        return self.backbone.stages()


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class SlimPyramid(nn.Module):
    """RGB in 0..255 → MobileNetV2's features at strides 8, 16 and 32, joined top-down."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = mobilenet.Normalise()
        self.features = mobilenet.untrained()
        self.pyramid = mobilenet.Pyramid(STRIDES)

    def forward(self, images: Tensor) -> list[Tensor]:
        return cast("list[Tensor]", self.pyramid(mobilenet.read_at(self.features, self.normalise(images), STRIDES)))

    def stages(self) -> list[list[nn.Module]]:
        """From the input inwards."""
        return mobilenet.stages(self.features)


def _first_objectness() -> list[float]:
    """For each level the logit of an answer's chance: objects are rare."""
    chances = [_ANSWERS * (stride / _ANSWERS_PX) ** 2 for stride in STRIDES]
    return [math.log(chance / (1 - chance)) for chance in chances]


@torch.no_grad()
def _begin(classes: nn.Conv2d, boxes: nn.Conv2d, num_classes: int) -> None:
    """Biases: among objects all classes are equally likely, and a box fits its level."""
    nn.init.constant_(cast("Tensor", classes.bias), -math.log(max(num_classes - 1, 1)))
    cast("Tensor", boxes.bias)[2:] = math.log(_SIDE)


class Head(nn.Module):
    """Per level one branch for classes and one for boxes and objectness."""

    #: The layers whose outputs are the classes.
    class_layers = tuple(f"cls_preds.{level}" for level in range(len(STRIDES)))

    def __init__(self, size: Size, num_classes: int) -> None:
        super().__init__()
        inner = size.channels[0]

        def branch() -> nn.Sequential:
            return nn.Sequential(_spatial(size, inner, inner), _spatial(size, inner, inner))

        self.stems = nn.ModuleList(Conv(given, inner, 1) for given in size.channels)
        self.cls_convs = nn.ModuleList(branch() for _ in STRIDES)
        self.reg_convs = nn.ModuleList(branch() for _ in STRIDES)
        self.cls_preds = nn.ModuleList(nn.Conv2d(inner, num_classes, 1) for _ in STRIDES)
        self.reg_preds = nn.ModuleList(nn.Conv2d(inner, 4, 1) for _ in STRIDES)
        self.obj_preds = nn.ModuleList(nn.Conv2d(inner, 1, 1) for _ in STRIDES)
        for first, objectness, classes, boxes in zip(_first_objectness(), self.obj_preds, self.cls_preds, self.reg_preds, strict=True):
            nn.init.constant_(cast("Tensor", objectness.bias), first)
            _begin(cast("nn.Conv2d", classes), cast("nn.Conv2d", boxes), num_classes)

    def forward(self, features: Sequence[Tensor]) -> Answer:
        boxes, objectness, classes = [], [], []
        for level, feature in enumerate(features):
            x = self.stems[level](feature)
            box_branch = self.reg_convs[level](x)
            boxes.append(_flat(self.reg_preds[level](box_branch)))
            objectness.append(_flat(self.obj_preds[level](box_branch)))
            classes.append(_flat(self.cls_preds[level](self.cls_convs[level](x))))
        return Answer(torch.cat(boxes, 1), torch.cat(objectness, 1).squeeze(-1), torch.cat(classes, 1))


class SharedHead(nn.Module):
    """The same two branches, of which all levels have the convolutions in common, so that every box teaches each of them."""

    class_layers = ("cls_pred",)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.cls_tower, self.reg_tower = (mobilenet.Tower(len(STRIDES)) for _ in range(2))
        self.cls_pred, self.reg_pred, self.obj_pred = (nn.Conv2d(mobilenet.CHANNELS, count, 3, padding=1) for count in (num_classes, 4, 1))
        self.obj_bias = nn.Parameter(torch.tensor(_first_objectness()))
        for layer in (self.cls_pred, self.reg_pred, self.obj_pred):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(cast("Tensor", layer.bias))
        _begin(self.cls_pred, self.reg_pred, num_classes)

    def forward(self, features: Sequence[Tensor]) -> Answer:
        boxes, objectness, classes = [], [], []
        for level, feature in enumerate(features):
            box_branch = self.reg_tower(feature, level)
            boxes.append(_flat(self.reg_pred(box_branch)))
            objectness.append(_flat(self.obj_pred(box_branch)) + self.obj_bias[level])
            classes.append(_flat(self.cls_pred(self.cls_tower(feature, level))))
        return Answer(torch.cat(boxes, 1), torch.cat(objectness, 1).squeeze(-1), torch.cat(classes, 1))


def _flat(x_BCHW: Tensor) -> Tensor:
    """(B, H · W, C) in float32."""
    return x_BCHW.float().flatten(2).transpose(1, 2)


def released(size: Size, num_classes: int) -> tuple[Pyramid, Head]:
    """Body and head as in Megvii's release."""
    return Pyramid(size), Head(size, num_classes)


def slim(num_classes: int) -> tuple[SlimPyramid, SharedHead]:
    """Body and head on MobileNetV2."""
    return SlimPyramid(), SharedHead(num_classes)

"""FCOS on MobileNetV2: one shot, no anchors, small enough to fine-tune on a CPU.

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection" (ICCV 2019) with its later improvements: centre
sampling, GIoU (Rezatofighi et al., CVPR 2019) and focal loss (Lin et al., ICCV 2017). A feature pyramid on MobileNetV2's
features; the head's convolutions are depthwise separable and shared by all levels, with batch norm of each level's own
(Lyu et al., "RTMDet", 2022).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from annotate.coco import Category
from train.detectors import dense, mobilenet
from train.detectors.detector import Batch, Detector, HeadRows, RawDetections, Recipe, mean_over_ranks
from train.fitting import weights as pretrained

_CENTRE_RADIUS = 1.5


class Levels(NamedTuple):
    """The head's answer, all levels joined: P places. Logits (B, P, C), distances (B, P, 4) in pixels, centre logits (B, P)."""

    logits: Tensor
    distances: Tensor
    centres: Tensor


class Fcos(Detector):
    """FCOS on `mobilenet_v2().features`; `strides` says which levels the pyramid has."""

    nms_iou = 0.6
    recipe = Recipe(image_size=416, learning_rate=3e-3, weight_decay=0.05, batch_size=8, backbone_rate=0.5, freeze=2)

    def __init__(self, categories: Sequence[Category], image_size: int, strides: Sequence[int] = (8, 16, 32)) -> None:
        super().__init__(categories, image_size)
        self.strides = tuple(strides)
        self.normalise = mobilenet.Normalise()
        self.features = mobilenet.untrained()
        self.pyramid = mobilenet.Pyramid(self.strides)
        self.class_tower, self.box_tower = (mobilenet.Tower(len(self.strides)) for _ in range(2))
        self.class_out = nn.Conv2d(mobilenet.CHANNELS, len(self.categories), 3, padding=1)
        self.box_out = nn.Conv2d(mobilenet.CHANNELS, 5, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(self.strides)))
        for layer in (self.class_out, self.box_out):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.class_out.bias, -math.log(99))  # type: ignore[arg-type]

    def _levels(self, images: Tensor) -> Levels:
        features = mobilenet.read_at(self.features, self.normalise(images), self.strides)
        logits, distances, centres = [], [], []
        for level, feature in enumerate(self.pyramid(features)):
            classes = self.class_out(self.class_tower(feature, level))
            boxes = self.box_out(self.box_tower(feature, level)).float()
            logits.append(classes.float().flatten(2).transpose(1, 2))
            flat = boxes.flatten(2).transpose(1, 2)
            distances.append(functional.softplus(flat[..., :4] * self.scales[level]) * self.strides[level])
            centres.append(flat[..., 4])
        return Levels(torch.cat(logits, 1), torch.cat(distances, 1), torch.cat(centres, 1))

    def _assign(self, points_P2: Tensor, strides_P: Tensor, boxes_N4: Tensor) -> Tensor:
        """For each place the row of its box, -1 = background: the smallest box whose centre is near and whose size fits."""
        if len(boxes_N4) == 0:
            return torch.full((len(points_P2),), -1, dtype=torch.int64, device=points_P2.device)
        x, y = points_P2[:, :1], points_P2[:, 1:]
        sides = torch.stack([x - boxes_N4[:, 0], y - boxes_N4[:, 1], boxes_N4[:, 2] - x, boxes_N4[:, 3] - y], 2)
        centre = (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2
        reach = strides_P[:, None] * _CENTRE_RADIUS
        near = ((x - centre[:, 0]).abs() < reach) & ((y - centre[:, 1]).abs() < reach)
        inside = sides.amin(2) > 0
        size = (boxes_N4[:, 2:] - boxes_N4[:, :2]).amax(1)
        low = torch.where(strides_P == self.strides[0], torch.zeros_like(strides_P), strides_P * 8)
        high = torch.where(strides_P == self.strides[-1], torch.full_like(strides_P, 1e9), strides_P * 16)
        fits = (size >= low[:, None]) & (size < high[:, None])
        candidate = near & fits & inside
        area = (boxes_N4[:, 2:] - boxes_N4[:, :2]).prod(1)
        least, row = torch.where(candidate, area[None].expand_as(candidate), torch.full_like(area, torch.inf)[None]).min(1)
        assigned: Tensor = torch.where(least < torch.inf, row, -1)
        return assigned

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Focal loss on classes, GIoU on boxes weighted by centre-ness, cross entropy on centre-ness."""
        levels = self._levels(batch.images_B3HW)
        points, strides = dense.places(*map(int, batch.images_B3HW.shape[-2:]), self.strides, levels.logits.device)
        rows = [self._assign(points, strides, boxes) for boxes in batch.boxes_xyxy]
        wanted = torch.zeros_like(levels.logits)
        targets = []
        for place, (row, boxes, labels) in enumerate(zip(rows, batch.boxes_xyxy, batch.labels, strict=True)):
            hit = row >= 0
            wanted[place, hit, labels[row[hit]]] = 1.0
            targets.append(boxes[row[hit]])
        hit_BP = torch.stack(rows) >= 0
        target_N4 = torch.cat(targets)
        points_N2 = points.expand(len(batch), -1, -1)[hit_BP]
        sides = torch.cat([points_N2 - target_N4[:, :2], target_N4[:, 2:] - points_N2], 1).clamp(min=1e-3)
        ratio = sides.view(-1, 2, 2)
        centreness = (ratio.amin(1) / ratio.amax(1)).prod(1).sqrt()
        count = mean_over_ranks(torch.stack([hit_BP.sum().float(), centreness.sum()])).clamp(min=1.0)
        found_N4 = _boxes(points_N2, levels.distances[hit_BP])
        giou = generalized_box_iou_loss(found_N4, target_N4, reduction="none")
        return {
            "class": sigmoid_focal_loss(levels.logits, wanted, alpha=0.25, gamma=2.0, reduction="sum") / count[0],
            "box": (giou * centreness).sum() / count[1],
            "centre": functional.binary_cross_entropy_with_logits(levels.centres[hit_BP], centreness, reduction="sum") / count[0],
        }

    @torch.no_grad()
    def predict(self, images_B3HW: Tensor) -> list[RawDetections]:
        """Score = √(class · centre-ness); the best 1,000 places a level, then NMS within each class, then the best 100."""
        height, width = images_B3HW.shape[-2:]
        counts = [(height // stride) * (width // stride) for stride in self.strides]
        found = zip(*self.places(images_B3HW), strict=True)
        levels = (zip(scores.split(counts), boxes.split(counts), strict=True) for boxes, scores in found)
        return [dense.suppressed([dense.best_places(*level) for level in each], self.nms_iou) for each in levels]

    def places(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes xyxy (B, P, 4) inside the input and scores (B, P, C) of all places."""
        levels = self._levels(images_B3HW)
        height, width = map(int, images_B3HW.shape[-2:])
        points, _ = dense.places(height, width, self.strides, levels.logits.device)
        return dense.inside(_boxes(points, levels.distances), height, width), _scores(levels)

    def head_rows(self) -> Mapping[str, HeadRows]:
        rows = HeadRows(np.arange(len(self.categories), dtype=np.int64)[:, None])
        return {"class_out.weight": rows, "class_out.bias": rows}

    def stages(self) -> list[list[nn.Module]]:
        return mobilenet.stages(self.features)


def _scores(levels: Levels) -> Tensor:
    return (levels.logits.sigmoid() * levels.centres.sigmoid()[..., None]).sqrt()


def _boxes(points_N2: Tensor, distances_N4: Tensor) -> Tensor:
    return torch.cat([points_N2 - distances_N4[..., :2], points_N2 + distances_N4[..., 2:]], -1)


def _build(categories: tuple[Category, ...], image_size: int, weights: str, strides: tuple[int, ...]) -> Fcos:
    detector = Fcos(categories, image_size, strides)
    if weights == "auto":
        found = pretrained.imagenet_mobilenet_v2()
        if found:
            pretrained.load_by_order(detector.features, found)
            detector.weights_origin = found.origin
    elif weights != "none":
        detector.weights_origin = pretrained.load_file(detector, weights)
    return detector


def fcos_mobilenet_v2(categories: tuple[Category, ...], image_size: int, weights: str) -> Detector:
    """Strides 8, 16 and 32: the default on a CPU."""
    return _build(categories, image_size, weights, (8, 16, 32))


def fcos_mobilenet_v2_small_objects(categories: tuple[Category, ...], image_size: int, weights: str) -> Detector:
    """Strides 4 to 32: for objects of some 8 to 30 pixels, at about a third more time."""
    return _build(categories, image_size, weights, (4, 8, 16, 32))

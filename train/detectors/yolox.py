"""YOLOX: anchor-free, decoupled, with SimOTA deciding which places answer for which box.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021": losses and assignment as there (IoU loss 1 − IoU², objectness and class
as binary cross entropy, the class's target softened by the overlap). Sizes nano, tiny and s load the checkpoints of
Megvii's Apache-2.0 release by `--weights PATH`; `yolox_mobilenet_v2` has an ImageNet backbone, so that it learns offline.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss, one_hot
from torchvision.ops import box_iou

from annotate.coco import Category
from train.detectors import dense
from train.detectors.detector import Batch, Detector, HeadRows, RawDetections, Recipe, mean_over_ranks
from train.detectors.yolox_network import STRIDES, Head, Pyramid, SharedHead, Size, SlimPyramid, released, slim
from train.fitting import weights as pretrained

logger = logging.getLogger(__name__)

_CENTRE_RADIUS = 1.5
_MOST_PLACES_A_BOX = 10
_IOU_COST, _BOX_WEIGHT = 3.0, 5.0
_FAR = 1e6
#: exp() of more than this many strides is no box of any image.
_LARGEST_LOG = 8.0


class Yolox(Detector):
    """YOLOX of any size on CSPDarknet or MobileNetV2."""

    nms_iou = 0.65

    def __init__(self, categories: tuple[Category, ...], image_size: int, family: Family) -> None:
        self.recipe = family.recipe
        super().__init__(categories, image_size)
        network = released(family.size, len(self.categories)) if family.size else slim(len(self.categories))
        self.backbone: Pyramid | SlimPyramid = network[0]
        self.head: Head | SharedHead = network[1]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`box` (1 − IoU², and L1 on what the head says), `objectness`, `class`."""
        answer = self.head(self.backbone(batch.images_B3HW))
        points, strides = dense.places(*map(int, batch.images_B3HW.shape[-2:]), STRIDES, answer.boxes.device)
        found_BP4 = _decoded(answer.boxes, points, strides)
        objectness = torch.zeros_like(answer.objectness)
        parts = [found_BP4.sum() * 0.0 + answer.classes.sum() * 0.0] * 3
        count = torch.zeros((), device=answer.boxes.device)
        for place, (boxes, labels) in enumerate(zip(batch.boxes_xyxy, batch.labels, strict=True)):
            if not len(boxes):
                continue
            with torch.no_grad():
                taken = assign(boxes, labels, found_BP4[place], answer.objectness[place], answer.classes[place], points, strides)
                hit, row, overlap = taken
                objectness[place, hit] = 1.0
                wanted = one_hot(labels[row], len(self.categories)) * overlap[:, None]
                target = _encoded(boxes[row], points[hit], strides[hit])
            iou = _row_iou(found_BP4[place, hit], boxes[row])
            parts[0] = parts[0] + (1 - iou.square()).sum()
            parts[1] = parts[1] + l1_loss(answer.boxes[place, hit], target, reduction="sum")
            parts[2] = parts[2] + binary_cross_entropy_with_logits(answer.classes[place, hit], wanted, reduction="sum")
            count = count + len(hit)
        count = mean_over_ranks(count).clamp(min=1.0)
        seen = binary_cross_entropy_with_logits(answer.objectness, objectness, reduction="sum")
        return {"box": (_BOX_WEIGHT * parts[0] + parts[1]) / count, "objectness": seen / count, "class": parts[2] / count}

    @torch.no_grad()
    def predict(self, images_B3HW: Tensor) -> list[RawDetections]:
        """Score = objectness · class; the 1,000 best pairs of place and class, then NMS within each class."""
        found = zip(*self.places(images_B3HW), strict=True)
        return [dense.suppressed([dense.best_places(scores, boxes)], self.nms_iou) for boxes, scores in found]

    def places(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes xyxy (B, P, 4) inside the input and scores (B, P, C) of all places."""
        answer = self.head(self.backbone(images_B3HW))
        height, width = map(int, images_B3HW.shape[-2:])
        boxes = _decoded(answer.boxes, *dense.places(height, width, STRIDES, answer.boxes.device))
        return dense.inside(boxes, height, width), answer.classes.sigmoid() * answer.objectness.sigmoid().unsqueeze(-1)

    def head_rows(self) -> Mapping[str, HeadRows]:
        rows = HeadRows(np.arange(len(self.categories), dtype=np.int64)[:, None])
        return {f"head.{layer}.{kind}": rows for layer in self.head.class_layers for kind in ("weight", "bias")}

    def stages(self) -> list[list[nn.Module]]:
        return self.backbone.stages()


@torch.no_grad()
def assign(
    boxes_N4: Tensor, labels_N: Tensor, found_P4: Tensor, objectness_P: Tensor, classes_PC: Tensor, points_P2: Tensor, strides_P: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """SimOTA: which places answer for which box.

    Places near a box's centre compete by what they cost now (class and overlap); each box gets about as many as its best ten
    overlaps add up to, and a place that several boxes want goes to the one it costs least.

    Returns:
        Places (M,), for each the row of its box (M,), and their present overlap (M,).
    """
    middle = (boxes_N4[:, None, :2] + boxes_N4[:, None, 2:]) / 2
    near_NP = ((points_P2 - middle).abs() < _CENTRE_RADIUS * strides_P[:, None]).all(-1)
    hit = near_NP.any(0).nonzero(as_tuple=True)[0]
    iou_NM = box_iou(boxes_N4, found_P4[hit])
    chance_MC = (classes_PC[hit].sigmoid() * objectness_P[hit].sigmoid()[:, None]).sqrt()
    cost_NM = _class_cost(chance_MC, labels_N) - _IOU_COST * (iou_NM + 1e-8).log() + _FAR * ~near_NP[:, hit]
    wanted_N = iou_NM.topk(min(_MOST_PLACES_A_BOX, len(hit)), dim=1).values.sum(1).int().clamp(min=1)
    rank_NM = cost_NM.argsort(1).argsort(1)
    takes_NM = rank_NM < wanted_N[:, None]
    cheapest_M = cost_NM.argmin(0)
    several_M = takes_NM.sum(0) > 1
    takes_NM[:, several_M] = one_hot(cheapest_M[several_M], len(boxes_N4)).T.bool()
    taken_M, row_M = takes_NM.any(0), takes_NM.int().argmax(0)
    return hit[taken_M], row_M[taken_M], iou_NM[row_M[taken_M], taken_M.nonzero(as_tuple=True)[0]]


def _class_cost(chance_MC: Tensor, labels_N: Tensor) -> Tensor:
    """Binary cross entropy of all classes if a place had each box's label, (N, M): the same for all but the labelled class."""
    chance = chance_MC.clamp(1e-6, 1 - 1e-6)
    absent = -(1 - chance).log()
    present = -chance.log()
    return absent.sum(1)[None] + (present - absent)[:, labels_N].T


def _decoded(boxes_BP4: Tensor, points_P2: Tensor, strides_P: Tensor) -> Tensor:
    """What the head says as boxes xyxy in pixels; it counts from the corner of a place's cell."""
    stride = strides_P[:, None]
    centre = (boxes_BP4[..., :2] - 0.5) * stride + points_P2
    half = boxes_BP4[..., 2:].clamp(max=_LARGEST_LOG).exp() * (stride / 2)
    return torch.cat([centre - half, centre + half], -1)


def _encoded(boxes_M4: Tensor, points_M2: Tensor, strides_M: Tensor) -> Tensor:
    """The inverse of :func:`_decoded`."""
    centre, side, stride = (boxes_M4[:, :2] + boxes_M4[:, 2:]) / 2, boxes_M4[:, 2:] - boxes_M4[:, :2], strides_M[:, None]
    return torch.cat([(centre - points_M2) / stride + 0.5, (side / stride).clamp(min=1e-6).log()], 1)


def _row_iou(one_M4: Tensor, other_M4: Tensor) -> Tensor:
    """IoU of each row with the same row of the other, with a gradient."""
    shared = (torch.minimum(one_M4[:, 2:], other_M4[:, 2:]) - torch.maximum(one_M4[:, :2], other_M4[:, :2])).clamp(min=0).prod(1)
    areas = (one_M4[:, 2:] - one_M4[:, :2]).prod(1) + (other_M4[:, 2:] - other_M4[:, :2]).prod(1)
    return shared / (areas - shared).clamp(min=1e-9)


@dataclass(frozen=True)
class Family:
    """One YOLOX: a :class:`train.detectors.detector.Build`. `size` is one of the release's; None = the slim one on MobileNetV2."""

    size: Size | None
    recipe: Recipe

    def __call__(self, categories: tuple[Category, ...], image_size: int, weights: str) -> Detector:
        detector = Yolox(categories, image_size, self)
        body = detector.backbone
        if weights == "auto" and isinstance(body, SlimPyramid):
            found = pretrained.imagenet_mobilenet_v2()
            if found:
                pretrained.load_by_order(body.features, found)
                detector.weights_origin = found.origin
        elif weights == "auto":
            logger.warning("YOLOX's COCO weights are had from its authors' release and given by --weights PATH; starting from scratch")
        elif weights != "none":
            detector.weights_origin = pretrained.load_file(detector, weights)
        return detector


_SMALL = Recipe(image_size=416, learning_rate=1e-3, batch_size=8)

yolox_nano = Family(Size(0.33, 0.25, separable=True), _SMALL)
yolox_tiny = Family(Size(0.33, 0.375), _SMALL)
yolox_s = Family(Size(0.33, 0.5), replace(_SMALL, image_size=640))
yolox_mobilenet_v2 = Family(None, replace(_SMALL, learning_rate=3e-3, backbone_rate=0.5, freeze=2))

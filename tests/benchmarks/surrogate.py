"""A detector that learns in a second, for experiments that need hundreds of trainings: the simulated reviewer's.

Frozen MobileNetV2 looks at every image once; what is kept are its maps at strides 8, 16 and 32 (the last brought to 64
channels by a random projection). A small network sees one place of the stride-8 grid at a time and says, as FCOS does, which
class has a box around it and how far its four sides are. It learns from the places in the middle of boxes and from some of the
others. So it is a real detector with boxes, scores and mAP; what it lacks is strength.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from queue_pools import Boxes
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, smooth_l1_loss
from torchvision.models import mobilenet_v2
from torchvision.ops import batched_nms

from train.data.cache import decode
from train.fitting import weights

STRIDE = 8
WIDTHS = (32, 96, 64)
NEGATIVES = 48
SCORE_LEAST, NMS_IOU, MOST = 0.05, 0.5, 60


@dataclass(frozen=True)
class Maps:
    """Of I images on squares of S px: what the head sees at each of the G×G places, scales from pixels to the square, looks.

    `seen_ISD` (float16) has a row per place, in rows of the grid; `looks_IE` are of unit length.
    """

    seen_ISD: Tensor
    scale_I: NDArray[np.float64]
    looks_IE: NDArray[np.float64]

    @property
    def side(self) -> int:
        return int(self.seen_ISD.shape[1] ** 0.5)


@torch.inference_mode()
def look(files: Sequence[Path], side_px: int) -> Maps:
    """The frozen part's only pass over the images."""
    network = mobilenet_v2().features.eval()
    found = weights.imagenet_mobilenet_v2()
    assert found is not None, "the ImageNet weights cannot be had"
    weights.load_by_order(network, found)
    mean, std = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1), torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    project = torch.randn(64, 1280, generator=torch.Generator().manual_seed(0)) / 8
    seen, scales, looks = [], [], []
    for file in files:
        image = decode(file)
        scale = side_px / max(image.shape[:2])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        square = torch.zeros(3, side_px, side_px)
        resized = cv2.resize(np.asarray(image), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        square[:, : size[1], : size[0]] = (torch.from_numpy(resized).permute(2, 0, 1).float() - mean) / std
        values, parts = square[None], []
        for place, layer in enumerate(network):
            values = layer(values)
            if place in (6, 13):
                parts.append(values)
        parts.append(torch.einsum("dc,nchw->ndhw", project, values))
        side = parts[0].shape[-1]
        seen.append(torch.cat([interpolate(part, (side, side), mode="bilinear") for part in parts], 1)[0].flatten(1).T.half())
        pooled = values[0].mean(dim=(1, 2))
        looks.append((pooled / pooled.norm()).double().numpy())
        scales.append(scale)
    return Maps(torch.stack(seen), np.array(scales), np.array(looks))


class Head(nn.Module):
    """One place of the grid → class logits and the logarithms of four distances in strides."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        width = sum(WIDTHS)
        self.num_classes = num_classes
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.layers = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, num_classes + 4))

    def forward(self, seen_ND: Tensor) -> tuple[Tensor, Tensor]:
        out = self.layers((seen_ND - self.mean) / self.spread)
        return out[:, : self.num_classes], out[:, self.num_classes :]


def places(boxes: Boxes, maps: Maps, rows: Sequence[int], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Places to learn from: (N, 3) as image, y, x; labels (N,), −1 = nothing there; distances (N, 4); weights (N,)."""
    place, label, distance, weight = [], [], [], []
    centres = (np.arange(maps.side) + 0.5) * STRIDE
    for row in rows:
        taken = np.full((maps.side, maps.side), -1)
        corners = np.concatenate([boxes.xywh[row][:, :2], boxes.xywh[row][:, :2] + boxes.xywh[row][:, 2:]], 1) * maps.scale_I[row]
        order = np.argsort(-(corners[:, 2:] - corners[:, :2]).prod(1))  # small boxes last: they win a place
        for k in order:
            x1, y1, x2, y2 = corners[k]
            cx, cy, rx, ry = (x1 + x2) / 2, (y1 + y2) / 2, max(STRIDE / 2, 0.2 * (x2 - x1)), max(STRIDE / 2, 0.2 * (y2 - y1))
            taken[np.ix_(np.abs(centres - cy) <= ry, np.abs(centres - cx) <= rx)] = k
        ys, xs = np.nonzero(taken >= 0)
        if len(ys) > 60:
            some = rng.choice(len(ys), 60, replace=False)
            ys, xs = ys[some], xs[some]
        own = taken[ys, xs]
        sides = np.column_stack(
            [centres[xs] - corners[own, 0], centres[ys] - corners[own, 1], corners[own, 2] - centres[xs], corners[own, 3] - centres[ys]]
        )
        free_y, free_x = np.nonzero(taken < 0)
        some = rng.choice(len(free_y), min(NEGATIVES, len(free_y)), replace=False)
        place += [np.column_stack([np.full(len(ys), row), ys, xs]), np.column_stack([np.full(len(some), row), free_y[some], free_x[some]])]
        label += [boxes.labels[row][own], np.full(len(some), -1)]
        distance += [np.log(np.clip(sides, 1, None) / STRIDE), np.zeros((len(some), 4))]
        weight += [np.ones(len(own)), np.full(len(some), 0.3 * len(free_y) / max(len(some), 1) / 10)]
    return (
        torch.from_numpy(np.concatenate(place)), torch.from_numpy(np.concatenate(label)),
        torch.from_numpy(np.concatenate(distance)).float(), torch.from_numpy(np.concatenate(weight)).float(),
    )  # fmt: skip


def learn(maps: Maps, boxes: Boxes, rows: Sequence[int], num_classes: int, seed: int, steps: int = 400) -> Head:
    """A head for the boxes of some images."""
    torch.manual_seed(seed)
    place, label, distance, weight = places(boxes, maps, rows, np.random.default_rng(seed))
    seen = maps.seen_ISD[place[:, 0], place[:, 1] * maps.side + place[:, 2]].float()
    head = Head(num_classes)
    head.mean.copy_(seen.mean(0))
    head.spread.copy_(seen.std(0) + 1e-3)
    nn.init.constant_(head.layers[2].bias[:num_classes], -3.0)
    targets = torch.zeros(len(label), num_classes)
    targets[label >= 0, label[label >= 0]] = 1
    positive = (label >= 0).nonzero()[:, 0]
    optimiser = torch.optim.AdamW(head.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        batch = torch.cat([torch.randint(len(label), (384,)), positive[torch.randint(len(positive), (192,))]])
        logits, sides = head(seen[batch])
        per_place = binary_cross_entropy_with_logits(logits, targets[batch], reduction="none").sum(1)
        own = label[batch] >= 0
        loss = (per_place * weight[batch].clamp(max=3)).mean() + smooth_l1_loss(sides[own], distance[batch][own], beta=0.2)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return head.eval()


@torch.inference_mode()
def detect(head: Head, maps: Maps, rows: Sequence[int]) -> list[tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]]:
    """(xywh pixels, labels, scores) of each image, best first."""
    y, x = (grid.reshape(-1) for grid in torch.meshgrid(torch.arange(maps.side), torch.arange(maps.side), indexing="ij"))
    centres = torch.stack([x, y, x, y], 1).float() * STRIDE + STRIDE / 2
    result = []
    for row in rows:
        logits, sides = head(maps.seen_ISD[row].float())
        scores, labels = logits.sigmoid().max(1)
        kept = (scores > SCORE_LEAST).nonzero()[:, 0]
        reach = sides[kept].clamp(-3, 5).exp() * STRIDE
        corners = centres[kept] + torch.cat([-reach[:, :2], reach[:, 2:]], 1)
        chosen = batched_nms(corners, scores[kept], labels[kept], NMS_IOU)[:MOST]
        xyxy = (corners[chosen] / maps.scale_I[row]).double().numpy()
        xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], 1)
        result.append((xywh, labels[kept][chosen].numpy(), scores[kept][chosen].double().numpy()))
    return result


def as_results(found: Sequence[Any], image_ids: Sequence[int]) -> list[dict[str, Any]]:
    """COCO results with category ids counted from 1."""
    return [
        {"image_id": number, "category_id": int(label) + 1, "bbox": box.tolist(), "score": float(score)}
        for number, (boxes, labels, scores) in zip(image_ids, found, strict=True)
        for box, label, score in zip(boxes, labels, scores, strict=True)
    ]

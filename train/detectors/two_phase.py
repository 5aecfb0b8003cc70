"""The two-phase detector of the seed talk: a face detector finds faces, a classifier says of which class each is.

Phase one is OpenCV's SSD (:mod:`train.detectors.face`), which is not trained. Phase two is MobileNetV2 with ImageNet
weights, frozen, and new final layers as in the talk: pooling, a hidden layer of 128, dropout, one output per class. Only
those learn, so a release takes minutes on a CPU. It looks at each face twice, tight and with its surroundings: what covers
chin and neck is seen in the one, what covers the mouth in more pixels in the other. Its score is the face's score times the
class's probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.ops import box_iou, roi_align

from annotate.boxes import xyxy_from_xywh
from annotate.coco import Category
from collect.errors import UsageError
from train.detectors import mobilenet
from train.detectors.detector import SCORE_LEAST, Batch, Detector, HeadRows, RawDetections, Recipe
from train.detectors.face import FaceDetector, find_folder
from train.fitting import weights as pretrained

CROP_PX = 128
#: How much of the surroundings the tight and the wide look show, as a share of the box on each side. The wide one was chosen on
#: facemask-coco among .35, .6 and 1; it lies between the median (.07) and the upper quartile (.6) of the crops of face-crops.
MARGINS = (0.1, 0.35)
_POOLED = 1280
FEATURES = _POOLED * len(MARGINS)
#: How far a training crop strays from the labelled box, as a share of its sides: the face detector is no better.
JITTER = 0.08
#: Faces are found from this score on; those from the second one on are sure enough to learn from.
FACE_LEAST = 0.12
FACE_SURE = 0.3
#: Training images whose faces say how the labelled boxes differ from the detector's, and the overlap that makes a pair of them.
OFFSET_IMAGES = 64
PAIR_IOU = 0.4
_FACES_AT_ONCE = 32


class TwoPhase(Detector):
    """Faces by OpenCV, classes by new layers on frozen MobileNetV2 features.

    Attributes:
        offset: mean of labelled − found box: centre in shares of the found box's sides, logarithms of the sides' ratios, (4,).
        offset_seen: pairs that mean rests on, and images that were looked at for them, (2,).
    """

    offset: Tensor
    offset_seen: Tensor
    recipe = Recipe(image_size=640, learning_rate=2e-3, weight_decay=0.01, batch_size=8, backbone_rate=0.0, ema_decay=0.99)

    def __init__(self, categories: Sequence[Category], image_size: int, faces: FaceDetector) -> None:
        super().__init__(categories, image_size)
        self.faces = faces
        self.normalise = mobilenet.Normalise()
        self.features = mobilenet.untrained().requires_grad_(False)
        self.hidden = nn.Sequential(nn.Dropout(0.2), nn.Linear(FEATURES, 128), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.output = nn.Linear(128, len(self.categories))
        self.register_buffer("offset", torch.zeros(4))
        self.register_buffer("offset_seen", torch.zeros(2))

    def train(self, mode: bool = True) -> TwoPhase:
        """The frozen part stays in eval mode: its batch norm keeps ImageNet's statistics."""
        super().train(mode)
        self.features.eval()
        return self

    def looks(self, images_B3HW: Tensor, boxes_xyxy: Sequence[Tensor]) -> Tensor:
        """What each box shows, tight and wide, float32 (N, 2, 3, CROP_PX, CROP_PX) in 0..255, in the order of the boxes (pixels)."""
        return torch.stack([cut_out(images_B3HW, boxes_xyxy, margin) for margin in MARGINS], 1)

    @torch.no_grad()
    def embed(self, looks_N23PP: Tensor) -> Tensor:
        """The frozen part: the pooled features of both looks side by side, (N, FEATURES)."""
        parts = []
        for start in range(0, len(looks_N23PP), _FACES_AT_ONCE):
            looks = looks_N23PP[start : start + _FACES_AT_ONCE].flatten(0, 1)
            pooled = self.features(self.normalise(looks)).mean(dim=(2, 3))
            parts.append(pooled.float().view(-1, FEATURES))
        return torch.cat(parts) if parts else looks_N23PP.new_zeros((0, FEATURES))

    def logits(self, features_ND: Tensor) -> Tensor:
        """The part that learns: class logits, (N, C)."""
        return cast("Tensor", self.output(self.hidden(features_ND)))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy of the labelled boxes' classes; the boxes stray a little, as the face detector's do."""
        self.learn_offset(batch.images_B3HW, batch.boxes_xyxy)
        strayed = [boxes + JITTER * torch.randn_like(boxes) * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2) for boxes in batch.boxes_xyxy]
        features = self.embed(self.looks(batch.images_B3HW, [_ordered(boxes) for boxes in strayed]))
        logits, labels = self.logits(features), torch.cat(batch.labels)
        if not len(labels):
            return {"class": sum((parameter.sum() for parameter in self.output.parameters()), logits.sum()) * 0.0}
        return {"class": cross_entropy(logits, labels, label_smoothing=0.05)}

    @torch.no_grad()
    def learn_offset(self, images_B3HW: Tensor, boxes_xyxy: Sequence[Tensor]) -> None:
        """Look for faces in the first images with boxes, and how the labelled boxes (pixels) differ from those found."""
        for image, labelled in zip(images_B3HW, boxes_xyxy, strict=True):
            if self.offset_seen[1] >= OFFSET_IMAGES or not len(labelled):
                continue
            found, _ = self._faces(image, FACE_SURE)
            self.offset_seen[1] += 1
            if not len(found):
                continue
            overlap, place = box_iou(labelled.float(), found).max(1)
            paired = overlap > PAIR_IOU
            away = _away(labelled.float()[paired], found[place[paired]])
            total = self.offset_seen[0] + len(away)
            self.offset.copy_((self.offset * self.offset_seen[0] + away.sum(0)) / total.clamp(min=1))
            self.offset_seen[0] = total

    def _faces(self, image_3HW: Tensor, least: float) -> tuple[Tensor, Tensor]:
        """What phase one finds: xyxy pixels (N, 4) and scores (N,), on the image's device."""
        xywh, scores = self.faces.detect(np.ascontiguousarray(image_3HW.permute(1, 2, 0).cpu().numpy()), least)
        boxes = torch.from_numpy(xyxy_from_xywh(xywh)).float().to(image_3HW.device)
        return boxes, torch.from_numpy(scores).float().to(image_3HW.device)

    @torch.no_grad()
    def predict(self, images_B3HW: Tensor) -> list[RawDetections]:
        """Faces, each once per class whose score is worth keeping."""
        return [self._predict_one(image) for image in images_B3HW]

    def _predict_one(self, image_3HW: Tensor) -> RawDetections:
        found, face_scores = self._faces(image_3HW, FACE_LEAST)
        boxes = _moved(found, self.offset)
        if not len(boxes):
            return RawDetections(boxes, face_scores, torch.zeros(0, dtype=torch.int64, device=image_3HW.device))
        chances = self.logits(self.embed(self.looks(image_3HW[None], [boxes]))).softmax(1)
        scores = chances * face_scores[:, None]
        face, label = (scores > SCORE_LEAST).nonzero(as_tuple=True)
        order = scores[face, label].argsort(descending=True)
        return RawDetections(boxes[face[order]], scores[face, label][order], label[order])

    def head_rows(self) -> Mapping[str, HeadRows]:
        rows = HeadRows(np.arange(len(self.categories), dtype=np.int64)[:, None])
        return {"output.weight": rows, "output.bias": rows}

    def stages(self) -> list[list[nn.Module]]:
        return [[self.features]]

    def export_wrapper(self) -> nn.Module:
        raise UsageError("the two-phase detector is two networks, one of them OpenCV's own; it cannot be exported as one graph")


def cut_out(images_B3HW: Tensor, boxes_xyxy: Sequence[Tensor], margin: float = 0.0) -> Tensor:
    """What boxes (pixels) with a margin show, float32 (N, 3, CROP_PX, CROP_PX) in 0..255; they end where the picture does."""
    height, width = images_B3HW.shape[-2:]
    grown = [_grown(boxes.float(), margin, (width, height)) for boxes in boxes_xyxy]
    return roi_align(images_B3HW.float(), grown, CROP_PX, aligned=True)  # type: ignore[no-any-return]


def _away(labelled_N4: Tensor, found_N4: Tensor) -> Tensor:
    """How labelled boxes differ from found ones, (N, 4) as `TwoPhase.offset` (Girshick 2014, equations 6 to 9)."""
    sides, found_sides = labelled_N4[:, 2:] - labelled_N4[:, :2], found_N4[:, 2:] - found_N4[:, :2]
    centres = (labelled_N4[:, :2] + labelled_N4[:, 2:] - found_N4[:, :2] - found_N4[:, 2:]) / 2
    return torch.cat([centres / found_sides, (sides / found_sides).log()], 1)


def _moved(found_N4: Tensor, offset_4: Tensor) -> Tensor:
    """Found boxes with an offset put right: the inverse of `_away`."""
    sides = found_N4[:, 2:] - found_N4[:, :2]
    centres = (found_N4[:, :2] + found_N4[:, 2:]) / 2 + offset_4[:2] * sides
    half = sides * offset_4[2:].exp() / 2
    return torch.cat([centres - half, centres + half], 1)


def _ordered(boxes_N4: Tensor) -> Tensor:
    """Boxes whose corners changed places by straying, mended; at least two pixels wide."""
    low, high = torch.minimum(boxes_N4[:, :2], boxes_N4[:, 2:]), torch.maximum(boxes_N4[:, :2], boxes_N4[:, 2:])
    return torch.cat([low, torch.maximum(high, low + 2)], 1)


def _grown(boxes_N4: Tensor, margin: float, size_wh: tuple[int, int]) -> Tensor:
    """Boxes with a margin, as a share of their sides, clipped to the picture."""
    more = margin * (boxes_N4[:, 2:] - boxes_N4[:, :2])
    grown = torch.cat([boxes_N4[:, :2] - more, boxes_N4[:, 2:] + more], 1)
    most = grown.new_tensor([*size_wh, *size_wh])
    return torch.minimum(grown.clamp(min=0), most)


def two_phase(categories: tuple[Category, ...], image_size: int, weights: str) -> Detector:
    """The builder for the table of detectors.

    Raises:
        MissingServiceError: the face detector's files are not there; says where they are had.
    """
    detector = TwoPhase(categories, image_size, FaceDetector(find_folder()))
    if weights == "auto":
        found = pretrained.imagenet_mobilenet_v2()
        if found:
            pretrained.load_by_order(detector.features, found)
            detector.weights_origin = found.origin
    elif weights != "none":
        detector.weights_origin = pretrained.load_file(detector, weights)
    return detector

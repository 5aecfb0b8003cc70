"""Detection transformers from Hugging Face's `transformers`: D-FINE, RT-DETRv2, DEIMv2, LW-DETR and RF-DETR (Apache-2.0).

Each is fine-tuned from its authors' COCO weights where the hub can be reached (or its cache holds them); offline from a
folder given by `--weights`; else from scratch, which for a transformer means: do not expect much. Losses are the library's
own, with its weights (Hungarian matching: Carion et al., ECCV 2020).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from annotate.coco import Category
from collect.errors import MissingServiceError, UsageError
from train.detectors import hub
from train.detectors.detector import Batch, Build, Detector, HeadRows, RawDetections, Recipe

logger = logging.getLogger(__name__)

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_RECIPE = Recipe(learning_rate=1e-4, weight_decay=1e-4, batch_size=8, backbone_rate=0.1, ema_decay=0.9998, clip_norm=0.1)


@dataclass(frozen=True)
class Family:
    """One model of the library.

    Attributes:
        prefix: of its classes, such as `DFine` in `DFineForObjectDetection`.
        repository: its COCO weights on the hub.
        image_size: the side its weights were trained at, pixels.
        normalise: mean and deviation of RGB in 0..1.
        stride: input sides are multiples of this.
        offline: settings of its config where no config can be had from the hub.
    """

    prefix: str
    repository: str
    image_size: int = 640
    normalise: tuple[tuple[float, ...], tuple[float, ...]] = _PLAIN
    stride: int = 32
    offline: Mapping[str, Any] = field(default_factory=dict)


class TransformersDetector(Detector):
    """A model of the library behind our contract."""

    recipe = _RECIPE
    square = True
    exporter = "legacy"
    mean: Tensor
    deviation: Tensor

    def __init__(self, family: Family, categories: tuple[Category, ...], image_size: int, weights: str) -> None:
        self.stride = family.stride
        super().__init__(categories, image_size or family.image_size)
        self.family = family
        self.model, self.weights_origin = _build(family, categories, weights)
        mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in family.normalise)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)
        if family.prefix in {"RfDetr", "LwDetr"}:
            self.exporter = "dynamo"

    def _normalised(self, images_B3HW: Tensor) -> Tensor:
        return (images_B3HW.float() - self.mean) / self.deviation

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The library's weighted sum as one entry, and a zero that touches every parameter.

        Without that zero a rank whose whole batch has no box leaves the denoising embedding without a gradient, and under
        DistributedDataParallel the other ranks wait for it for ever.
        """
        height, width = batch.images_B3HW.shape[-2:]
        scale = torch.tensor([width, height, width, height], device=batch.images_B3HW.device)
        labels = [
            {"class_labels": classes, "boxes": box_convert(boxes, "xyxy", "cxcywh") / scale}
            for boxes, classes in zip(batch.boxes_xyxy, batch.labels, strict=True)
        ]
        answer = self.model(pixel_values=self._normalised(batch.images_B3HW), labels=labels)
        touch = sum(parameter.flatten()[0] for parameter in self.model.parameters() if parameter.requires_grad)
        return {"detr": answer.loss, "touch": 0.0 * torch.as_tensor(touch)}

    def predict(self, images_B3HW: Tensor) -> list[RawDetections]:
        """The 100 best of all queries and classes; a set prediction needs no suppression."""
        height, width = images_B3HW.shape[-2:]
        answer = self.model(pixel_values=self._normalised(images_B3HW))
        boxes, scores, labels = _best(answer.logits.float(), answer.pred_boxes.float(), len(self.categories))
        scale = torch.tensor([width, height, width, height], device=boxes.device)
        return [RawDetections(*row) for row in zip(boxes * scale, scores, labels, strict=True)]

    def head_rows(self) -> Mapping[str, HeadRows]:
        """Every parameter whose first axis counts categories: class heads, encoder scores, denoising embeddings."""
        count = len(self.categories)
        rows = np.arange(count).reshape(count, 1)
        found: dict[str, HeadRows] = {}
        for name, value in self.state_dict().items():
            if "class_embed" in name or "enc_score_head" in name or "class_labels_classifier" in name:
                if value.shape and value.shape[0] == count:
                    found[name] = HeadRows(rows)
                elif value.shape and value.shape[0] == count + 1:
                    found[name] = HeadRows(rows, shared=(count,))
        return found

    def stages(self) -> list[list[nn.Module]]:
        """The backbone, then the encoder where the family has one."""
        inner = self.model.model
        encoder = getattr(inner, "encoder", None)
        return [[inner.backbone], *([[encoder]] if isinstance(encoder, nn.Module) else [])]

    def backbone_parameters(self) -> set[int]:
        return {id(parameter) for parameter in self.model.model.backbone.parameters()}


def _best(logits_BQC: Tensor, boxes_BQ4: Tensor, num_classes: int, most: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes xyxy relative (B, K, 4), scores (B, K), labels (B, K) of the K best pairs of query and class."""
    scores = logits_BQC[..., :num_classes].sigmoid().flatten(1)
    best, places = scores.topk(min(most, scores.shape[1]), dim=1)
    queries = torch.div(places, num_classes, rounding_mode="floor")
    boxes = boxes_BQ4.gather(1, queries.unsqueeze(-1).expand(-1, -1, 4))
    return box_convert(boxes, "cxcywh", "xyxy"), best, places % num_classes


def _build(family: Family, categories: tuple[Category, ...], weights: str) -> tuple[Any, str]:
    """The model and where its weights come from, in words."""
    transformers = _library()
    names = {place: category.name for place, category in enumerate(categories)}
    heads = {"id2label": names, "label2id": {name: place for place, name in names.items()}, "num_labels": len(names)}
    model_class = getattr(transformers, f"{family.prefix}ForObjectDetection")
    place, local = _place(family, weights)
    if place and weights != "auto":
        _check_kind(Path(place), family, model_class)
    if place:
        try:
            with hub.quiet(transformers, bars=not local):
                model = model_class.from_pretrained(place, ignore_mismatched_sizes=True, local_files_only=local, **heads)
        except (OSError, ValueError) as error:
            if weights not in {"auto", "none"}:
                raise UsageError(f"{weights} holds no {family.prefix} that transformers can load: {str(error).splitlines()[0]}") from error
            logger.warning("%s cannot be had (offline, or not in the cache of the hub); starting from scratch", family.repository)
        else:
            return model, f"COCO ({place})" if weights == "auto" else place
    config = getattr(transformers, f"{family.prefix}Config")(**heads, **family.offline)
    return model_class(config), "none: from scratch, since the hub could not be reached" if weights == "auto" else "none: from scratch"


def _place(family: Family, weights: str) -> tuple[str, bool]:
    """What to load from, and whether only this machine may be asked."""
    if weights == "none":
        return "", True
    if weights != "auto":
        folder = Path(weights).expanduser()
        if not (folder / "config.json").is_file():
            raise UsageError(f"--weights {weights}: give a folder as transformers writes it (config.json, model.safetensors)")
        return str(folder), True
    return family.repository, hub.out_of_reach()


def _check_kind(folder: Path, family: Family, model_class: Any) -> None:
    """The library only warns about weights of another architecture, and begins with random ones.

    Raises:
        UsageError: the folder holds another family.
    """
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{folder / 'config.json'} is no config of transformers: {error}") from error
    if kind != model_class.config_class.model_type:
        raise UsageError(f"the weights in {folder} are of another architecture: {kind}, not {family.prefix}; choose its --detector")


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingServiceError("this detector needs transformers; `pip install 'boxwright[transformers]'` brings it") from error
    return transformers


_LW_DETR_TINY: dict[str, Any] = {  # the authors' settings for "tiny" and "small", github.com/Atten4Vis/LW-DETR
    "model_type": "lw_detr_vit", "hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 12,
    "window_block_indices": [0, 2, 4], "out_indices": [2, 4, 6], "num_windows": 16,
}  # fmt: skip
_LW_DETR_SMALL = {**_LW_DETR_TINY, "num_hidden_layers": 10, "window_block_indices": [0, 1, 3, 6, 7, 9], "out_indices": [3, 5, 6, 10]}


def _lw_detr(backbone: dict[str, Any]) -> dict[str, Any]:
    return {"backbone_config": backbone, "projector_scale_factors": [1.0]}


FAMILIES: dict[str, Family] = {
    "dfine_n": Family("DFine", "ustc-community/dfine-nano-coco"),
    "dfine_s": Family("DFine", "ustc-community/dfine-small-coco"),
    "dfine_m": Family("DFine", "ustc-community/dfine-medium-coco"),
    "dfine_l": Family("DFine", "ustc-community/dfine-large-coco"),
    "rtdetr_v2_r18": Family("RTDetrV2", "PekingU/rtdetr_v2_r18vd"),
    "rtdetr_v2_r50": Family("RTDetrV2", "PekingU/rtdetr_v2_r50vd"),
    "deimv2_n": Family("Deimv2", "Intellindust/DEIMv2_HGNetv2_N_COCO"),
    "lwdetr_t": Family("LwDetr", "AnnaZhang/lwdetr_tiny_60e_coco", normalise=_IMAGENET, stride=64, offline=_lw_detr(_LW_DETR_TINY)),
    "lwdetr_s": Family("LwDetr", "AnnaZhang/lwdetr_small_60e_coco", normalise=_IMAGENET, stride=64, offline=_lw_detr(_LW_DETR_SMALL)),
    "rfdetr_n": Family("RfDetr", "Roboflow/rf-detr-nano", image_size=384, normalise=_IMAGENET),
    "rfdetr_s": Family("RfDetr", "Roboflow/rf-detr-small", image_size=512, normalise=_IMAGENET),
    "rfdetr_m": Family("RfDetr", "Roboflow/rf-detr-medium", image_size=576, normalise=_IMAGENET),
}


def _builder(name: str) -> Build:
    def build(categories: tuple[Category, ...], image_size: int, weights: str) -> TransformersDetector:
        return TransformersDetector(FAMILIES[name], categories, image_size, weights)

    return build


dfine_n, dfine_s, dfine_m, dfine_l = (_builder(f"dfine_{size}") for size in "nsml")
rtdetr_v2_r18, rtdetr_v2_r50 = _builder("rtdetr_v2_r18"), _builder("rtdetr_v2_r50")
deimv2_n = _builder("deimv2_n")
lwdetr_t, lwdetr_s = _builder("lwdetr_t"), _builder("lwdetr_s")
rfdetr_n, rfdetr_s, rfdetr_m = (_builder(f"rfdetr_{size}") for size in "nsm")

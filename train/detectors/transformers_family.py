"""Detection transformers from Hugging Face's `transformers`: D-FINE, RT-DETRv2, DEIMv2, LW-DETR and RF-DETR (Apache-2.0).

Each is fine-tuned from its authors' COCO weights where the hub can be reached (or its cache holds them); offline from a
folder given by `--weights`; else from scratch, which for a transformer means: do not expect much. Losses are the library's
own, with its weights (Hungarian matching: Carion et al., ECCV 2020).
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping
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
from train.detectors import transformers_sizes as sizes
from train.detectors.detector import Batch, Detector, HeadRows, RawDetections, Recipe
from train.fitting import checkpoint
from train.fitting import weights as pretrained

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
        offline: settings of its config where none can be had from the hub (:mod:`train.detectors.transformers_sizes`).
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

    def __init__(
        self,
        family: Family,
        categories: tuple[Category, ...],
        image_size: int,
        weights: str,
        architecture: Mapping[str, Any] | None = None,
    ) -> None:
        self.stride = family.stride
        super().__init__(categories, image_size or family.image_size)
        self.family = family
        ours = weights not in {"auto", "none"} and Path(weights).expanduser().is_file()
        if ours:
            architecture = checkpoint.load(Path(weights).expanduser()).get("architecture")
        self.model, self.weights_origin = _build(family, categories, "none" if ours else weights, architecture)
        self.architecture = _told(self.model.config)
        self._check_places()
        if ours:
            self.weights_origin = pretrained.load_file(self, weights)
        mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in family.normalise)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)
        if family.prefix in {"RfDetr", "LwDetr"}:
            self.exporter = "dynamo"

    def _check_places(self) -> None:
        """Its queries begin at the best places of the encoder's maps, of which a small input has too few.

        Raises:
            UsageError: so few; says which size is large enough.
        """
        config = self.model.config
        strides = getattr(config, "feat_strides", None) or [config.backbone_config.patch_size]

        def places(side_px: int) -> int:
            return sum(int(side_px // stride) ** 2 for stride in strides)

        if places(self.image_size) < config.num_queries:
            least = next(side for side in range(self.stride, 10_000, self.stride) if places(side) >= config.num_queries)
            raise UsageError(
                f"an image size of {self.image_size} has {places(self.image_size)} places for this detector's {config.num_queries} "
                f"queries; use --image-size {least} or more"
            )

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
        encoder = getattr(self.model.model, "encoder", None)
        return [[self._backbone()], *([[encoder]] if isinstance(encoder, nn.Module) else [])]

    def backbone_parameters(self) -> set[int]:
        return {id(parameter) for parameter in self._backbone().parameters()}

    def _backbone(self) -> nn.Module:
        inner = self.model.model  # DEIMv2 keeps its backbone in a part that also holds projections, which are not pretrained on ImageNet
        found: nn.Module = inner.conv_encoder.model if hasattr(inner, "conv_encoder") else inner.backbone
        return found


def _best(logits_BQC: Tensor, boxes_BQ4: Tensor, num_classes: int, most: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes xyxy relative (B, K, 4), scores (B, K), labels (B, K) of the K best pairs of query and class."""
    scores = logits_BQC[..., :num_classes].sigmoid().flatten(1)
    best, places = scores.topk(min(most, scores.shape[1]), dim=1)
    queries = torch.div(places, num_classes, rounding_mode="floor")
    boxes = boxes_BQ4.gather(1, queries.unsqueeze(-1).expand(-1, -1, 4))
    return box_convert(boxes, "cxcywh", "xyxy"), best, places % num_classes


def _build(family: Family, categories: tuple[Category, ...], weights: str, architecture: Mapping[str, Any] | None) -> tuple[Any, str]:
    """The model and where its weights come from, in words; with an `architecture` that one, with random weights."""
    transformers = _library()
    names = {place: category.name for place, category in enumerate(categories)}
    heads = {"id2label": names, "label2id": {name: place for place, name in names.items()}, "num_labels": len(names)}
    model_class = getattr(transformers, f"{family.prefix}ForObjectDetection")
    place, local = _place(family, "none" if architecture else weights)
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
            _hold_constants(model)
            return model, f"COCO ({place})" if weights == "auto" else place
    config_class = getattr(transformers, f"{family.prefix}Config")
    config = config_class.from_dict({**architecture, **heads}) if architecture else config_class(**_offline(config_class, family), **heads)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # RF-DETR has one, and torch would tell the user
        model = model_class(config)
    return (
        model,
        "none: from scratch, since the hub could not be reached" if weights == "auto" and not architecture else "none: from scratch",
    )


def _hold_constants(model: Any) -> None:
    """Some parameters are constants, such as D-FINE's `reg_scale`; the library forgets that when it reads weights, and would train them."""
    with torch.device("meta"):
        fresh = type(model)(model.config)
    for name, parameter in fresh.named_parameters():
        model.get_parameter(name).requires_grad_(parameter.requires_grad)


def _offline(config_class: Any, family: Family) -> dict[str, Any]:
    """The family's own settings, those of the backbone within the library's defaults."""
    settings = dict(family.offline)
    if "backbone_config" in settings:
        settings["backbone_config"] = {**config_class().backbone_config.to_dict(), **settings["backbone_config"]}
    return settings


def _told(config: Any) -> dict[str, Any]:
    """The library's config as JSON has it, without the categories, which the run knows, and the folder it was read from."""
    document: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {name: value for name, value in document.items() if name not in {"id2label", "label2id", "num_labels", "_name_or_path"}}


def _place(family: Family, weights: str) -> tuple[str, bool]:
    """What to load from, and whether only this machine may be asked."""
    if weights == "none":
        return "", True
    if weights != "auto":
        folder = Path(weights).expanduser()
        if not (folder / "config.json").is_file():
            raise UsageError(
                f"--weights {weights}: give a folder as transformers writes it (config.json, model.safetensors), or a run's best.pt"
            )
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


FAMILIES: dict[str, Family] = {
    "dfine_n": Family("DFine", "ustc-community/dfine-nano-coco", offline=sizes.DFINE_N),
    "dfine_s": Family("DFine", "ustc-community/dfine-small-coco", offline=sizes.DFINE_S),
    "dfine_m": Family("DFine", "ustc-community/dfine-medium-coco", offline=sizes.DFINE_M),
    "dfine_l": Family("DFine", "ustc-community/dfine-large-coco", offline=sizes.DFINE_L),
    "rtdetr_v2_r18": Family("RTDetrV2", "PekingU/rtdetr_v2_r18vd", offline=sizes.RTDETR_V2_R18),
    "rtdetr_v2_r50": Family("RTDetrV2", "PekingU/rtdetr_v2_r50vd", offline=sizes.RTDETR_V2_R50),
    "deimv2_n": Family("Deimv2", "Intellindust/DEIMv2_HGNetv2_N_COCO", offline=sizes.DEIMV2_N),
    "lwdetr_t": Family("LwDetr", "AnnaZhang/lwdetr_tiny_60e_coco", normalise=_IMAGENET, stride=64, offline=sizes.LW_DETR_T),
    "lwdetr_s": Family("LwDetr", "AnnaZhang/lwdetr_small_60e_coco", normalise=_IMAGENET, stride=64, offline=sizes.LW_DETR_S),
    "rfdetr_n": Family("RfDetr", "Roboflow/rf-detr-nano", image_size=384, normalise=_IMAGENET, offline=sizes.rf_detr(384, 2)),
    "rfdetr_s": Family("RfDetr", "Roboflow/rf-detr-small", image_size=512, normalise=_IMAGENET, offline=sizes.rf_detr(512, 3)),
    "rfdetr_m": Family("RfDetr", "Roboflow/rf-detr-medium", image_size=576, normalise=_IMAGENET, offline=sizes.rf_detr(576, 4)),
}


def _builder(name: str) -> Callable[..., TransformersDetector]:
    def build(
        categories: tuple[Category, ...], image_size: int, weights: str, architecture: Mapping[str, Any] | None = None
    ) -> TransformersDetector:
        return TransformersDetector(FAMILIES[name], categories, image_size, weights, architecture)

    return build


dfine_n, dfine_s, dfine_m, dfine_l = (_builder(f"dfine_{size}") for size in "nsml")
rtdetr_v2_r18, rtdetr_v2_r50 = _builder("rtdetr_v2_r18"), _builder("rtdetr_v2_r50")
deimv2_n = _builder("deimv2_n")
lwdetr_t, lwdetr_s = _builder("lwdetr_t"), _builder("lwdetr_s")
rfdetr_n, rfdetr_s, rfdetr_m = (_builder(f"rfdetr_{size}") for size in "nsm")

"""The network for `[collect] lookalike_model`: MobileNetV2's pooled ImageNet features as an ONNX file that takes pixels as they are."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from collect.errors import MissingServiceError, RefusedError
from collect.images.lookalikes import NETWORK_SIDE_PX, Network
from train.loop.embedding import MEAN_RGB, STD_RGB, imagenet_features
from train.serving.onnx_export import check_installed, write

_LEAST_COSINE = 0.999


class _Pooled(nn.Module):
    """RGB in 0..255, (1, 3, S, S), to a vector (1, 1280)."""

    mean: Tensor
    std: Tensor

    def __init__(self, features: Any) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("mean", torch.tensor(MEAN_RGB)[None, :, None, None])
        self.register_buffer("std", torch.tensor(STD_RGB)[None, :, None, None])

    def forward(self, image_13SS: Tensor) -> Tensor:
        pooled: Tensor = self.features((image_13SS - self.mean) / self.std).mean((2, 3))
        return pooled


def export_lookalike_model(path: Path) -> float:
    """Write `path`; returns the cosine of what `collect` makes of a picture by it and of what torch does (int8 against float32).

    Raises:
        MissingServiceError: onnx is not installed, or the weights cannot be had.
        RefusedError: OpenCV, which runs it in `collect`, makes something else of it; nothing is left behind.
    """
    check_installed()
    features = imagenet_features()
    if features is None:
        raise MissingServiceError("MobileNetV2's weights are not here and cannot be had; name a network of your own in lookalike_model")
    pooled = _Pooled(features).eval()
    write(pooled, np.zeros((1, 3, NETWORK_SIDE_PX, NETWORK_SIDE_PX), np.float32), path, "dynamo", ["vector"])
    network, picture = Network(path), _picture()
    given = torch.from_numpy(network.given(picture))
    with torch.inference_mode():
        expected = pooled(given)[0].numpy()
    found = np.frombuffer(network.vector(picture), np.int8).astype(np.float32)
    cosine = float(found @ expected / (np.linalg.norm(found) * np.linalg.norm(expected)))
    if cosine < _LEAST_COSINE:
        path.unlink(missing_ok=True)
        raise RefusedError(f"no file was written: OpenCV makes another vector of it than torch (cosine {cosine:.4f})")
    return cosine


def _picture() -> bytes:
    """A picture of all colours."""
    across, round_ = Image.linear_gradient("L"), Image.radial_gradient("L")
    file = io.BytesIO()
    Image.merge("RGB", (across, across.transpose(Image.Transpose.ROTATE_90), round_)).save(file, "PNG")
    return file.getvalue()

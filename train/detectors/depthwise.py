"""Strided and dilated depthwise convolutions that train fast on a CPU in bf16."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SparseDepthwise(nn.Conv2d):
    """A depthwise convolution of stride or dilation 2 whose gradients on a CPU are computed in fp32.

    oneDNN's bf16 kernel for the gradients of strided ones (3.13, AMX and AVX512-BF16) takes three to twelve times as long as
    its fp32 one, for dilated ones two to three times; MobileNetV2 has three strided ones, which took a third of a training
    step, and R-FCN's three dilated ones, which took a quarter (LOG.md, 2026-11-26). All else is `nn.Conv2d`.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or not torch.is_grad_enabled() or not self.weight.requires_grad:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.to(self.weight.dtype)).to(input.dtype)


def with_fast_gradients(network: nn.Module) -> nn.Module:
    """Make the strided and dilated depthwise convolutions of a network such ones, in place; parameters, names and hooks stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels > 1 and max(*module.stride, *module.dilation) > 1:
            module.__class__ = SparseDepthwise
    return network

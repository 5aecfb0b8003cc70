"""Strided and dilated depthwise convolutions: the same numbers as torch's, under the same names."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from train.detectors.depthwise import SparseDepthwise, with_fast_gradients


def sparse(network: nn.Module) -> list[SparseDepthwise]:
    return [module for module in network.modules() if isinstance(module, SparseDepthwise)]


def test_with_fast_gradients__replaces_only_sparse_depthwise_and_keeps_names() -> None:
    plain = mobilenet_v2().features
    names = list(plain.state_dict())
    weights = {name: parameter.data_ptr() for name, parameter in plain.named_parameters()}
    fast = with_fast_gradients(plain)
    assert list(fast.state_dict()) == names
    assert {name: parameter.data_ptr() for name, parameter in fast.named_parameters()} == weights
    assert len(sparse(fast)) == 4
    assert all(module.stride == (2, 2) and module.groups == module.in_channels for module in sparse(fast))
    assert len(sparse(with_fast_gradients(fast))) == 4


@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), (1, 2)])
def test_gradients__are_those_of_the_plain_convolution(stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(8, 8, 3, stride, dilation, dilation, groups=8, bias=False))
    fast = with_fast_gradients(copy.deepcopy(plain))
    assert len(sparse(fast)) == 1
    image = torch.randn(2, 8, 15, 20)
    for network in (plain, fast):
        network(image).square().sum().backward()
    assert torch.equal(plain[0].weight.grad, fast[0].weight.grad)
    with torch.no_grad():
        assert torch.equal(plain(image), fast(image))


def test_gradients__in_bf16_lie_nearer_to_the_exact_ones() -> None:
    torch.manual_seed(0)
    exact = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=8))
    image = torch.randn(2, 8, 15, 20).bfloat16()
    exact(image.float()).square().sum().backward()
    errors = []
    for network in (copy.deepcopy(exact), with_fast_gradients(copy.deepcopy(exact))):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            found = network(image)
        assert found.dtype == torch.bfloat16
        found.float().square().sum().backward()
        errors.append(float((network[0].weight.grad - exact[0].weight.grad).abs().max()))
    assert errors[1] <= errors[0]

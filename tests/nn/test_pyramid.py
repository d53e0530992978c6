"""A convolution of an enlarged map without that map; activations that overwrite what they read."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lganet_fast.nn.pyramid import ConvAct, conv_of_enlarged, leaky, nearest_up
from lganet_fast.nn.slabs import PLANES


@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("height", [3, PLANES // 2 + 3])
def test_the_convolution_of_an_enlarged_map_beside_another(slope, height):
    torch.manual_seed(0)
    conv = ConvAct(5, 4, slope).double()
    x = torch.randn(2, 3, height, 2, 4, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(2, 2, 2 * height, 4, 8, dtype=torch.float64, requires_grad=True)
    leaves = [x, skip, *conv.parameters()]
    wanted = conv(torch.cat([nearest_up(x), skip], 1))
    found = conv_of_enlarged(conv, x, skip)
    assert torch.allclose(found, wanted, atol=1e-12)
    weights = torch.randn_like(wanted)
    for a, b in zip(
        torch.autograd.grad(found, leaves, weights),
        torch.autograd.grad(wanted, leaves, weights),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-10)
    with torch.no_grad():
        assert torch.allclose(conv_of_enlarged(conv, x, skip), wanted, atol=1e-12)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_an_activation_takes_the_memory_of_what_it_reads_and_tells_its_gradient(slope):
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)
    read = 1 * x
    found = leaky(read, slope)
    assert found.data_ptr() == read.data_ptr()
    wanted = F.leaky_relu(x, slope)
    assert torch.equal(found, wanted)
    assert torch.equal(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (found, wanted)))

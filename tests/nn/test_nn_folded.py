"""The folded attention of the coarsest level against the plain modules, in float64."""

from __future__ import annotations

import pytest
import torch
from ops_checks import close, uniform
from torch import nn

from lganet_fast.nn.folded import local_global_attention, position_attention
from lganet_fast.nn.lgam import TOKEN_ORDERS, LocalGlobalAttention, PositionAttention
from lganet_fast.ops.fold import chained, side_by_side


def module_of(kind, *arguments):
    """A module in evaluation whose every parameter matters."""
    module = kind(*arguments).double().eval()
    for n, parameter in enumerate(module.parameters()):
        sides = parameter.flatten(1).shape[1] if parameter.dim() > 1 else 4
        parameter.data = uniform(*parameter.shape, seed=n) * (3 / sides) ** 0.5
    return module


def map_of(channels, *size):
    return uniform(2, channels, *size).contiguous(memory_format=torch.channels_last_3d)


@torch.no_grad()
def test_position_attention():
    part, x = module_of(PositionAttention, 16), map_of(16, 3, 4, 2)
    close(position_attention(x, part), part(x))


@torch.no_grad()
@pytest.mark.parametrize("order", TOKEN_ORDERS)
@pytest.mark.parametrize("size", [(12, 6, 6), (6, 6, 6)])
def test_local_global_attention(order, size):
    parts = [module_of(LocalGlobalAttention, 16, order, 0.1) for _ in range(2)]
    parts[1].ln.weight.data *= 0.5
    x = map_of(16, *size)
    close(local_global_attention(x, parts), nn.Sequential(*parts)(x), 1e-12)
    parts[1].gsa.proj.weight.mul_(0.5)  # folded weights follow
    close(local_global_attention(x, parts), nn.Sequential(*parts)(x), 1e-12)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_in_the_type_of_the_map(dtype):
    position = module_of(PositionAttention, 16)
    part, x = module_of(LocalGlobalAttention, 16, "published", 0.1), map_of(16, 6, 6, 6)
    for found, exact in (
        (position_attention(x.to(dtype), position), position(x)),
        (local_global_attention(x.to(dtype), [part]), part(x)),
    ):
        assert found.dtype == dtype
        close(found, exact, 40 * torch.finfo(dtype).eps * exact.abs().max().item())


@torch.no_grad()
def test_chained():
    first, second = nn.Linear(3, 2).double(), nn.Linear(2, 5, bias=False).double()
    x = uniform(4, 3)
    for a, b in ((first, second), (nn.Linear(3, 2, bias=False).double(), nn.Linear(2, 5).double())):
        weight, bias = chained((a.weight, a.bias), (b.weight, b.bias))
        close(x @ weight.T + bias, b(a(x)), 1e-14)


@torch.no_grad()
def test_side_by_side():
    narrow, plain = nn.Linear(3, 2).double(), nn.Linear(3, 4, bias=False).double()
    x = uniform(5, 3)
    weight, bias = side_by_side([(narrow.weight, narrow.bias), (plain.weight, None)], 4)
    out = x @ weight.T + bias
    close(out[:, :2], narrow(x), 1e-14)
    assert (out[:, 2:4] == 0).all()
    close(out[:, 4:], plain(x), 1e-14)
    assert side_by_side([(plain.weight, None)])[1] is None

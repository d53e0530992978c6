"""One pass after a convolution, in the interpreter, against plain PyTorch in float64."""

from __future__ import annotations

import itertools

import lganet_fast.kernels.sweep as sweeping
import pytest
import torch
from interpreter import on_the_cpu  # noqa: F401
from lganet_fast.kernels.epilogue import bias_gradient, epilogue
from ops_checks import CHANNELS_LAST, uniform

SHAPE = (2, 12, 3, 4, 5)


def volume(seed, dtype=torch.float32, wider=0):
    """A map, or some channels of one that has `wider` more."""
    batch, channels, *size = SHAPE
    x = uniform(batch, channels + wider, *size, seed=seed).to(dtype)
    return x.contiguous(memory_format=CHANNELS_LAST)[:, wider // 2 :][:, :channels]


def plain(y, bias, relu, add, times):
    """The definition, in float64."""
    y = y.double()
    if bias is not None:
        y = y + bias.double()[:, None, None, None]
    y = y.relu() if relu else y
    y = y if add is None else y + add.double()
    return y if times is None else y * times.double()


def moments_of(y):
    y = y.double()
    return torch.stack(
        [y.mean((2, 3, 4)), 1 / (y.var((2, 3, 4), correction=0) + 1e-5).sqrt()]
    ).float()


@pytest.mark.parametrize("steps", list(itertools.product((False, True), repeat=4)))
def test_every_step(steps, monkeypatch):
    monkeypatch.setattr(sweeping, "TILE", 256)
    has_bias, relu, has_add, has_times = steps
    bias = uniform(12, seed=5).float() if has_bias else None
    add, times = volume(2) if has_add else None, volume(3, wider=8) if has_times else None
    y = volume(1)
    wanted = plain(y, bias, relu, add, times)
    found = epilogue(y, bias, relu, add, times, moments=True)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found, moments_of(y), rtol=1e-5, atol=1e-6)
    for wrong in range(4):
        other = [not step if i == wrong else step for i, step in enumerate(steps)]
        changed = plain(
            volume(1),
            uniform(12, seed=5) if other[0] else None,
            other[1],
            volume(2) if other[2] else None,
            volume(3, wider=8) if other[3] else None,
        )
        assert (changed - wanted).abs().max() > 0.1  # no step is without effect


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_round_once_and_moments_are_of_what_is_stored(dtype):
    y, add, times = volume(1, dtype), volume(2, dtype, 4), volume(3, dtype)
    bias = uniform(12, seed=5).to(dtype)
    wanted = plain(y, bias, True, add, times).to(dtype)
    out = torch.full((2, 28, *SHAPE[2:]), torch.nan, dtype=dtype)
    out = out.contiguous(memory_format=CHANNELS_LAST)
    found = epilogue(y, bias, True, add, times, moments=True, out=out[:, 8:20])
    torch.testing.assert_close(out[:, 8:20], wanted, rtol=torch.finfo(dtype).eps, atol=0)
    torch.testing.assert_close(found, moments_of(out[:, 8:20]), rtol=1e-5, atol=1e-6)
    assert out[:, :8].isnan().all()
    assert out[:, 20:].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bias_gradient(dtype):
    grad, mask = volume(1, dtype, 4), volume(2, dtype)
    right = torch.where(mask > 0, grad, 0)
    out = torch.empty_like(grad)
    found = bias_gradient(grad, mask, out)
    torch.testing.assert_close(found.double(), right.double().sum((0, 2, 3, 4)), rtol=0, atol=1e-5)
    assert torch.equal(out, right)
    found = bias_gradient(grad)
    torch.testing.assert_close(found.double(), grad.double().sum((0, 2, 3, 4)), rtol=0, atol=1e-5)


def test_maps_that_lie_otherwise():
    with pytest.raises(ValueError, match="y must be channels_last_3d"):
        epilogue(volume(1).contiguous(), None)
    with pytest.raises(ValueError, match="one shape and one memory format"):
        epilogue(volume(1), None, add=volume(2).contiguous())

"""ops.norm_act by the Triton kernels, in the interpreter, against the reference in float64."""

from __future__ import annotations

import lganet_fast.kernels.moments as joining
import lganet_fast.kernels.norm_act as kernels
import lganet_fast.kernels.sweep as sweeping
import pytest
import torch
from interpreter import agree, on_the_cpu, results  # noqa: F401
from ops_checks import CHANNELS_LAST, LAYOUTS, uniform

from lganet_fast.ops import norm_act, use_backend

FORMATS = (CHANNELS_LAST, torch.contiguous_format)


def noise(*shape, dtype=torch.float32, memory_format=CHANNELS_LAST, center=5.0):
    x = 3 * uniform(*shape, seed=1) + center
    return x.to(dtype).contiguous(memory_format=memory_format)


def leaky(x):
    return norm_act(x, 0.1)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", [(2, 8, 7, 9, 10), (1, 24, 3, 1, 5), (2, 3, 4, 5, 6)])
def test_values_and_gradients(shape, memory_format):
    agree(leaky, leaky, noise(*shape, memory_format=memory_format))


@pytest.mark.parametrize("shape", [(1, 1, 9, 10, 11), (1, 130, 2, 2, 3)])
def test_other_numbers_of_channels(shape):
    agree(leaky, leaky, noise(*shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(dtype):
    agree(leaky, leaky, noise(1, 16, 5, 6, 7, dtype=dtype))


@pytest.mark.parametrize("memory_format", FORMATS)
def test_chunks_of_many_tiles_and_several_levels_of_parts(memory_format, monkeypatch):
    """Programs that walk over tiles, the last of which are not full; parts joined twice."""
    monkeypatch.setattr(sweeping, "TILE", 64)
    monkeypatch.setattr(sweeping, "PROGRAMS", 6)
    monkeypatch.setattr(joining, "GROUP", 2)
    agree(leaky, leaky, noise(1, 4, 5, 9, 4, memory_format=memory_format))


def test_a_mean_far_from_zero_costs_no_digits(monkeypatch):
    """Nor does a first voxel that is unlike all others."""
    monkeypatch.setattr(sweeping, "TILE", 256)
    x = noise(1, 8, 12, 12, 12, center=1000.0)
    x[:, :, 0, 0, 0] = 0
    mean, scale = kernels.moments(x)
    exact = x.double()
    assert (mean - exact.mean((2, 3, 4))).abs().max() < 3e-4  # the step of float32 there is 6e-5
    right = 1 / (exact.var((2, 3, 4), correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(scale.double(), right, rtol=1e-5, atol=0)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_in_place(memory_format):
    x = noise(2, 8, 3, 4, 5, memory_format=memory_format)
    wanted, place = leaky(x), x.clone()
    assert norm_act(place, 0.1, inplace=True) is not None
    assert torch.equal(place, wanted)
    leaf = x.clone().requires_grad_()
    assert norm_act(leaf, 0.1, inplace=True).data_ptr() != leaf.data_ptr()


def test_channels_of_a_wider_map():
    wider = noise(2, 24, 3, 4, 5)
    x = wider[:, 8:16]
    out = torch.full_like(wider, torch.nan)
    found = kernels.moments(x)
    torch.testing.assert_close(found, kernels.moments(x.contiguous(memory_format=CHANNELS_LAST)))
    kernels.apply(x, found, 0.1, out[:, 16:])
    with use_backend("reference"):
        torch.testing.assert_close(out[:, 16:], leaky(x))
    assert out[:, :16].isnan().all()


def test_gaps_are_closed_and_other_layouts_refused():
    x = LAYOUTS["strided"](noise(1, 4, 3, 4, 6))
    agree(leaky, leaky, x)
    with pytest.raises(ValueError, match="channels_last_3d"):
        kernels.moments(noise(1, 4, 3, 4, 6)[..., 1:])
    with pytest.raises(ValueError, match="one shape"):
        kernels.apply(x := noise(1, 4, 3, 4, 6), kernels.moments(x), 1.0, x[:, :2])


def test_constant_channels_give_zeros():
    x = torch.full((1, 2, 4, 4, 4), 3.0, requires_grad=True)
    out = leaky(x)
    assert out.abs().max() < 1e-4
    assert torch.autograd.grad(out.sum(), x)[0].isfinite().all()


def test_not_a_number_stays_in_its_channel():
    x = noise(2, 4, 3, 3, 3)
    x[1, 2, 0, 1, 2] = torch.nan
    bad = leaky(x).isnan().flatten(2)
    assert bad[1, 2].all()
    assert bad.sum() == 27


@pytest.mark.parametrize("shape", [(0, 2, 3, 4, 5), (1, 2, 0, 4, 5)])
def test_empty(shape):
    x = noise(*shape).requires_grad_()
    leaky(x).sum().backward()
    assert x.grad.shape == shape


def test_results_repeat_bit_for_bit():
    x = noise(1, 8, 9, 10, 11)
    first = results(leaky, [x], torch.ones(()))
    for one, other in zip(first, results(leaky, [x.clone()], torch.ones(())), strict=True):
        assert torch.equal(one, other)


def test_second_derivative_is_refused():
    x = noise(1, 2, 2, 2, 3).requires_grad_()
    (grad,) = torch.autograd.grad(leaky(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


def test_operators():
    x = noise(1, 2, 2, 2, 3)
    operators = torch.ops.lganet_fast_triton
    out, scale = operators.norm_act(x, 0.1)
    torch.library.opcheck(operators.norm_act.default, (x.clone().requires_grad_(), 0.1))
    torch.library.opcheck(operators.norm_act_.default, (x.clone(), 0.1))
    torch.library.opcheck(operators.norm_act_backward.default, (x, out, scale, 0.1))

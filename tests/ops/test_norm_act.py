"""Instance norm with leaky ReLU: values, gradients, layouts, types, errors."""

import pytest
import torch

from lganet_fast.ops import norm_act
from lganet_fast.ops.native import LOADED

BACKENDS = ["reference", *(["native"] if LOADED else [])]
LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]
SHAPES = [
    (1, 8, 9, 10, 11),
    (2, 3, 4, 5, 6),
    (3, 24, 7, 1, 5),
    (1, 1, 20, 30, 40),
    (2, 100, 3, 3, 3),
]


def wanted_of(x, slope):
    """The definition, written out."""
    mean, var = x.mean((2, 3, 4), keepdim=True), x.var((2, 3, 4), keepdim=True, correction=0)
    normed = (x - mean) / (var + 1e-5).sqrt()
    return torch.where(normed > 0, normed, slope * normed)


def noise(shape, layout=torch.contiguous_format, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64, generator=generator) * 3 + 5
    return x.contiguous(memory_format=layout)


@pytest.mark.parametrize("slope", [1.0, 0.1])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_values_and_gradient(backend, shape, layout, slope):
    x = noise(shape, layout).requires_grad_()
    grad = noise(shape, seed=1)
    found, wanted = norm_act(x, slope, backend=backend), wanted_of(x, slope)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    one = torch.autograd.grad(found, x, grad)[0]
    other = torch.autograd.grad(wanted, x, grad)[0]
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert found.stride() == x.stride()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_narrow_types_round_once(backend, dtype):
    x = noise((2, 24, 20, 21, 22), torch.channels_last_3d).to(dtype)
    found = norm_act(x, 0.1, backend=backend)
    assert found.dtype == dtype
    wanted = wanted_of(x.double(), 0.1).to(dtype)
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(found, wanted, rtol=step, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mean_far_from_zero_costs_no_digits(backend):
    x = noise((1, 8, 30, 30, 30), torch.channels_last_3d).float() + 1000
    wanted = wanted_of(x.double(), 0.1).float()
    torch.testing.assert_close(norm_act(x, 0.1, backend=backend), wanted, rtol=0, atol=2e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_constant_channels_give_zeros(backend):
    x = torch.full((1, 2, 4, 4, 4), 3.0, requires_grad=True)
    out = norm_act(x, 0.1, backend=backend)
    assert out.abs().max() < 1e-4
    assert torch.autograd.grad(out.sum(), x)[0].isfinite().all()


@pytest.mark.skipif(not LOADED, reason="needs the compiled operators")
def test_in_place_takes_the_memory_only_without_a_gradient():
    x = noise((1, 8, 4, 4, 4)).float()
    wanted = norm_act(x, 0.1)
    leaf = x.clone().requires_grad_()
    out = norm_act(leaf, 0.1, inplace=True)
    assert out.data_ptr() != leaf.data_ptr()
    assert torch.equal(out, wanted)
    assert norm_act(x, 0.1, inplace=True).data_ptr() == x.data_ptr()
    assert torch.equal(x, wanted)


@pytest.mark.skipif(not LOADED, reason="needs the compiled operators")
def test_the_operator_is_well_formed():
    for layout in LAYOUTS:
        x = noise((2, 4, 3, 4, 5), layout).requires_grad_()
        torch.library.opcheck(torch.ops.lganet_fast.norm_act.default, (x, 0.1))
        torch.autograd.gradcheck(lambda x: norm_act(x, 0.1), x)
        torch.library.opcheck(torch.ops.lganet_fast.norm_act_.default, (x.detach(), 0.1))


def test_gaps_in_memory_are_no_matter():
    x = noise((2, 6, 8, 10, 12))[:, ::2, 1:, :, ::3]
    torch.testing.assert_close(norm_act(x, 0.1), wanted_of(x, 0.1))


def test_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match="slope must be above 0"):
        norm_act(torch.zeros(1, 1, 2, 2, 2), 0.0)
    with pytest.raises(ValueError, match="x must have shape"):
        norm_act(torch.zeros(1, 2, 2, 2))
    with pytest.raises(TypeError, match="x must be float"):
        norm_act(torch.zeros(1, 1, 2, 2, 2, dtype=torch.int32))

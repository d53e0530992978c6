"""Where values have kinks, are not finite or overflow: every backend says the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from ops_checks import CHANNELS_LAST, needs_native, uniform

from lganet_fast import ops

pytestmark = needs_native
BOTH = ("reference", "native")
TYPES = (torch.float32, torch.float64)


def both(call, *inputs):
    """Values and gradients by each backend."""
    found = []
    for backend in BOTH:
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        out = call(*leaves, backend=backend)
        seeds = torch.arange(out.numel()).reshape(out.shape).cos().to(out)
        found.append([out.detach(), *torch.autograd.grad(out, leaves, seeds)])
    return zip(*found, strict=True)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("size", [(5, 6, 50), (1, 23, 4), (113, 2, 3), (1, 1, 1)])
def test_the_gradient_at_a_voxel_is_of_one_side(size, padding, dtype):
    image = uniform(1, 2, *size).to(dtype)
    still = torch.zeros(1, 3, *size, dtype=dtype)
    shifts = uniform(1, 3, *size, seed=1, low=-3, high=3).round().to(dtype)
    for flow in (still, shifts):
        for one, other in both(lambda i, f, backend: ops.warp(
            i, f, padding=padding, backend=backend
        ), image, flow):  # fmt: skip
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_that_side_is_the_right_one():
    image = torch.tensor([1.0, 2.0, 4.0, 8.0]).reshape(1, 1, 1, 1, 4)
    for backend in BOTH:
        flow = torch.zeros(1, 3, 1, 1, 4, requires_grad=True)
        ops.warp(image, flow, backend=backend).sum().backward()
        torch.testing.assert_close(flow.grad[0, 2].flatten(), torch.tensor([1.0, 2.0, 4.0, -8.0]))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_half_way_the_nearest_is_even(padding, dtype):
    image = uniform(1, 1, 7, 5, 60).to(dtype)
    flow = torch.full((1, 3, 7, 5, 60), 0.5, dtype=dtype)
    flow[..., ::3] *= -3
    one, other = (ops.warp(image, flow, "nearest", padding, backend) for backend in BOTH)
    assert torch.equal(one, other)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_flow_that_is_no_position(bad):
    image, flow = uniform(1, 5, 4, 5, 6).float(), uniform(1, 3, 4, 5, 6, seed=1).float()
    flow[0, 0, 1, 2, 3] = flow[0, 2, 2] = bad
    for mode in ("trilinear", "nearest"):
        for padding in ("zeros", "border"):
            one, other = (ops.warp(image, flow, mode, padding, b) for b in BOTH)
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("layout", [torch.contiguous_format, CHANNELS_LAST])
def test_outside_nothing_is_read_whatever_it_is(layout, bad):
    image = torch.full((1, 8, 3, 4, 5), bad).contiguous(memory_format=layout)
    flow = torch.full((1, 3, 3, 4, 5), 1e4)
    flow[0, 0, 1] = float("nan")
    for mode in ("trilinear", "nearest"):
        for out, *grads in both(
            lambda i, f, backend, mode=mode: ops.warp(i, f, mode, backend=backend), image, flow
        ):
            assert not out.any()
            assert not any(g.any() for g in grads)
    velocity = torch.full((1, 3, 3, 4, 5), float("inf"))
    for backend in BOTH:
        assert ops.integrate(velocity, 3, backend).eq(float("inf")).all()


def test_of_equal_numbers_the_first_gets_the_gradient():
    for one, other in both(
        lambda x, backend: ops.pool(x, "max", backend)[0], torch.ones(1, 2, 4, 4, 4)
    ):
        assert torch.equal(one, other)


def test_one_voxel_is_its_own_mean():
    x = torch.tensor([3.0, float("nan"), float("inf"), -2.0]).reshape(1, 4, 1, 1, 1)
    for backend in BOTH:
        out = ops.norm_act(x, 0.1, backend=backend).flatten()
        assert out[[0, 3]].tolist() == [0, 0]
        assert out[1:3].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("far", [1e15, 1e19])
def test_correlation_of_images_with_a_voxel_far_off(far, dtype):
    a, b = uniform(1, 1, 9, 9, 9).to(dtype), uniform(1, 1, 9, 9, 9, seed=1).to(dtype)
    a[0, 0, 4, 4, 4] = far
    wanted = ops.local_ncc(a.double(), b.double(), backend="reference")
    a.requires_grad_()
    found = ops.local_ncc(a, b)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-6)
    assert torch.autograd.grad(found, a)[0].isfinite().all()


@pytest.mark.parametrize("far", [1e19, -1e30])
def test_a_norm_of_a_voxel_far_off(far):
    x = uniform(1, 9, 4, 5, 6).float().contiguous(memory_format=CHANNELS_LAST)
    x[0, 3, 1, 2, 3] = far
    wanted = ops.norm_act(x.double(), 0.1, backend="reference")
    torch.testing.assert_close(ops.norm_act(x, 0.1).double(), wanted, rtol=1e-5, atol=1e-5)


def test_an_axis_of_one_voxel_may_have_any_stride():
    x = uniform(1, 9, 9, 2, 1).contiguous(memory_format=CHANNELS_LAST)
    x = x.as_strided(x.shape, (162, 1, 18, 9, 162))
    wanted = ops.norm_act(x.contiguous().clone(), 0.5)
    for backend in BOTH:
        leaf = x.detach().requires_grad_()
        out = ops.norm_act(leaf, 0.5, backend=backend)
        torch.testing.assert_close(out, wanted)
        plain = x.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        seeds = torch.arange(162.0).double().reshape(x.shape).cos()
        (found,) = torch.autograd.grad(out, leaf, seeds)
        other = ops.norm_act(plain, 0.5, backend="native")
        torch.testing.assert_close(found, torch.autograd.grad(other, plain, seeds)[0])


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("size", [(2, 9, 5), (2, 2, 2), (2, 5, 7)])
def test_gradients_of_bfloat16_volumes_of_two_planes(size, backend):
    x, weight = uniform(1, 9, *size), uniform(3, 9, 3, 3, 3, seed=1)
    wide = [x.bfloat16().double(), weight.bfloat16().double().requires_grad_()]
    (wanted,) = torch.autograd.grad(F.conv3d(*wide, padding=1).sum(), wide[1])
    for _ in range(10):
        junk = [torch.full((n,), float("nan")) for n in (64, 256, 1024, 4096)]
        del junk
        leaf = weight.bfloat16().requires_grad_()
        out = ops.convolve(x.bfloat16(), leaf, torch.zeros(3).bfloat16(), backend=backend)
        (found,) = torch.autograd.grad(out.sum(), leaf)
        torch.testing.assert_close(found.double(), wanted, rtol=0.02, atol=0.3)


def test_empty_axes():
    flow = torch.zeros(1, 3, 0, 1, 3)
    for backend in BOTH:
        assert ops.gradient_loss(flow, backend) == 0
        assert ops.attention(*[torch.zeros(1, 0, 2)] * 3, 1.0, 2, backend=backend).shape == (
            1, 0, 2
        )  # fmt: skip
        assert ops.pool(torch.zeros(1, 0, 4, 4, 4), "max", backend)[0].shape == (1, 0, 2, 2, 2)
        for size in ((0, 1, 4, 4, 4), (1, 0, 4, 4, 4), (1, 2, 4, 0, 4)):
            assert ops.norm_act(torch.zeros(size), backend=backend).shape == size
        with pytest.raises(ValueError, match="only the batch may be empty, got 1 inputs"):
            ops.convolve(
                torch.zeros(1, 1, 0, 2, 2), torch.zeros(1, 1, 3, 3, 3), torch.zeros(1),
                backend=backend,
            )  # fmt: skip

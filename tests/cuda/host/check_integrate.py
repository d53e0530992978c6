"""The kernels of integrate, run on the host, against the reference in float64."""

from __future__ import annotations

import host_integrate
import pytest
import torch
from ops_checks import kink_free, uniform

from lganet_fast.ops import reference
from lganet_fast.ops.memory_format import empty_in_format_of

LAYOUTS = {
    "contiguous": torch.Tensor.contiguous,
    "channels_last_3d": lambda x: x.contiguous(memory_format=torch.channels_last_3d),
    "strided": lambda x: torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0],
}
TOLERANCES = {torch.float64: 1e-11, torch.float32: 2e-5}
SMALL, LARGE = (3, 4, 9), (5, 6, 19)  # fewer and more voxels than run at once


def close(actual, expected, tolerance):
    """Compare values relative to the largest."""
    assert ((actual.double() - expected).abs().max() / expected.abs().max()).item() <= tolerance


def velocity_of(size, number_type, layout, batch=2):
    whole = kink_free(uniform(batch, 3, *size, seed=2, low=-3, high=3))
    return LAYOUTS[layout](whole.to(number_type))


def filled(velocity, value):
    return empty_in_format_of(velocity, *velocity.shape).fill_(value)


def stepwise(velocity, steps, wide=False):
    """The fields in between, a launch for each."""
    fields, scale = [velocity], 2.0**-steps
    for _ in range(steps):
        to = filled(velocity, torch.nan)
        host_integrate.square(fields[-1], to, scale, wide)
        fields.append(to)
        scale = 1.0
    return fields


def backward(velocity, grad, steps, fixed=False, wide=False):
    """The gradient to the velocity, from the fields in between."""
    for index, field in reversed(list(enumerate(stepwise(velocity, steps, wide)[:-1]))):
        to = filled(velocity, 0)
        whole = torch.zeros(velocity.numel() + 1, dtype=torch.int64) if fixed else None
        scale = 2.0**-steps if index == 0 else 1.0
        host_integrate.square_backward(field, grad, to, whole, scale, wide)
        grad = to
    return grad


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("number_type", TOLERANCES)
def test_one_launch(number_type, layout, steps):
    velocity = velocity_of(SMALL, number_type, layout)
    result, spare = filled(velocity, torch.nan), filled(velocity, torch.nan)
    assert host_integrate.integrate(velocity, result, spare, 2.0**-steps, steps)
    close(result, reference.integrate(velocity.double(), steps), TOLERANCES[number_type])
    assert torch.equal(result, stepwise(velocity, steps)[-1])


def test_more_than_one_launch_holds():
    velocity = velocity_of(LARGE, torch.float32, "contiguous")
    assert not host_integrate.integrate(velocity, velocity, velocity, 0.5, 1)


@pytest.mark.parametrize(("fixed", "wide"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("number_type", TOLERANCES)
def test_launch_for_each_step(number_type, layout, fixed, wide):
    steps = 3
    velocity = velocity_of(SMALL, number_type, layout, batch=1)
    grad = LAYOUTS[layout](uniform(*velocity.shape, seed=5).to(number_type))
    leaf = velocity.double().requires_grad_()
    out = reference.integrate(leaf, steps)
    (right,) = torch.autograd.grad(out, leaf, grad.double())
    tolerance = TOLERANCES[number_type]
    close(stepwise(velocity, steps, wide)[-1], out.detach(), tolerance)
    found = backward(velocity, grad, steps, fixed, wide)
    close(found, right, max(tolerance, 1e-9 if fixed else 0))
    if fixed:
        assert torch.equal(found, backward(velocity, grad, steps, fixed, wide))


@pytest.mark.parametrize("size", [(1, 1, 1), (4, 3, 1), (1, 2, 5)])
def test_thin_volumes(size):
    velocity = velocity_of(size, torch.float64, "contiguous")
    grad = uniform(*velocity.shape, seed=5)
    leaf = velocity.clone().requires_grad_()
    out = reference.integrate(leaf, 3)
    (right,) = torch.autograd.grad(out, leaf, grad)
    result, spare = filled(velocity, torch.nan), filled(velocity, torch.nan)
    assert host_integrate.integrate(velocity, result, spare, 2.0**-3, 3)
    close(result, out.detach(), 1e-11)
    close(backward(velocity, grad, 3), right, 1e-11)

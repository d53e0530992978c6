"""The compiled integrate: against the reference, and as an operator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ops_checks import LAYOUTS, close, needs_native, uniform, values_and_gradients
from scipy.ndimage import gaussian_filter

from lganet_fast.ops import integrate

pytestmark = needs_native


def smooth(*size, seed=0, peak=1.0):
    velocity = gaussian_filter(uniform(1, 3, *size, seed=seed).numpy(), (0, 0, 2, 2, 2))
    return torch.from_numpy(peak * velocity / np.abs(velocity).max())


def check_both(operation, *inputs, tolerances):
    """Compare values and gradients, the last argument of `operation` being the backend."""
    results = [
        values_and_gradients(lambda *xs, name=name: operation(*xs, name), *inputs)
        for name in ("native", "reference")
    ]
    values, gradients = tolerances
    most = [values] + [gradients] * len(inputs)
    for actual, expected, tolerance in zip(*results, most, strict=True):
        assert actual.dtype == expected.dtype
        close(actual, expected.double(), tolerance * max(1, expected.abs().max().item()))


@pytest.mark.parametrize("layout", ["contiguous", *LAYOUTS])
@pytest.mark.parametrize(
    ("size", "steps"),
    [
        ((5, 6, 19), 0),
        ((5, 6, 19), 1),
        ((9, 6, 8), 4),
        ((6, 5, 9), 7),
        ((4, 3, 1), 5),
        ((1, 1, 1), 2),
    ],
)
def test_compiled_against_reference(size, steps, layout):
    """Steps around the number of fields that the backward holds."""
    velocity = torch.cat([smooth(*size, seed=s, peak=3) for s in (1, 2)]) + 0.0123
    velocity = LAYOUTS.get(layout, torch.Tensor.contiguous)(velocity)

    def run(v, name):
        return integrate(v, steps, name)

    check_both(run, velocity, tolerances=(1e-12, 1e-10))
    check_both(run, velocity.float(), tolerances=(2e-5, 1e-4))


def test_compiled_against_reference_with_many_steps():
    velocity = smooth(4, 5, 6, peak=2) + 0.0123
    check_both(lambda v, name: integrate(v, 19, name), velocity, tolerances=(1e-12, 1e-10))


def test_operator_is_well_formed():
    velocity = smooth(3, 4, 9).requires_grad_()
    torch.library.opcheck(torch.ops.lganet_fast.integrate, (velocity, 3))
    torch.library.opcheck(
        torch.ops.lganet_fast.integrate_backward, (velocity.detach(), velocity.detach(), 3)
    )

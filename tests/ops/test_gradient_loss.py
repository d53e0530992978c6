"""Gradient loss: the mean squared forward difference of a flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ops_checks import (
    BACKENDS,
    LAYOUTS,
    check_compiles,
    check_gradient_strictly,
    check_same,
    needs_native,
    uniform,
    values_and_gradients,
)

from lganet_fast.ops import gradient_loss


@pytest.mark.parametrize("backend", BACKENDS)
def test_is_the_mean_squared_forward_difference(backend):
    flow = uniform(2, 3, 5, 6, 19)
    parts = [np.square(np.diff(flow.numpy(), axis=axis)).mean() for axis in (2, 3, 4)]
    assert gradient_loss(flow, backend).item() == pytest.approx(np.mean(parts), rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(1, 4, 1), (1, 1, 1), (2, 1, 3)])
def test_an_axis_of_one_voxel_adds_nothing(size, backend):
    flow = uniform(1, 3, *size)
    parts = [np.square(np.diff(flow.numpy(), axis=axis)) for axis in (2, 3, 4)]
    expected = sum(p.mean() for p in parts if p.size) / 3
    assert gradient_loss(flow, backend).item() == pytest.approx(expected, rel=1e-12)
    assert gradient_loss(torch.zeros(0, 3, *size), backend).item() == 0


@needs_native
@pytest.mark.parametrize("layout", ["contiguous", *LAYOUTS])
@pytest.mark.parametrize("size", [(5, 6, 19), (3, 2, 40), (1, 1, 7), (4, 1, 1)])
def test_compiled_against_reference(size, layout):
    flow = LAYOUTS.get(layout, torch.Tensor.contiguous)(uniform(2, 3, *size))
    for kind, tolerances in ((torch.float64, (1e-12, 1e-10)), (torch.float32, (2e-6, 2e-6))):
        pair = [
            values_and_gradients(lambda v, name=name: gradient_loss(v, name), flow.to(kind))
            for name in ("native", "reference")
        ]
        check_same(*pair, tolerances)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient(backend):
    check_gradient_strictly(lambda x: gradient_loss(x, backend), uniform(1, 3, 3, 4, 2))


@needs_native
def test_operator_is_well_formed():
    flow = uniform(1, 3, 3, 4, 5).requires_grad_()
    grad = torch.ones((), dtype=torch.float64)
    torch.library.opcheck(torch.ops.lganet_fast.gradient_loss, (flow,))
    torch.library.opcheck(torch.ops.lganet_fast.gradient_loss_backward, (grad, flow.detach()))
    check_compiles(gradient_loss, flow)


def test_refuses():
    with pytest.raises(ValueError, match="flow must have shape"):
        gradient_loss(torch.zeros(1, 2, 3, 4, 5))
    with pytest.raises(TypeError, match="flow must be float32, float64"):
        gradient_loss(torch.zeros(1, 3, 3, 4, 5, dtype=torch.float16))

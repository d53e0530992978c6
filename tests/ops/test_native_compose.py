"""The compiled compose: against the reference, and as an operator."""

from __future__ import annotations

import pytest
import torch
from ops_checks import (
    LAYOUTS,
    close,
    kink_free,
    needs_native,
    uniform,
    values_and_gradients,
)

from lganet_fast.ops import compose

pytestmark = needs_native

SIZES = [(5, 6, 19), (3, 4, 1), (1, 1, 1)]


def flows(*size, batch=2, reach=2.0):
    return tuple(
        kink_free(uniform(batch, 3, *size, seed=s, low=-reach, high=reach)) for s in (1, 2)
    )


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
@pytest.mark.parametrize("size", SIZES)
def test_compiled_against_reference(size, layout):
    lay = LAYOUTS.get(layout, torch.Tensor.contiguous)
    first, second = (lay(f) for f in flows(*size))
    check_both(compose, first, second, tolerances=(1e-12, 1e-10))
    check_both(compose, first.float(), second.float(), tolerances=(2e-5, 2e-5))


def test_operator_is_well_formed():
    first, second = flows(3, 4, 9)
    leaves = first.requires_grad_(), second.requires_grad_()
    torch.library.opcheck(torch.ops.lganet_fast.compose, leaves)
    for asked in [(True, True), (True, False), (False, True)]:
        torch.library.opcheck(
            torch.ops.lganet_fast.compose_backward,
            (uniform(*first.shape), first.detach(), second.detach(), *asked),
        )


def test_no_second_derivative():
    first, second = (f.requires_grad_() for f in flows(2, 3, 4))
    (grad,) = torch.autograd.grad(
        compose(first, second, backend="native").sum(), first, create_graph=True
    )
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()

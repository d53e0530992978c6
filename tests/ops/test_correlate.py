"""ops.correlate against explicit loops."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_checks import (
    BACKENDS,
    LAYOUTS,
    check_compiles,
    check_gradient_strictly,
    check_same,
    close,
    uniform,
    values_and_gradients,
)

from lganet_fast.ops import correlate, use_backend


@pytest.fixture(autouse=True, scope="module", params=BACKENDS)
def backend(request):
    with use_backend(request.param):
        yield request.param


def inputs(*shape):
    return uniform(*shape, seed=1), uniform(*shape, seed=2)


def oracle(x, y, radius, step=1):
    batch, _, *size = x.shape
    margin = (y.shape[2] - x.shape[2]) // 2
    offsets = list(product(range(-radius * step, radius * step + 1, step), repeat=3))
    out = np.zeros((batch, len(offsets), *size))
    for n, offset in enumerate(offsets):
        for p in np.ndindex(*size):
            q = tuple(np.add(p, offset) + margin)
            if all(0 <= i < s for i, s in zip(q, y.shape[2:], strict=True)):
                out[(slice(None), n, *p)] = (x[(..., *p)] * y[(..., *q)]).mean(1)
    return out


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 3), (1, 1, 1, 4, 5), (1, 2, 1, 1, 1)])
def test_values(shape, radius):
    x, y = inputs(*shape)
    close(correlate(x, y, radius), oracle(x.numpy(), y.numpy(), radius))


@pytest.mark.parametrize(("radius", "step", "margin"), [(1, 2, 2), (1, 3, 0), (2, 1, 1), (1, 1, 3)])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 3), (1, 1, 1, 4, 5)])
def test_steps_and_margins(shape, radius, step, margin):
    x = uniform(*shape, seed=1)
    y = uniform(*shape[:2], *(n + 2 * margin for n in shape[2:]), seed=2)
    found = correlate(x, y, radius, step=step)
    close(found, oracle(x.numpy(), y.numpy(), radius, step))
    check_same(*(values_and_gradients(f, x, y) for f in stepped(radius, step)), 3 * [1e-12])


@pytest.mark.parametrize("shape", [(0, 3, 4, 5, 3), (1, 2, 0, 4, 5)])
def test_steps_over_nothing(shape):
    x = torch.zeros(shape)
    assert correlate(x, x, step=2).shape == (shape[0], 27, *shape[2:])


def stepped(radius, step):
    """The path that is tested, and the reference."""
    return [
        lambda x, y, name=name: correlate(x, y, radius, name, step=step)
        for name in (None, "reference")
    ]


def test_gradient_with_steps_and_margin():
    x, y = uniform(1, 2, 1, 2, 2, seed=1), uniform(1, 2, 5, 6, 6, seed=2)
    check_gradient_strictly(lambda x, y: correlate(x, y, step=2), x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_types(dtype):
    """Products and sums in float32, one rounding at the end."""
    x, y = (t.to(dtype) for t in inputs(1, 16, 4, 3, 5))
    out = correlate(x, y)
    assert out.dtype == dtype
    exact = oracle(x.double().numpy(), y.double().numpy(), 1)
    close(out, exact, 2e-5 + torch.finfo(dtype).eps / 2 * np.abs(exact).max())


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 9999),
    radius=st.integers(1, 2),
    size=st.tuples(*[st.integers(1, 5)] * 3),
)
def test_opposite_offsets_mirror(seed, radius, size):
    """corr(x, y)[o](p) = corr(y, x)[-o](p + o), and -o has the mirrored place in the list."""
    x, y = uniform(1, 2, *size, seed=seed), uniform(1, 2, *size, seed=seed + 1)
    there, back = correlate(x, y, radius)[0], correlate(y, x, radius)[0].flip(0)
    for n, offset in enumerate(product(range(-radius, radius + 1), repeat=3)):
        here = tuple(slice(max(0, -o), max(0, s - o)) for o, s in zip(offset, size, strict=True))
        far = tuple(slice(max(0, o), max(0, s + o)) for o, s in zip(offset, size, strict=True))
        close(there[n][here], back[n][far])


def test_gradient():
    check_gradient_strictly(correlate, *inputs(1, 2, 1, 2, 2))


def test_second_derivative(backend):
    leaves = [t.requires_grad_() for t in inputs(1, 2, 2, 2, 1)]
    if backend == "reference":
        torch.autograd.gradgradcheck(correlate, leaves)
        return
    grad = torch.autograd.grad(correlate(*leaves).sum(), leaves[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


def test_zeros_behind_the_offsets():
    x, y = inputs(2, 3, 3, 4, 5)
    out = correlate(x, y, width=32)
    close(out[:, :27], correlate(x, y))
    assert out.shape[1] == 32
    assert (out[:, 27:] == 0).all()
    check_gradient_strictly(lambda x, y: correlate(x, y, width=28), *inputs(1, 2, 1, 2, 2))


def test_compiles():
    check_compiles(correlate, *inputs(2, 3, 3, 4, 5))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    x, y = inputs(2, 3, 3, 4, 5)
    close(correlate(LAYOUTS[layout](x), LAYOUTS[layout](y)), correlate(x, y))


@pytest.mark.parametrize("shape", [(0, 2, 3, 4, 5), (1, 2, 0, 4, 5)])
def test_empty(shape):
    leaves = [t.requires_grad_() for t in inputs(*shape)]
    out = correlate(*leaves)
    out.sum().backward()
    assert out.shape == (shape[0], 27, *shape[2:])
    assert all(leaf.grad.shape == shape for leaf in leaves)


def test_gradients_only_where_asked_for():
    x, y = inputs(1, 2, 3, 4, 3)
    _, *both = values_and_gradients(correlate, x, y)
    for i, expected in enumerate(both):
        leaves = [x.clone(), y.clone()]
        leaves[i].requires_grad_()
        out = correlate(*leaves)
        out.backward(uniform(*out.shape, seed=9))
        close(leaves[i].grad, expected)
        assert leaves[1 - i].grad is None


def test_not_a_number_reaches_only_its_neighbours():
    x, y = inputs(1, 2, 7, 7, 7)
    y[0, 0, 3, 3, 3] = torch.nan
    bad = correlate(x, y).isnan().any(1)[0]
    assert bad[2:5, 2:5, 2:5].all()
    assert bad.sum() == 27


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(2, 3, 3, 3)}, ValueError, r"x must have shape \(B, C, H, W, D\)"),
        ({"x": torch.zeros(1, 2, 3, 3, 3).long()}, TypeError, "x must be .* got int64"),
        ({"y": torch.zeros(1, 3, 3, 3, 3)}, ValueError, r"y must have shape \(1, 2, 3, 3, 3\)"),
        ({"y": torch.zeros(1, 2, 3, 3, 3).double()}, TypeError, "y must be float32, got float64"),
        ({"y": torch.zeros(1, 2, 3, 3, 3, device="meta")}, ValueError, "y must be on x's device"),
        ({"radius": 0}, ValueError, "radius must be an integer of at least 1, got 0"),
        ({"step": 0}, ValueError, "step must be an integer of at least 1, got 0"),
        ({"y": torch.zeros(1, 2, 5, 5, 4)}, ValueError, r"y must have shape \(1, 2, 5, 5, 5\)"),
        ({"width": 26}, ValueError, "width must be an integer of at least 27, got 26"),
    ],
)
def test_errors(change, error, message):
    good = dict.fromkeys("xy", torch.zeros(1, 2, 3, 3, 3))
    correlate(**good)
    with pytest.raises(error, match=message):
        correlate(**good | change)

"""ops.local_ncc against direct sums over boxes."""

from __future__ import annotations

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
    close,
    uniform,
    values_and_gradients,
)

from lganet_fast.ops import local_ncc, use_backend


@pytest.fixture(autouse=True, scope="module", params=BACKENDS)
def backend(request):
    with use_backend(request.param):
        yield request.param


def images(*shape):
    return uniform(*shape, seed=1, low=0), uniform(*shape, seed=2, low=0)


def oracle_map(a, b, window):
    """The squared correlation at each voxel, the window cut out of zero-padded float64 arrays."""
    reach = window // 2
    pad = [(0, 0)] * 2 + [(reach, reach)] * 3
    a, b = (np.pad(np.asarray(t.detach().double()), pad) for t in (a, b))
    size = [n - 2 * reach for n in a.shape[2:]]
    out = np.empty((*a.shape[:2], *size))
    for n, c, *p in np.ndindex(*out.shape):
        box = (n, c, *[slice(i, i + window) for i in p])
        i, j = a[box] - a[box].mean(), b[box] - b[box].mean()
        out[(n, c, *p)] = (i * j).sum() ** 2 / ((i * i).sum() * (j * j).sum() + 1e-5)
    return out


@pytest.mark.parametrize("window", [1, 3, 5, 9])
@pytest.mark.parametrize("shape", [(1, 1, 7, 6, 5), (2, 2, 1, 4, 3), (1, 1, 1, 1, 1)])
def test_values(shape, window):
    a, b = images(*shape)
    close(local_ncc(a, b, window), oracle_map(a, b, window).mean())


def test_weight():
    (a, b), weight = images(2, 2, 4, 5, 3), uniform(2, 1, 4, 5, 3, seed=4, low=0)
    full = np.broadcast_to(weight.numpy(), a.shape)
    close(local_ncc(a, b, 3, weight), (oracle_map(a, b, 3) * full).sum() / full.sum())
    close(local_ncc(a, b, 3, torch.full_like(weight, 0.3)), local_ncc(a, b, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_types_compute_in_single_precision(dtype):
    a, b = (t.to(dtype) for t in images(1, 1, 9, 10, 11))
    out = local_ncc(a, b)
    assert out.dtype == torch.float32
    close(out, oracle_map(a, b, 9).mean(), 2e-5)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 9999),
    window=st.sampled_from([3, 5]),
    size=st.tuples(*[st.integers(1, 6)] * 3),
)
def test_bounds_and_symmetry(seed, window, size):
    a, b = (uniform(1, 1, *size, seed=seed + i, low=0) for i in range(2))
    value = local_ncc(a, b, window).item()
    assert 0 <= value <= 1
    assert value == pytest.approx(local_ncc(b, a, window).item(), abs=1e-12)


def test_linearly_related_images_agree():
    a, _ = images(1, 1, 6, 7, 8)
    close(local_ncc(a, -3 * a), np.ones(()), 1e-4)


LEVELS = [0.0, 0.3, 0.7, 0.9, 1.0, -0.6]


@pytest.mark.parametrize("texture", [0.0, 0.02, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("level", LEVELS)
def test_constant_region_in_single_precision(level, texture):
    """Rounding makes the variance there anything near zero, below it too: no NaN and no pole."""
    constant = torch.full((1, 1, 24, 24, 24), level)
    noise = 0.3 + texture * uniform(*constant.shape, low=0).float()
    for pair in ((constant, noise), (noise, constant)):
        leaves = [t.clone().requires_grad_() for t in pair]
        value = local_ncc(*leaves)
        value.backward()
        exact = local_ncc(*(t.double() for t in pair)).item()
        assert value.item() == pytest.approx(exact, abs=2e-3)
        assert 0 <= value.item() <= 1
        assert all(leaf.grad.isfinite().all() for leaf in leaves)


def test_constant_region_has_no_nan_in_double():
    a, b = images(1, 1, 8, 8, 8)
    a[..., :5], b[..., :6] = 0, 0.25
    a.requires_grad_()
    value = local_ncc(a, b, 3)
    value.backward()
    close(value, oracle_map(a, b, 3).mean())
    assert a.grad.isfinite().all()


def test_gradient():
    check_gradient_strictly(lambda a, b: local_ncc(a, b, 3), *images(1, 2, 2, 3, 2))


def test_gradient_with_weight():
    weight = uniform(1, 1, 2, 3, 2, seed=4, low=0)
    check_gradient_strictly(lambda a, b: local_ncc(a, b, 3, weight), *images(1, 2, 2, 3, 2))


def test_second_derivative(backend):
    leaves = [t.requires_grad_() for t in images(1, 1, 2, 3, 2)]
    if backend == "reference":
        torch.autograd.gradgradcheck(lambda a, b: local_ncc(a, b, 3), leaves)
        return
    grad = torch.autograd.grad(local_ncc(*leaves, 3), leaves[1], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


def test_compiles():
    check_compiles(local_ncc, *images(1, 2, 5, 4, 6))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    a, b = images(2, 2, 3, 4, 5)
    close(local_ncc(LAYOUTS[layout](a), LAYOUTS[layout](b), 3), local_ncc(a, b, 3))


def test_gradients_only_where_asked_for():
    a, b = images(1, 2, 5, 4, 6)
    _, *both = values_and_gradients(lambda a, b: local_ncc(a, b, 3), a, b)
    for i, expected in enumerate(both):
        leaves = [a.clone(), b.clone()]
        leaves[i].requires_grad_()
        out = local_ncc(*leaves, 3)
        out.backward(uniform(seed=9))
        close(leaves[i].grad, expected, 1e-16)
        assert leaves[1 - i].grad is None


def test_empty():
    a, b = (t.requires_grad_() for t in images(0, 1, 4, 4, 4))
    value = local_ncc(a, b, 3)
    value.backward()
    assert value.isnan()
    assert b.grad.shape == b.shape


def test_not_a_number_stays_in_its_windows():
    a, b = images(1, 1, 12, 12, 12)
    a[0, 0, 2, 2, 2] = torch.nan
    b.requires_grad_()
    value = local_ncc(a, b, 3)
    value.backward()
    assert value.isnan()
    assert b.grad[..., :5, :5, :5].isnan().any()
    assert b.grad[..., 5:, :, :].isfinite().all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"a": torch.zeros(1, 4, 4, 4)}, ValueError, r"a must have shape \(B, C, H, W, D\)"),
        ({"a": torch.zeros(1, 1, 4, 4, 4).byte()}, TypeError, "a must be .* got uint8"),
        ({"b": torch.zeros(1, 1, 4, 4, 5)}, ValueError, r"b must have shape \(1, 1, 4, 4, 4\)"),
        ({"b": torch.zeros(1, 1, 4, 4, 4).double()}, TypeError, "b must be float32, got float64"),
        ({"b": torch.zeros(1, 1, 4, 4, 4, device="meta")}, ValueError, "b must be on a's device"),
        ({"window": 0}, ValueError, "window must be an integer of at least 1, got 0"),
        ({"window": 4}, ValueError, "window must be odd, got 4"),
        ({"weight": torch.zeros(1, 2, 4, 4, 4)}, ValueError, "weight must have shape"),
        ({"weight": torch.zeros(1, 1, 4, 4, 4, device="meta")}, ValueError, "weight must be on"),
    ],
)
def test_errors(change, error, message):
    good = dict.fromkeys("ab", torch.zeros(1, 1, 4, 4, 4))
    local_ncc(**good)
    with pytest.raises(error, match=message):
        local_ncc(**good | change)

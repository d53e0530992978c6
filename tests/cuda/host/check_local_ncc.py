"""The kernels of local_ncc, run on the host, against the reference in float64."""

from __future__ import annotations

import functools
import math
import tempfile

import host_local_ncc
import pytest
import torch
from ops_checks import CHANNELS_LAST, LAYOUTS, WRONG_GRADIENTS, uniform

from lganet_fast.ops import reference
from lganet_fast.ops.local_ncc import result_type, results_like

TOLERANCES = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 2e-5, torch.float16: 2e-5}
SHAPES = [
    (1, 1, 1, 1, 1),
    (1, 1, 7, 6, 5),
    (2, 2, 1, 4, 3),
    (1, 1, 3, 1, 18),
    (1, 2, 5, 18, 17),  # four tiles
    (1, 1, 37, 3, 2),  # three walks
]


@functools.cache
def case(shape, window, weighted=False, dtype=torch.float32):
    """Images and weight, with the value and gradients of the reference in float64."""
    high = 1 if max(shape) > 1 else 0.1  # the gradient to a single bright voxel is all rounding
    a, b = (uniform(*shape, seed=seed, low=0, high=high).to(dtype) for seed in (1, 2))
    weight = (
        uniform(shape[0], 1, *shape[2:], seed=4, low=0).to(result_type(a)) if weighted else None
    )
    leaves = [x.double().requires_grad_() for x in (a, b)]
    value = reference.local_ncc(*leaves, window, weight if weight is None else weight.double())
    return a, b, weight, (value.detach(), *torch.autograd.grad(value, leaves))


def run(a, b, window, weight=None, need=(True, True)):
    """What the operator finds: the value and the gradients that are needed."""
    _, *grads = results_like(a, b, weight, window, *need)
    grads = [grad.fill_(torch.nan) if n else None for grad, n in zip(grads, need, strict=True)]
    return host_local_ncc.local_ncc(a, b, weight, window, *grads), *grads


def differs(actual, expected, tolerance):
    """Whether values differ, relative to the largest."""
    actual, expected = torch.as_tensor(actual, dtype=torch.float64), expected.double()
    assert actual.shape == expected.shape
    off = (actual - expected).abs().max() / expected.abs().max().clamp(min=1e-30)
    return not off <= tolerance  # a NaN differs too


def check(found, expected, tolerance):
    for x, y in zip(found, expected, strict=True):
        if x is not None:
            assert not differs(x, y, tolerance)


@pytest.mark.parametrize("window", [1, 3, 5, 7, 9, 11])
@pytest.mark.parametrize("shape", SHAPES)
def test_against_the_reference(shape, window):
    a, b, weight, expected = case(shape, window)
    check(run(a, b, window, weight), expected, TOLERANCES[torch.float32])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("window", [3, 9, 13])
def test_types(dtype, window):
    a, b, weight, expected = case((1, 2, 9, 6, 5), window, True, dtype)
    check(run(a, b, window, weight), expected, TOLERANCES[dtype])


@pytest.mark.parametrize("window", [5, 11])
@pytest.mark.parametrize("need", [(False, False), (True, False), (False, True)])
def test_gradients_only_where_needed(need, window):
    a, b, weight, expected = case((1, 2, 9, 6, 5), window, True)
    check(run(a, b, window, weight, need), expected, TOLERANCES[torch.float32])


def test_where_boxes_go_through_memory():
    assert [w for w in range(1, 20, 2) if host_local_ncc.is_walked(w)] == [3, 5, 7, 9]


@pytest.mark.parametrize("window", [3, 11])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, window):
    a, b, weight, expected = case((2, 3, 4, 5, 6), window, True)
    mixed = LAYOUTS[layout](a), b, LAYOUTS[layout](weight)
    check(run(*mixed[:2], window, mixed[2]), expected, TOLERANCES[torch.float32])
    a, b = (LAYOUTS[layout](x) for x in (a, b))
    found = run(a, b, window, weight)
    check(found, expected, TOLERANCES[torch.float32])
    if layout == "channels_last_3d":
        assert all(grad.is_contiguous(memory_format=CHANNELS_LAST) for grad in found[1:])


@pytest.mark.parametrize("window", [3, 11])
def test_volumes_beyond_31_bits(window):
    """Planes 2^30 numbers apart, in a file with holes."""
    a, b, weight, expected = case((1, 1, 5, 4, 3), window, True)

    def far_apart(x):
        with tempfile.NamedTemporaryFile() as file:
            file.truncate(4 * (5 << 30))
            storage = torch.from_file(file.name, shared=True, size=5 << 30, dtype=x.dtype)
        spread = storage.as_strided(x.shape, (5 << 30, 5 << 30, 1 << 30, 3, 1))
        return spread.copy_(x)

    a, b, weight = (far_apart(x) for x in (a, b, weight))
    grads = [far_apart(torch.full(a.shape, torch.nan)) for _ in range(2)]
    value = host_local_ncc.local_ncc(a, b, weight, window, *grads)
    check((value, *grads), expected, TOLERANCES[torch.float32])


@pytest.mark.parametrize("level", [1e6 + 0.3, 12345.6])
@pytest.mark.parametrize("window", [3, 9, 11])
def test_flat_background_of_any_intensity_has_no_noise(window, level):
    a = torch.full((1, 1, 21, 18, 19), level)
    reach = window // 2
    inside = torch.zeros_like(a)
    inside[..., reach:-reach, reach:-reach, reach:-reach] = 1
    value, *grads = run(a, a * 1.7, window, inside)
    assert value == 0
    assert all((grad == 0).all() for grad in grads)


@pytest.mark.parametrize("window", [3, 9])
@pytest.mark.parametrize("level", [0.0, 0.3, -0.6, 1.0])
def test_constant_region_beside_texture(level, window):
    a = torch.full((1, 1, 14, 13, 15), level)
    b = 0.3 + 0.05 * uniform(*a.shape, seed=5).float()
    for pair in ((a, b), (b, a)):
        value, *grads = run(*pair, window)
        exact = reference.local_ncc(*(x.double() for x in pair), window).item()
        assert value == pytest.approx(exact, abs=2e-3)
        assert 0 <= value <= 1
        assert all(grad.isfinite().all() for grad in grads)


def test_texture_on_a_high_level():
    """Moments do not cancel: sums of squares in single precision would keep no digit."""
    a, b = (1e3 + uniform(1, 1, 12, 13, 14, seed=seed, low=0).float() for seed in (1, 2))
    inside = torch.zeros_like(a)
    inside[..., 2:-2, 2:-2, 2:-2] = 1
    leaves = [x.double().requires_grad_() for x in (a, b)]
    value = reference.local_ncc(*leaves, 5, inside.double())
    expected = (value.detach(), *torch.autograd.grad(value, leaves))
    check(run(a, b, 5, inside), expected, 2e-3)


def test_not_a_number_stays_in_its_windows():
    a, b = (uniform(1, 1, 12, 12, 12, seed=seed, low=0).float() for seed in (1, 2))
    a[0, 0, 2, 2, 2] = torch.nan
    value, _, grad = run(a, b, 3)
    assert math.isnan(value)
    assert grad[..., :5, :5, :5].isnan().any()
    assert grad[..., 5:, :, :].isfinite().all()


@pytest.mark.parametrize("window", [3, 9, 11])
def test_what_overflows_is_no_number(window):
    """Variances of 1e21 are finite in float32, their product is not."""
    a, b = (1e11 * uniform(1, 1, 12, 12, 12, seed=seed, low=0).float() for seed in (1, 2))
    value, *grads = run(a, b, window)
    assert math.isnan(value)
    assert all((grad == 0).all() for grad in grads)


def test_results_repeat():
    a, b, *_ = case((1, 2, 5, 18, 17), 5)
    (value, *grads), (other, *others) = run(a, b, 5), run(a, b, 5)
    assert value == other
    assert all(torch.equal(x, y) for x, y in zip(grads, others, strict=True))


@pytest.mark.parametrize("name", WRONG_GRADIENTS)
def test_a_wrong_gradient_is_refused(name):
    a, b, _, expected = case((1, 1, 7, 6, 5), 9)
    for x, y in zip(run(a, b, 9)[1:], expected[1:], strict=True):
        assert differs(WRONG_GRADIENTS[name](x), y, TOLERANCES[torch.float32])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("start", "count"), [(0, 1), (0, 4096), (0, 1027), (1, 1030)])
def test_scaling(dtype, start, count):
    source = uniform(start + count, seed=3).to(torch.promote_types(dtype, torch.float32))[start:]
    by = torch.tensor(0.3, dtype=source.dtype)
    out = torch.full((start + count + 1,), 7, dtype=dtype)
    host_local_ncc.multiply(source, by, out[start:-1])
    assert torch.equal(out[start:-1], (source * by).to(dtype))
    assert (out[:start] == 7).all()
    assert out[-1] == 7

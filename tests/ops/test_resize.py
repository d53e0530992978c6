"""Resize: trilinear interpolation on another grid, corners aligned."""

from __future__ import annotations

import pytest
import torch
from ops_checks import (
    BACKENDS,
    LAYOUTS,
    check_compiles,
    check_gradient_strictly,
    check_same,
    close,
    needs_native,
    uniform,
    values_and_gradients,
)
from scipy.interpolate import RegularGridInterpolator

from lganet_fast.ops import resize

SIZES = [
    ((5, 6, 7), (9, 11, 13)),
    ((9, 11, 13), (5, 6, 7)),
    ((4, 5, 3), (4, 5, 3)),
    ((6, 3, 37), (11, 6, 74)),
    ((3, 4, 5), (1, 9, 2)),
    ((1, 1, 1), (2, 3, 4)),
    ((1, 5, 1), (3, 2, 1)),
]


def by_scipy(x, size):
    """One volume at evenly spread points from end to end of each axis, in float64."""
    lines = [torch.arange(n + (n == 1), dtype=torch.float64).numpy() for n in x.shape]
    for axis, n in enumerate(x.shape):
        if n == 1:
            x = torch.cat([x, x], axis)
    ends = [0 if m == 1 else len(line) - 1 for m, line in zip(size, lines, strict=True)]
    at = [torch.linspace(0, e, m, dtype=torch.float64) for e, m in zip(ends, size, strict=True)]
    points = torch.stack(torch.meshgrid(*at, indexing="ij"), -1).numpy()
    return RegularGridInterpolator(lines, x.numpy())(points)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_against_scipy(old, new, backend):
    x = uniform(*old)
    close(resize(x[None, None], new, backend)[0, 0], by_scipy(x, new), 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_times_a_factor(backend):
    x = uniform(1, 3, 2, 3, 4)
    close(resize(x, (4, 6, 8), backend, factor=2.0), 2 * resize(x, (4, 6, 8), backend))
    check_gradient_strictly(lambda x: resize(x, (1, 3, 3), backend, factor=2.0), x[:, :1])


@needs_native
@pytest.mark.parametrize("layout", ["contiguous", *LAYOUTS])
@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize("channels", [1, 3, 8])
def test_compiled_against_reference(old, new, channels, layout):
    x = LAYOUTS.get(layout, torch.Tensor.contiguous)(uniform(2, channels, *old))
    exact = values_and_gradients(lambda v: resize(v, new, "reference"), x)
    for kind, tolerances in ((torch.float64, (1e-12, 1e-10)), (torch.float32, (2e-6, 2e-5))):
        found = values_and_gradients(lambda v: resize(v, new, "native"), x.to(kind))
        assert all(y.dtype == kind for y in found)
        check_same([y.double() for y in found], exact, tolerances)


@needs_native
@pytest.mark.parametrize(("kind", "ulp"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_half_types_round_once(kind, ulp):
    x = uniform(1, 3, 5, 6, 7).to(kind)
    exact = resize(x.double(), (9, 8, 20), "reference")
    assert ((resize(x, (9, 8, 20)) - exact).abs() <= ulp * exact.abs() + 1e-7).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("old", "new"), [((3, 4, 2), (5, 3, 6)), ((1, 2, 3), (2, 5, 1))])
def test_gradient(old, new, backend):
    check_gradient_strictly(lambda x: resize(x, new, backend), uniform(1, 2, *old))


def test_keeps_the_memory_format():
    x = uniform(2, 3, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d)
    assert resize(x, (8, 9, 10)).is_contiguous(memory_format=torch.channels_last_3d)
    assert resize(x.contiguous(), (8, 9, 10)).is_contiguous()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 3, 4, 5, 6), (2, 0, 4, 5, 6)])
def test_empty(shape, backend):
    value, gradient = values_and_gradients(
        lambda x: resize(x, (2, 7, 3), backend), torch.zeros(shape)
    )
    assert value.shape == (*shape[:2], 2, 7, 3)
    assert gradient.shape == shape


@needs_native
def test_operator_is_well_formed():
    x = uniform(1, 2, 3, 4, 5).requires_grad_()
    torch.library.opcheck(torch.ops.lganet_fast.resize, (x, 5, 6, 7))
    torch.library.opcheck(torch.ops.lganet_fast.resize_backward, (x.detach(), 2, 3, 4))
    check_compiles(lambda v: resize(v, (5, 6, 7)), x)


@pytest.mark.parametrize(
    ("x", "size", "error", "message"),
    [
        (torch.zeros(3, 4, 5), (2, 2, 2), ValueError, r"x must have shape \(B, C, h, w, d\)"),
        (torch.zeros(1, 1, 2, 2, 2, dtype=torch.int32), (2, 2, 2), TypeError, "x must be float32"),
        (
            torch.zeros(1, 1, 2, 2, 2),
            (2, 2),
            ValueError,
            "size must be a list or a tuple of 3, got 2",
        ),
        (torch.zeros(1, 1, 2, 2, 2), (2, 0, 2), ValueError, "size must be an integer of at least"),
        (torch.zeros(1, 1, 2, 0, 2), (2, 2, 2), ValueError, "x must hold voxels"),
    ],
)
def test_refuses(x, size, error, message):
    with pytest.raises(error, match=message):
        resize(x, size)

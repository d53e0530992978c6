"""ops.compose against scipy and against warping twice."""

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
    kink_free,
    uniform,
    warp_oracle,
)

from lganet_fast.ops import compose, use_backend, warp


@pytest.fixture(autouse=True, scope="module", params=BACKENDS)
def backend(request):
    with use_backend(request.param):
        yield request.param


def flows(*size, batch=2, reach=2.0):
    return tuple(
        kink_free(uniform(batch, 3, *size, seed=s, low=-reach, high=reach)) for s in (1, 2)
    )


@pytest.mark.parametrize("size", [(5, 6, 7), (1, 4, 5), (1, 1, 1)])
def test_values(size):
    first, second = flows(*size)
    close(compose(first, second), second.numpy() + warp_oracle(first.numpy(), second.numpy()))


def test_single_precision():
    first, second = (f.float() for f in flows(5, 6, 7))
    out = compose(first, second)
    assert out.dtype == torch.float32
    close(out, second.numpy() + warp_oracle(first.numpy(), second.numpy()), 2e-5)


def test_order():
    """Where both flows are constant, only their sum matters; else the second one moves first."""
    ramp = torch.zeros(1, 3, 8, 1, 1, dtype=torch.float64)
    ramp[0, 0, :, 0, 0] = 0.1 * torch.arange(8)
    step = torch.zeros_like(ramp)
    step[:, 0] = 2
    assert compose(ramp, step)[0, 0, 3].item() == pytest.approx(2 + 0.1 * 5)
    assert compose(step, ramp)[0, 0, 3].item() == pytest.approx(0.3 + 2)


def test_equals_warping_twice_where_the_image_is_linear():
    """Interpolating a linear image is exact, so inside the volume both agree."""
    line = torch.arange(12, dtype=torch.float64)
    image = (line[:, None, None] + 2 * line[None, :, None] - line)[None, None]
    first, second = (0.5 * f for f in flows(12, 12, 12, batch=1))
    inner = (..., *[slice(2, -2)] * 3)
    twice = warp(warp(image, first), second)
    close(warp(image, compose(first, second))[inner], twice.detach()[inner], 1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 9999), size=st.tuples(*[st.integers(1, 5)] * 3))
def test_identity_on_either_side(seed, size):
    flow = uniform(1, 3, *size, seed=seed, low=-3, high=3)
    none = torch.zeros_like(flow)
    close(compose(flow, none), flow)
    close(compose(none, flow), flow)


def test_gradient():
    check_gradient_strictly(compose, *flows(2, 3, 2, batch=1))


def test_compiles():
    check_compiles(compose, *flows(4, 5, 6))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    first, second = flows(4, 5, 6)
    lay = LAYOUTS[layout]
    close(compose(lay(first), lay(second)), compose(first, second))


def test_empty_batch():
    assert compose(*flows(4, 5, 6, batch=0)).shape == (0, 3, 4, 5, 6)


def test_mixed_types_compute_in_the_wider():
    first, second = flows(4, 5, 6)
    out = compose(first.float(), second)
    assert out.dtype == torch.float64
    close(out, compose(first.float().double(), second), 1e-6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"second": np.zeros(3)}, TypeError, "second must be a torch.Tensor, got ndarray"),
        (
            {"second": torch.zeros(3, 4, 4, 4)},
            ValueError,
            r"second must have shape \(B, 3, H, W, D\)",
        ),
        (
            {"first": torch.zeros(1, 3, 4, 4, 5)},
            ValueError,
            r"first must have shape \(1, 3, 4, 4, 4\)",
        ),
        ({"first": torch.zeros(1, 3, 4, 4, 4).bfloat16()}, TypeError, "first must be float32"),
        (
            {"first": torch.zeros(1, 3, 4, 4, 4, device="meta")},
            ValueError,
            "first must be on second's",
        ),
    ],
)
def test_errors(change, error, message):
    good = dict.fromkeys(("first", "second"), torch.zeros(1, 3, 4, 4, 4))
    compose(**good)
    with pytest.raises(error, match=message):
        compose(**good | change)

"""ops.integrate against scipy, and against what an exponential must obey."""

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
    warp_oracle,
)
from scipy.linalg import expm
from scipy.ndimage import gaussian_filter

from lganet_fast.ops import compose, integrate, use_backend


@pytest.fixture(autouse=True, scope="module", params=BACKENDS)
def backend(request):
    with use_backend(request.param):
        yield request.param


def oracle(velocity, steps):
    flow = velocity / 2**steps
    for _ in range(steps):
        flow = flow + warp_oracle(flow, flow)
    return flow


def smooth(*size, seed=0, peak=1.0):
    """A smooth velocity that fades out towards the border; largest component `peak` voxels."""
    velocity = gaussian_filter(uniform(1, 3, *size, seed=seed).numpy(), (0, 0, 3, 3, 3))
    for axis, n in enumerate(size, 2):
        velocity *= np.hanning(n + 2)[1:-1].reshape([-1 if a == axis else 1 for a in range(5)])
    return torch.from_numpy(peak * velocity / np.abs(velocity).max())


@pytest.mark.parametrize("steps", [0, 1, 7])
@pytest.mark.parametrize("size", [(5, 6, 7), (1, 4, 5), (1, 1, 1)])
def test_values(size, steps):
    velocity = uniform(2, 3, *size, low=-3, high=3)
    close(integrate(velocity, steps), oracle(velocity.numpy(), steps))


def test_single_precision():
    velocity = smooth(9, 8, 7, peak=2).float()
    out = integrate(velocity)
    assert out.dtype == torch.float32
    close(out, oracle(velocity.double().numpy(), 7), 2e-5)


@settings(max_examples=15, deadline=None)
@given(shift=st.tuples(*[st.floats(-1, 1)] * 3))
def test_constant_velocity_is_a_translation(shift):
    velocity = torch.tensor(shift, dtype=torch.float64).reshape(1, 3, 1, 1, 1).repeat(1, 1, 9, 9, 9)
    inner = (..., *[slice(3, -3)] * 3)  # each step reads at most one voxel away
    close(integrate(velocity, 3)[inner], velocity[inner])


def test_linear_velocity_is_a_matrix_exponential():
    """v(x) = A x has the flow exp(A) x - x; interpolating it is exact, squaring nearly so."""
    matrix = np.array([[-0.2, 0.1, 0.0], [-0.1, -0.3, 0.05], [0.1, 0.0, -0.25]])
    x = np.stack(np.meshgrid(*[np.arange(-5.0, 6)] * 3, indexing="ij"))
    velocity = torch.from_numpy(np.einsum("ij,jxyz->ixyz", matrix, x))[None]
    expected = np.einsum("ij,jxyz->ixyz", expm(matrix) - np.eye(3), x)[None]
    close(integrate(velocity, 12), expected, 1e-3)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 9999))
def test_negative_velocity_is_the_inverse(seed):
    velocity = smooth(14, 13, 12, seed=seed)
    forth, back = integrate(velocity), integrate(-velocity)
    for residual in (compose(forth, back), compose(back, forth)):
        assert residual.abs().max().item() < 0.15 * forth.abs().max().item()
        assert residual.abs().mean().item() < 0.05 * forth.abs().mean().item()


@pytest.mark.parametrize("steps", [0, 2])
def test_gradient(steps):
    check_gradient_strictly(lambda v: integrate(v, steps), smooth(3, 4, 3, peak=0.7) + 0.013)


def test_compiles():
    check_compiles(integrate, smooth(4, 5, 6))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    velocity = smooth(4, 5, 6)
    close(integrate(LAYOUTS[layout](velocity)), integrate(velocity))


def test_empty_batch():
    assert integrate(torch.zeros(0, 3, 4, 5, 6)).shape == (0, 3, 4, 5, 6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e38])
def test_a_velocity_that_is_no_number_crashes_nothing(bad):
    velocity = smooth(5, 6, 9).float()
    velocity[0, 0, 2, 3, 4] = bad
    velocity.requires_grad_()
    out = integrate(velocity, 3)
    out.sum().backward()
    assert out[..., 0].isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(1, 2, 4, 4, 4),), ValueError, r"velocity must have shape \(B, 3, H, W, D\)"),
        ((torch.zeros(1, 3, 4, 4, 4).half(),), TypeError, "velocity must be float32, float64"),
        ((torch.zeros(1, 3, 4, 4, 4), -1), ValueError, "steps must be an integer of at least 0"),
        ((torch.zeros(1, 3, 4, 4, 4), 1.5), ValueError, "steps must be .* got 1.5"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        integrate(*arguments)

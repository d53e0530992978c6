"""Invert: the fixed-point inverse of a displacement field."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ops_checks import BACKENDS, LAYOUTS, close, needs_native, uniform, warp_oracle
from scipy.ndimage import gaussian_filter

from lganet_fast.ops import invert

SIZE = (9, 11, 19)


def smooth(*size, seed=0, peak=1.0):
    field = gaussian_filter(uniform(1, 3, *size, seed=seed).numpy(), (0, 0, 2, 2, 2))
    return torch.from_numpy(peak * field / np.abs(field).max())


def missed(field, goal, flow):
    """The flow + field(p + flow) - goal, by scipy."""
    return (
        flow + torch.from_numpy(warp_oracle(field.numpy(), flow.numpy(), padding="border")) - goal
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_solves(kind, backend):
    field, goal = smooth(*SIZE, peak=1.2), 2 * uniform(1, 3, 5, 6, 17, seed=1)
    flow, solved = invert(
        field.to(kind), goal.to(kind), goal.to(kind), tolerance=1e-5, backend=backend
    )
    assert flow.dtype == kind
    assert solved.float().mean() > 0.95
    error = missed(field, goal, flow.double()).norm(dim=1)
    assert error[solved].max() < 2e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_metric_and_step(backend):
    """A field that doubles: the plain step diverges, its inverse as a step does not."""
    lines = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in SIZE), indexing="ij")
    field = 1.5 * (torch.stack(lines)[None] - 4)
    goal = field / 3
    half = [0.4, 0, 0, 0, 0.4, 0, 0, 0, 0.4]
    flow, solved = invert(field, goal, goal, step=half, tolerance=1e-9, backend=backend)
    assert solved.all()
    assert missed(field, goal, flow).abs().max() < 1e-9
    assert not invert(field, goal, goal, tolerance=1e-9, backend=backend)[1].all()
    loose = invert(field, goal, goal, half, 100 * np.eye(3).ravel(), 1e-7, backend=backend)[0]
    close(loose, flow, 1e-8)


@needs_native
@pytest.mark.parametrize("layout", ["contiguous", *LAYOUTS])
@pytest.mark.parametrize("size", [SIZE, (1, 1, 1), (3, 1, 8)])
def test_compiled_against_reference(size, layout):
    form = LAYOUTS.get(layout, torch.Tensor.contiguous)
    field = form(torch.cat([smooth(*SIZE, seed=s, peak=2) for s in (1, 2)]))
    goal, start = (form(3 * uniform(2, 3, *size, seed=s)) for s in (3, 4))
    results = [invert(field, goal, start, backend=name) for name in ("native", "reference")]
    assert torch.equal(results[0][1], results[1][1])
    close(results[0][0], results[1][0], 1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_and_nonsense(backend):
    field = smooth(*SIZE)
    flow, solved = invert(
        field, torch.zeros(1, 3, 0, 2, 3).double(), torch.zeros(1, 3, 0, 2, 3).double()
    )
    assert flow.shape == (1, 3, 0, 2, 3)
    assert solved.shape == (1, 0, 2, 3)
    goal = torch.full((1, 3, 2, 2, 9), torch.nan, dtype=torch.float64)
    assert not invert(field, goal, goal, backend=backend)[1].any()


@needs_native
def test_operator_is_well_formed():
    field, goal = smooth(4, 5, 6), uniform(1, 3, 2, 3, 4)
    matrix = np.eye(3).ravel().tolist()
    torch.library.opcheck(
        torch.ops.lganet_fast.invert, (field, goal, goal, matrix, matrix, 1e-3, 0.9, 4)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"goal": torch.zeros(1, 2, 3, 3, 3)}, "goal must have shape"),
        ({"start": torch.zeros(1, 3, 3, 3, 4)}, "start must have shape"),
        ({"step": (1, 2, 3)}, "step must be a list or a tuple of 9, got 3"),
        ({"field": torch.zeros(1, 3, 0, 3, 3)}, "field must hold voxels"),
    ],
)
def test_refuses(change, message):
    zeros = torch.zeros(1, 3, 3, 3, 3)
    with pytest.raises(ValueError, match=message):
        invert(**{"field": zeros, "goal": zeros, "start": zeros} | change)

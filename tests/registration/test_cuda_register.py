"""A registration on a CUDA device, against the same on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ops_checks import uniform
from synthetic import oblique_grid, synthetic_pair

from lganet_fast import register
from lganet_fast.ops import invert, native
from lganet_fast.runtime import steps
from lganet_fast.transforms.field import DisplacementField

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def registered(device, **options):
    pair = synthetic_pair(
        oblique_grid((40, 34, 44), (1.7, 2.1, 1.6), 12),
        oblique_grid((46, 40, 25), (1.5, 1.9, 3.0), -20),
    )
    volumes = {
        name: (getattr(pair, name).data, getattr(pair, name).grid.affine)
        for name in ("fixed", "moving", "fixed_labels", "moving_labels")
    }
    return register(**volumes, iterations=(15, 15, 6), device=device, **options)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_as_on_the_cpu(precision):
    results = [registered(device, precision=precision) for device in ("cpu", "cuda")]
    here, there = (r.report for r in results)
    close = 1e-4 if precision == "float64" else 0.02  # mm, in the mean; one voxel is 1.6
    for name in ("transform", "inverse"):
        fields = [getattr(result, name).displacement for result in results]
        assert np.abs(fields[0] - fields[1]).mean() < close
    assert there["labels"]["mean_dice_after"] == pytest.approx(
        here["labels"]["mean_dice_after"], abs=0.01
    )
    assert there["similarity"]["after"] == pytest.approx(here["similarity"]["after"], abs=0.005)
    assert there["similarity"]["before"] == pytest.approx(here["similarity"]["before"], abs=1e-5)
    assert there["jacobian"]["sdlogj"] == pytest.approx(here["jacobian"]["sdlogj"], abs=1e-3)
    assert there["inverse_consistency_mm"]["p99"] < 2e-3


def test_replayed_as_launched(monkeypatch):
    """The graph of an iteration gives what its launches give; it is recorded at every level."""
    recorded = []

    def record(device, step):
        recorded.append(record_as_is(device, step))
        return recorded[-1]

    record_as_is = steps.cuda_graph
    monkeypatch.setattr(steps, "cuda_graph", record)
    graphed = registered("cuda", precision="float64")
    assert len(recorded) == 3
    monkeypatch.setenv("LGANET_FAST_GRAPH", "0")
    launched = registered("cuda", precision="float64")
    assert len(recorded) == 3
    difference = graphed.transform.displacement - launched.transform.displacement
    assert np.abs(difference).max() < 1e-5


def test_fields_do_on_the_device_what_they_do_here(monkeypatch):
    monkeypatch.setattr("lganet_fast.volumes.grid.LARGE_SLAB", 20_000)
    pair = synthetic_pair()
    random = 2 * torch.nn.functional.interpolate(
        uniform(1, 3, 6, 6, 6, seed=1), size=pair.fixed.grid.shape, mode="trilinear"
    )
    there = DisplacementField(random.float().cuda(), pair.fixed.grid)
    here = DisplacementField(there.displacement.copy(), pair.fixed.grid)
    for interpolation, volume in (
        ("linear", pair.moving),
        ("nearest", pair.moving_labels),
        ("label", pair.moving_labels),
    ):
        one, other = (f.apply(volume, interpolation=interpolation).data for f in (here, there))
        assert (np.abs(one - other) > 1e-4).mean() < 1e-4
    np.testing.assert_allclose(
        here.jacobian_determinant(), there.jacobian_determinant(), atol=1e-12
    )
    inverse = there.invert(oblique_grid((46, 40, 25), (1.5, 1.9, 3.0), -20))
    assert inverse.device.type == "cuda"
    alone = here.invert(inverse.grid)
    assert np.percentile(np.abs(inverse.displacement - alone.displacement), 99) < 2e-3
    points = pair.fixed.grid.world()[10, 10]
    np.testing.assert_allclose(there.map_inverse(points), here.map_inverse(points), atol=2e-3)


@pytest.mark.skipif("invert" not in native.KERNELS["cuda"], reason="invert has no CUDA kernel")
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_invert(kind):
    field = uniform(2, 3, 9, 11, 19, seed=1, low=-0.3, high=0.3)
    goal, start = (uniform(2, 3, 7, 8, 33, seed=s, low=-2, high=2) for s in (2, 3))
    right, solved = invert(field, goal, start, tolerance=1e-4, backend="reference")
    moved = (x.to(kind).cuda() for x in (field, goal, start))
    out, found = (x.cpu() for x in invert(*moved, tolerance=1e-4, backend="native"))
    assert (found == solved).float().mean() > 0.99
    both = (found & solved)[:, None].expand_as(out)
    assert (out - right)[both].abs().max() < (1e-10 if kind == torch.float64 else 5e-4)

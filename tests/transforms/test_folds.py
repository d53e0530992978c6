"""Folds anywhere in a field, and their repair."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import oblique_grid, synthetic_pair

from lganet_fast import DisplacementField, InputError, register
from lganet_fast.transforms.folds import LEAST, bounds_of, without_folds
from lganet_fast.volumes.grid import Grid

GRID = oblique_grid((9, 8, 7), (1.5, 2.0, 1.1), 25)


def rough(seed=0, size=0.5, grid=GRID):
    random = np.random.default_rng(seed)
    return DisplacementField(random.normal(0, size, (*grid.shape, 3)).astype(np.float32), grid)


def sampled(field, count=60_000):
    """Determinants at random points between the outer voxel centres, by differences in float64."""
    last = np.array(field.grid.shape) - 1.0
    index = np.random.default_rng(1).uniform(0.001, 0.999, (count, 3)) * last
    points, step = field.grid.to_world(index), 1e-4
    vectors = DisplacementField(field.displacement, field.grid)
    columns = [vectors.map(points + step * e) - vectors.map(points - step * e) for e in np.eye(3)]
    return np.linalg.det(np.stack(columns, -1) / (2 * step)), index


@pytest.mark.parametrize("size", [0.1, 0.3, 0.6])
def test_no_determinant_is_below_its_bound(size):
    field = rough(size=size)
    det, index = sampled(field)
    found = bounds_of(field)
    assert found.least < det.min() + 0.02
    bad = {tuple(cell) for cell in found.bad.tolist()}
    folded = {tuple(cell) for cell in index[det <= 0].astype(int).tolist()}
    assert folded <= bad
    assert bool(folded) == (size > 0.2)


def test_a_linear_map_has_its_own_determinant():
    matrix = np.eye(4)
    matrix[:3, :3] = [[1.2, 0.1, 0], [0, 0.9, 0.2], [0.1, 0, 1.1]]
    grid = Grid((30, 31, 32), GRID.affine)
    found = bounds_of(DisplacementField.from_affine(matrix, grid), linear=matrix[:3, :3])
    assert not len(found.bad)
    inner = rough(size=0.0, grid=grid)
    assert bounds_of(inner).least == pytest.approx(1)


def test_folds_that_central_differences_miss():
    """Neighbours change places: central differences see no fold, the bound sees all."""
    side = 12
    field = np.zeros((side, side, side, 3), np.float32)
    field[..., 0] = np.where(np.arange(side) % 2 == 0, 0.7, -0.7)[:, None, None]
    found = DisplacementField(field, Grid((side, side, side), np.eye(4)))
    assert (found.jacobian_determinant()[1:-1] > 0).all()
    bounds = bounds_of(found)
    assert bounds.least == pytest.approx(-0.4, abs=1e-6)
    assert len(bounds.bad) / bounds.cells > 0.4
    repair = without_folds(found, np.eye(4))
    assert repair.cells == len(bounds.bad)
    assert repair.bounds.least > LEAST
    assert sampled(repair.field)[0].min() > 0


def test_a_repair_is_local_and_keeps_the_linear_part():
    grid = oblique_grid((24, 22, 20), (1.0, 1.0, 1.0), 0)
    matrix = np.eye(4)
    matrix[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1.2]]  # far from the identity
    turned = DisplacementField.from_affine(matrix, grid).displacement.copy()
    turned[12, 11, 10] += (2, 1, 0)
    repair = without_folds(DisplacementField(turned, grid), matrix)
    assert repair.cells
    assert repair.scale == 1
    assert repair.bounds.least > LEAST
    moved = np.abs(repair.field.displacement - turned).max(-1) > 1e-5
    assert moved[12, 11, 10]
    assert moved.mean() < 0.2
    assert bounds_of(repair.field, LEAST, matrix[:3, :3]).least == repair.bounds.least


def test_a_field_without_folds_stays_as_it_is():
    field = rough(size=0.02)
    repair = without_folds(field, np.eye(4))
    assert repair.field is field
    assert repair.cells == 0


def test_what_smoothing_cannot_repair_is_scaled_down(monkeypatch):
    monkeypatch.setattr("lganet_fast.transforms.folds.ROUNDS", 0)
    repair = without_folds(rough(size=2.0), np.eye(4))
    assert 0 < repair.scale < 1
    assert repair.bounds.least > LEAST


def test_a_mirror_cannot_be_repaired():
    with pytest.raises(InputError, match="no_folds: the initial transform mirrors"):
        without_folds(rough(), np.diag([-1.0, 1, 1, 1]))


def test_a_2d_field():
    grid = Grid((20, 20, 1), np.diag([1.0, 1.0, 5.0, 1.0]))
    displacement = rough(size=0.6, grid=grid).displacement.copy()
    displacement[..., 2] = 0
    repair = without_folds(DisplacementField(displacement, grid), np.eye(4))
    assert repair.cells
    assert repair.bounds.least > LEAST
    assert not repair.field.displacement[..., 2].any()


def test_register_without_folds():
    """Without smoothness the search folds; the repaired field is what is written."""
    grid = oblique_grid((22, 24, 20), (3.2, 3.0, 3.4), 0)
    pair = synthetic_pair(grid, grid, amplitude=12.0)
    images = [(x.data, x.grid.affine) for x in (pair.fixed, pair.moving)]
    options = {"iterations": (40, 60), "smoothness": 0.0, "threads": 1}
    result = register(*images, no_folds=True, **options)
    folds = result.details.folds
    bounds = bounds_of(result.transform, LEAST)
    assert folds.repaired_cells > 0
    assert not len(bounds.bad)
    assert folds.least_bound == pytest.approx(bounds.least)
    jacobian = result.details.jacobian
    assert jacobian.min > 0
    place = np.round(grid.to_index(jacobian.min_at_ras_mm)).astype(int)
    assert result.transform.jacobian_determinant()[tuple(place)] == pytest.approx(jacobian.min)
    assert result.details.inverse_consistency_mm.p99 < 0.1
    assert torch.isfinite(torch.tensor(folds.similarity_after))

"""Non-diffeomorphic volume: against tetrahedra one by one, and on folds that differences miss."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from synthetic import oblique_grid, wave

from lganet_fast.errors import InputError
from lganet_fast.metrics import folded_percent, folding
from lganet_fast.metrics.folding import tetrahedra
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.volumes.grid import Grid

GRID = oblique_grid((6, 5, 7), (1.0, 0.8, 2.5), 25)
CORNERS = list(itertools.product((0, 1), repeat=3))


def signed_volume(points):
    return np.linalg.det(points[1:] - points[0]) / 6


def by_hand(field, cells):
    """The folded volume in mm3: each cell cut into five tetrahedra, in both ways, halved."""
    before = field.grid.world()
    after = before + field.displacement
    total = 0.0
    for cell in cells:
        for parity in (0, 1):
            middle = [c for c in CORNERS if sum(c) % 2 == parity]
            cut = [middle]
            for corner in CORNERS:
                if sum(corner) % 2 != parity:
                    near = [c for c in middle if np.abs(np.subtract(c, corner)).sum() == 1]
                    cut.append([corner, *near])
            for ends in cut:
                at = tuple(np.add(cell, np.array(ends)).T)
                one, other = signed_volume(before[at]), signed_volume(after[at])
                total += max(0.0, -other * np.sign(one)) / 2
    return total


@pytest.mark.parametrize("size", [0.3, 1.5])
def test_matches_tetrahedra_one_by_one(size):
    noise = np.random.default_rng(3).normal(size=(*GRID.shape, 3)) * size
    field = DisplacementField(noise.astype(np.float32), GRID)
    found = folding(field)
    cells = list(itertools.product(*(range(n - 1) for n in GRID.shape)))
    assert found.mm3 == pytest.approx(by_hand(field, cells), rel=1e-6)
    volume = abs(np.linalg.det(GRID.affine[:3, :3])) * len(cells)
    assert found.percent == pytest.approx(100 * found.mm3 / volume)
    assert 0 < found.cells_percent <= 100


def test_mask_counts_the_cells_that_it_touches():
    noise = np.random.default_rng(4).normal(size=(*GRID.shape, 3)).astype(np.float32)
    field, mask = DisplacementField(noise, GRID), np.zeros(GRID.shape)
    mask[2, 3, 0] = 1
    cells = [(i, j, 0) for i in (1, 2) for j in (2, 3)]
    assert folding(field, mask).mm3 == pytest.approx(by_hand(field, cells), rel=1e-6)
    assert np.isnan(folding(field, mask * 0)).all()
    with pytest.raises(InputError, match="mask must have shape"):
        folding(field, mask[1:])


def test_affine_maps_keep_or_turn_all():
    matrix = np.diag([1.1, 0.9, 2.0, 1.0])
    for sign, folded in ((1, 0), (-1, 100 * 1.98)):
        field = DisplacementField.from_affine(matrix * [sign, 1, 1, 1], GRID)
        ratios = np.concatenate([part.numpy() for _, part in tetrahedra(field)], 1)
        np.testing.assert_allclose(ratios, sign * 1.98, rtol=1e-5)
        assert folding(field).percent == pytest.approx(folded, rel=1e-5)


def test_neighbours_that_change_places():
    """Central differences see a tenth of what folds; a smooth map has none."""
    grid = Grid((20, 8, 8), np.eye(4))
    shift = np.zeros((*grid.shape, 3), np.float32)
    shift[..., 0] = np.where(np.arange(20) % 2 == 0, 0.7, -0.7)[:, None, None]
    field = DisplacementField(shift, grid)
    found = folding(field)
    assert folded_percent(field.jacobian_determinant()) < 11
    assert found.cells_percent == pytest.approx(100 * 10 / 19)
    assert found.percent == pytest.approx(40 * 10 / 19, rel=1e-5)
    calm = oblique_grid((20, 18, 16), (2, 2, 3), 30)
    calm = folding(DisplacementField(wave(calm.world(), 4.0).astype(np.float32), calm))
    assert calm == (0, 0, 0)

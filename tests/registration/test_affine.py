"""Affine pre-alignment."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic import anatomy, oblique_grid

from lganet_fast.errors import InputError
from lganet_fast.registration.affine import align_affine
from lganet_fast.volumes.grid import Volume


def pair():
    """An ellipsoid and its copy under a known affine, on grids of different shapes."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec([0.1, -0.15, 0.2]).as_matrix() @ np.diag(
        [1.08, 0.95, 1.0]
    )
    matrix[:3, 3] = [6.0, -4.0, 5.0]
    fixed_grid = oblique_grid((44, 48, 40), (1.8, 1.8, 1.8), 0)
    moving_grid = oblique_grid((46, 50, 30), (1.9, 1.8, 2.8), 25)
    back = np.linalg.inv(matrix)
    points = moving_grid.world() @ back[:3, :3].T + back[:3, 3]
    images = anatomy(fixed_grid.world())[0], anatomy(points)[0]
    grids = fixed_grid, moving_grid
    fixed, moving = (
        Volume(i.astype(np.float32), g, "image") for i, g in zip(images, grids, strict=True)
    )
    return fixed, moving, matrix


def test_recovers_a_known_affine_and_repeats():
    pytest.importorskip("SimpleITK")
    fixed, moving, matrix = pair()
    found = align_affine(fixed, moving)
    points = fixed.grid.world()[fixed.data > 0]
    error = (points @ (found - matrix)[:3, :3].T + (found - matrix)[:3, 3]) ** 2
    before = (points @ (np.eye(4) - matrix)[:3, :3].T - matrix[:3, 3]) ** 2
    assert np.sqrt(before.sum(-1)).mean() > 5
    assert np.sqrt(error.sum(-1)).mean() < 0.5
    assert np.array_equal(found, align_affine(fixed, moving))


def test_says_how_to_get_simpleitk(monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    fixed, moving, _ = pair()
    with pytest.raises(InputError, match=r"pip install 'lganet_fast\[itk\]'"):
        align_affine(fixed, moving)

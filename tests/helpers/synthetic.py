"""Synthetic anatomy: a pair of volumes with labels and a known map between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from lganet_fast.volumes.grid import Array, Grid, Volume


@dataclass(frozen=True, eq=False)
class SyntheticPair:
    """moving(T(x)) = fixed(x); `to_moving` is T, RAS+ mm to RAS+ mm."""

    fixed: Volume
    moving: Volume
    fixed_labels: Volume
    moving_labels: Volume
    amplitude: float

    def to_moving(self, points: Array) -> Array:
        return points + wave(points, self.amplitude)


def wave(points: Array, amplitude: float) -> Array:
    """A smooth displacement of at most about `amplitude` mm, (..., 3)."""
    x, y, z = np.moveaxis(points / 18.0, -1, 0)
    return amplitude * np.stack([np.sin(y + 0.3), np.cos(z), np.sin(x - 0.5)], -1) / 1.5


def oblique_grid(shape: tuple[int, int, int], spacing: tuple[float, ...], degrees: float) -> Grid:
    """A grid centred at the world's origin, rotated about an oblique axis."""
    rotation = Rotation.from_rotvec(degrees * np.array([0.5, 0.3, 0.8]), degrees=True)
    affine = np.eye(4)
    affine[:3, :3] = rotation.as_matrix() * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def anatomy(points: Array, seed: int = 0) -> tuple[Array, Array]:
    """Intensity and label of an ellipsoid with smooth structure at world points (..., 3)."""
    random = np.random.default_rng(seed)
    texture = gaussian_filter(random.standard_normal((48, 48, 48)), 1.7)
    texture /= np.abs(texture).max()
    from scipy.ndimage import map_coordinates

    index = np.moveaxis(points / 1.6 + 23.5, -1, 0)
    value = map_coordinates(texture, index, order=3, mode="nearest")
    radius = np.sqrt(((points / [26.0, 30.0, 24.0]) ** 2).sum(-1))
    inside = radius < 1
    labels = np.where(inside, 1 + (value > 0) + 2 * (radius < 0.6), 0)
    return np.where(inside, 0.55 + 0.4 * value, 0.0), labels


def synthetic_pair(
    fixed_grid: Grid | None = None, moving_grid: Grid | None = None, amplitude: float = 3.0
) -> SyntheticPair:
    """A pair on grids that may differ; by default 40^3 voxels of 1.8 mm both."""
    fixed_grid = fixed_grid or oblique_grid((40, 40, 40), (1.8, 1.8, 1.8), 0)
    moving_grid = moving_grid or fixed_grid
    points = moving_grid.world()
    for _ in range(60):  # the x with x + wave(x) = y, by fixed-point iteration
        points = moving_grid.world() - wave(points, amplitude)
    fixed, fixed_labels = anatomy(fixed_grid.world())
    moving, moving_labels = anatomy(points)
    return SyntheticPair(
        Volume(fixed.astype(np.float32), fixed_grid, "fixed"),
        Volume(moving.astype(np.float32), moving_grid, "moving"),
        Volume(fixed_labels.astype(np.int32), fixed_grid, "fixed labels"),
        Volume(moving_labels.astype(np.int32), moving_grid, "moving labels"),
        amplitude,
    )


def source(volume):
    """The volume from memory, its affine rounded as in a NIfTI file."""
    return volume.data, volume.grid.affine.astype(np.float32).astype(float)


def mean_error(result, pair, where):
    """Mean distance in mm, over fixed voxels, between found and true point; and the start's."""
    points = pair.fixed.grid.world()[where]
    truth = pair.to_moving(points)
    found = result.transform.map(points)
    return np.linalg.norm([found - truth, points - truth], axis=-1).mean(-1)

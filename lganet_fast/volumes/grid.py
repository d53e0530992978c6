"""Grids, which place voxels in world space, and volumes on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float64]
FARTHEST = 1e8  # mm: coordinates beyond mean that a file is faulty
LPS = np.diag([-1.0, -1.0, 1.0])  # RAS+ to LPS and back
SLAB = 500_000  # voxels whose coordinates are in memory at once
LARGE_SLAB = 32 * SLAB  # the same on a device


def slab_size(device: torch.device) -> int:
    """How many voxels to process at once on a device, for `Grid.slabs`."""
    return SLAB if device.type == "cpu" else LARGE_SLAB


def as_points(points: ArrayLike) -> Array:
    """Points (..., 3) in mm as float64.

    Raises InputError for another shape, and for coordinates that are not finite or beyond FARTHEST.
    """
    if np.iscomplexobj(points):
        raise InputError("points must be real numbers, got complex ones")
    found = np.asarray(points, np.float64)
    if found.shape[-1:] != (3,):
        raise InputError(f"points must have shape (..., 3), got {found.shape}")
    if not (np.abs(found) <= FARTHEST).all():
        raise InputError(f"points must be finite and within {FARTHEST:g} mm of the origin")
    return found


@dataclass(frozen=True, eq=False)
class Forms:
    """The qform and sform of a NIfTI header, (4, 4) in RAS+ mm, and their codes."""

    qform: Array
    qform_code: int
    sform: Array
    sform_code: int


def apply_affine(matrix: ArrayLike, points: ArrayLike) -> Array:
    """Map (..., 3) points by a (4, 4) matrix."""
    m = np.asarray(matrix, float)
    return np.asarray(points, float) @ m[:3, :3].T + m[:3, 3]


@dataclass(frozen=True, eq=False)
class Grid:
    """A sampling grid: its size in voxels and the affine from voxel index to RAS+ millimetres.

    shape: (X, Y, Z), in nibabel's axis order.
    affine: (4, 4), invertible. forms: qform and sform of its NIfTI file, if any, so that volumes
    written on this grid overlay in every tool.
    """

    shape: tuple[int, int, int]
    affine: Array
    forms: Forms | None = None

    @property
    def spacing(self) -> Array:
        """(3,) distance in mm between neighbouring voxels along each array axis."""
        return np.sqrt((self.affine[:3, :3] ** 2).sum(0))

    @property
    def flat(self) -> int | None:
        """The axis of a single voxel, if this is the grid of a 2D image; else None."""
        return self.shape.index(1) if self.shape.count(1) == 1 else None

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    def to_world(self, index: ArrayLike) -> Array:
        """(..., 3) voxel coordinates to (..., 3) RAS+ millimetres."""
        return apply_affine(self.affine, index)

    def to_index(self, world: ArrayLike) -> Array:
        """(..., 3) RAS+ millimetres to (..., 3) voxel coordinates."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(world, float) @ inverse[:3, :3].T + inverse[:3, 3]

    def world(self, planes: slice = slice(None)) -> Array:
        """(X, Y, Z, 3) RAS+ millimetres of every voxel centre, or of some planes along X."""
        axes = [np.arange(n, dtype=float) for n in self.shape]
        axes[0] = axes[0][planes]
        return self.to_world(np.stack(np.meshgrid(*axes, indexing="ij"), -1))

    def slabs(self, size: int | None = None) -> Iterator[slice]:
        """Slabs of planes along X, in order, each of about `size` voxels (default SLAB)."""
        planes = max(1, (size or SLAB) // (self.shape[1] * self.shape[2]))
        for start in range(0, self.shape[0], planes):
            yield slice(start, min(start + planes, self.shape[0]))

    def corners(self) -> Array:
        """(8, 3) RAS+ millimetres of the outermost voxel centres."""
        ends = [(0.0, n - 1.0) for n in self.shape]
        return self.to_world(np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3))

    def matches(self, other: Grid) -> bool:
        """Whether both have the same shape and their voxels coincide to 1% of a voxel."""
        if self.shape != other.shape:
            return False
        return bool(np.abs(self.corners() - other.corners()).max() < 0.01 * self.spacing.min())

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        spacing = "x".join(f"{s:.4g}" for s in self.spacing)
        return f"Grid({size} voxels, {spacing} mm)"


@dataclass(frozen=True, eq=False)
class Volume:
    """An image or label map on its grid.

    data: (X, Y, Z). grid: its Grid, of that shape. name: for messages (a path or a role).
    """

    data: NDArray
    grid: Grid
    name: str

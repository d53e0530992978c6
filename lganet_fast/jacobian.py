"""The Jacobian determinant of a displacement field: local volume change of the map it defines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .grid import Array, Grid


def jacobian_determinant(
    displacement: NDArray, grid: Grid, difference: str = "central"
) -> NDArray[np.float64]:
    """det(dT/dx) of the map T(x) = x + d(x) at the voxels of its grid.

    displacement: (X, Y, Z, 3) in RAS+ mm, on `grid`. The determinant has no unit: 1 keeps volume,
    2 doubles it, 0 or less folds. It does not depend on the frame (RAS or LPS, mm or voxels).
    difference: "central", one-sided at the border (as np.gradient), returns (X, Y, Z);
        "forward" drops the last plane of each axis, returns (X-1, Y-1, Z-1).
    An axis of a single voxel counts as constant. Raises ValueError for another shape or name.
    """
    if displacement.shape != (*grid.shape, 3):
        raise ValueError(
            f"displacement must have shape {(*grid.shape, 3)}, got {displacement.shape}"
        )
    if difference not in ("central", "forward"):
        raise ValueError(f"difference must be central or forward, got {difference!r}")
    derivative = _central if difference == "central" else _forward
    out = np.empty(grid.shape)
    for part in grid.slabs():
        first = max(part.start - 1, 0)
        slab = displacement[first : part.stop + 1].astype(np.float64)
        # Columns of dT/d(index): its determinant over that of the affine is det(dT/dx).
        columns = [grid.affine[:3, axis] + derivative(slab, axis) for axis in range(3)]
        det = _triple_product(*columns) / np.linalg.det(grid.affine[:3, :3])
        out[part] = det[part.start - first :][: part.stop - part.start]
    if difference == "central":
        return out
    return out[tuple(slice(0, max(n - 1, 1)) for n in grid.shape)]


def _central(field: Array, axis: int) -> Array:
    if field.shape[axis] == 1:
        return np.zeros_like(field)
    return np.asarray(np.gradient(field, axis=axis))


def _forward(field: Array, axis: int) -> Array:
    last = np.take(field, [-1], axis)
    return np.diff(field, axis=axis, append=last)


def _triple_product(a: Array, b: Array, c: Array) -> Array:
    """The product a . (b x c) along the last axis."""
    out = a[..., 0] * (b[..., 1] * c[..., 2] - b[..., 2] * c[..., 1])
    out += a[..., 1] * (b[..., 2] * c[..., 0] - b[..., 0] * c[..., 2])
    out += a[..., 2] * (b[..., 0] * c[..., 1] - b[..., 1] * c[..., 0])
    return out

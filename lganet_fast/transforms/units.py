"""Conversion between displacements in mm and in voxels of the two images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..volumes.grid import Grid


def to_voxels(displacement: NDArray, fixed: Grid, moving: Grid) -> NDArray[np.float32]:
    """The flow u, (X, Y, Z, 3): voxel p of `fixed` moves to p + u(p), in voxels of `moving`.

    displacement: (X, Y, Z, 3) in RAS+ mm, on the fixed grid.
    """
    out = np.empty((*fixed.shape, 3), np.float32)
    index_grid = Grid(fixed.shape, np.eye(4))
    for part in fixed.slabs():
        out[part] = moving.to_index(fixed.world(part) + displacement[part]) - index_grid.world(part)
    return out


def from_voxels(flow: NDArray, fixed: Grid, moving: Grid) -> NDArray[np.float32]:
    """The displacement, (X, Y, Z, 3) in RAS+ mm, of a flow in voxels; inverse of `to_voxels`.

    Raises InputError for a flow that is not on the fixed grid.
    """
    out = np.empty((*fixed.shape, 3), np.float32)
    index_grid = Grid(fixed.shape, np.eye(4))
    if flow.shape != out.shape:
        raise InputError(f"flow must have shape {out.shape}, got {flow.shape}")
    for part in fixed.slabs():
        out[part] = moving.to_world(index_grid.world(part) + flow[part]) - fixed.world(part)
    return out

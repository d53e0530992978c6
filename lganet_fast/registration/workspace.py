"""From two volumes in the world to one isotropic working grid, and back.

The working grid runs along the fixed image's axes, has cubic voxels of the fixed voxels' volume (so
that cost follows the voxel count), and covers the part of the fixed image where either image shows
anything, with a margin in which the displacement falls to zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..ops import compose, integrate, warp
from ..runtime.device import numbers, sent
from ..transforms.field import DisplacementField
from ..volumes.grid import Array, Grid, Volume
from ..volumes.resample import index_flow, linear_on, pull, read, turned
from .optimiser import STEPS, flow_of
from .pair import Pair, apply_affine
from .separable import along_axes, growth, linear_map, positions

MARGIN = 6  # working voxels around the anatomy
ROUNDING = 1e-4  # of a voxel: what affines may be off by without changing the grid


@dataclass(frozen=True, eq=False)
class Workspace:
    """The pair as the optimiser sees it.

    grid: the working Grid. fixed, moving, weight: (1, 1, H, W, D) on it; intensities with
    background 0 and foreground of about unit range; weight is None where every voxel counts.
    affine: (4, 4), fixed to moving points in RAS+ mm, as the moving image was pulled through.
    first: a flow (1, 3, H, W, D) in working voxels that the moving image was warped by after that,
    or None.
    """

    grid: Grid
    fixed: Tensor
    moving: Tensor
    weight: Tensor | None
    affine: Array
    first: Tensor | None = None

    def after(self, flow: Tensor) -> Workspace:
        """The same workspace, the moving image warped by a flow (1, 3, H, W, D)."""
        return replace(self, moving=warp(self.moving, flow), first=flow)


def foreground_box(volume: Volume) -> tuple[Array, Array]:
    """First and last voxel index, per axis, of what rises above the image's lowest value."""
    present = volume.data > volume.data.min()
    lines = [np.flatnonzero(present.any((*{0, 1, 2} - {a},))) for a in range(3)]
    return np.array([i[0] for i in lines], float), np.array([i[-1] for i in lines], float)


def working_grid(fixed: Volume, moving: Volume, affine: Array) -> Grid:
    """The grid to work on; see the module's text."""
    low, high = foreground_box(fixed)
    corners = Grid((2, 2, 2), np.eye(4)).world().reshape(-1, 3)
    first, last = foreground_box(moving)
    world = moving.grid.to_world(first + corners * (last - first))
    index = fixed.grid.to_index(apply_affine(np.linalg.inv(affine), world))
    edge = np.array(fixed.grid.shape) - 1.0
    low = np.minimum(low, index.min(0).clip(0, edge))
    high = np.maximum(high, index.max(0).clip(0, edge))
    spacing = fixed.grid.spacing
    side = float(spacing.prod() ** (1 / 3))
    steps = side / spacing
    # Whole fixed voxels where the fixed grid is isotropic, so that nothing is interpolated twice.
    low = np.floor(low + ROUNDING) - MARGIN * steps
    last = np.ceil(high - ROUNDING) + MARGIN * steps
    count = np.ceil((last - low) / steps - ROUNDING).astype(int) + 1
    matrix = fixed.grid.affine.copy()
    matrix[:3, :3] *= steps
    matrix[:3, 3] = fixed.grid.to_world(low)
    return Grid((int(count[0]), int(count[1]), int(count[2])), matrix)


def normalised(volume: Volume, grid: Grid) -> Volume:
    """Background to 0 and the foreground's 99th percentile to 1, blurred to `grid`'s resolution."""
    data = volume.data - volume.data.min()
    data /= np.percentile(data[data > 0], 99)
    coarser = grid.spacing.mean() / volume.grid.spacing
    sigma = np.where(coarser > 1.2, 0.5 * coarser, 0)
    if sigma.any():
        from scipy.ndimage import gaussian_filter  # slow to load, and often not needed

        data = gaussian_filter(data, sigma)
    return Volume(data, volume.grid, volume.name)


def prepare(pair: Pair, affine: Array, device: torch.device, dtype: torch.dtype) -> Workspace:
    """Bring the pair onto its working grid.

    affine: (4, 4), fixed to moving points in RAS+ mm.
    Raises InputError where the moving image shows nothing there, or a mask covers nothing.
    """
    fixed, moving = pair.fixed, pair.moving
    grid = working_grid(fixed, moving, affine)

    first = pull(normalised(fixed, grid), grid, device).to(dtype)
    seen = Grid(moving.grid.shape, np.linalg.inv(affine) @ moving.grid.affine)
    there = Volume(normalised(moving, grid).data, seen, moving.name)
    second = pull(there, grid, device).to(dtype)
    counts = np.ones(fixed.grid.shape, np.float32) if pair.mask is None else pair.mask.data
    weight = pull(Volume(counts, fixed.grid, "weight"), grid, device).to(dtype)
    parts = (weight * first).any(), second.any(), (weight == 1).all()
    counted, shows, everywhere = numbers(parts)
    if pair.mask is not None and not counted:
        raise InputError(
            f"the mask covers no part of what {fixed.name} shows: it must be non-zero where the "
            "similarity counts"
        )
    if not shows:
        raise InputError(
            f"{moving.name} shows nothing where {fixed.name} lies; try affine alignment"
        )
    return Workspace(grid, first, second, None if everywhere else weight, affine)


@torch.no_grad()
def transforms(
    velocity: Tensor, work: Workspace, pair: Pair
) -> tuple[DisplacementField, DisplacementField]:
    """The pulling field on the fixed grid, and its inverse on the moving grid.

    velocity: as `optimise` returns it. The inverse is that of the sampled field itself; it starts
    from exp(-velocity), where that is all there is.
    """
    fixed, moving = pair.fixed.grid, pair.moving.grid
    if work.first is not None:
        whole = compose(work.first, flow_of(velocity, work.grid.shape))
        field = field_of(whole, work.grid, work, fixed)
        return field, field.invert(moving)
    coarse = velocity.shape[2], velocity.shape[3], velocity.shape[4]
    own = Grid(coarse, work.grid.affine @ np.diag([*growth(coarse, work.grid.shape), 1]))
    field = field_of(integrate(velocity, STEPS), own, work, fixed)
    backward = turned(own.affine[:3, :3], integrate(-velocity, STEPS).float())
    seen = Grid(own.shape, work.affine @ own.affine)
    straight = (np.linalg.inv(work.affine) - np.eye(4)) @ moving.affine

    def guess(part: slice) -> Tensor:
        way = index_flow(moving, seen, part, device=backward.device)
        line = linear_on(moving, straight, part, device=backward.device)
        return line + read(backward, way, "zeros")

    start = DisplacementField.of_slabs(guess, moving, backward.device)
    return field, field.invert(moving, start)


def field_of(flow: Tensor, own: Grid, work: Workspace, fixed: Grid) -> DisplacementField:
    """A flow (1, 3, *own.shape) in voxels of `own`, after the affine, on the fixed grid.

    own: over the extent of the working grid.
    """
    vectors = turned(work.affine[:3, :3] @ own.affine[:3, :3], flow.float())
    first, *others = (sent(m, vectors) for m in maps_onto(fixed, work, own.shape))
    straight = (work.affine - np.eye(4)) @ fixed.affine

    def moved(part: slice) -> Tensor:
        line = linear_on(fixed, straight, part, device=vectors.device)
        return line + along_axes(vectors, [first[part], *others])

    return DisplacementField.of_slabs(moved, fixed, vectors.device)


def maps_onto(fixed: Grid, work: Workspace, coarse: Sequence[int]) -> list[Tensor]:
    """One matrix per axis: linear from the velocity's grid to the working one, to the fixed one.

    Zero outside the working grid. The fixed grid's axes run along the working grid's.
    """
    onto = np.linalg.inv(work.grid.affine) @ fixed.affine
    maps = []
    for axis, (o, n, m) in enumerate(zip(coarse, work.grid.shape, fixed.shape, strict=True)):
        at = torch.arange(m, dtype=torch.float64) * onto[axis, axis] + onto[axis, 3]
        maps.append((linear_map(n, at) @ linear_map(o, positions(o, n))).float())
    return maps

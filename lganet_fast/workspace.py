"""From two volumes in the world to one isotropic working grid, and back.

The working grid runs along the fixed image's axes, has cubic voxels of the fixed voxels' volume (so
that cost follows the voxel count), and covers the part of the fixed image where either image shows
anything, with a margin in which the displacement falls to zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from .errors import InputError
from .grid import Array, Grid, Volume
from .optimize import flow_of
from .pair import Pair, apply_affine
from .sampling import pull, sample
from .transform import DisplacementField

MARGIN = 6  # working voxels around the anatomy
ROUNDING = 1e-4  # of a voxel: what affines may be off by without changing the grid


@dataclass(frozen=True, eq=False)
class Workspace:
    """The pair as the optimiser sees it.

    grid: the working Grid. fixed, moving, weight: (1, 1, H, W, D) on it; intensities with
    background 0 and foreground of about unit range; weight is None where every voxel counts.
    affine: (4, 4), fixed to moving points in RAS+ mm, as the moving image was pulled through.
    """

    grid: Grid
    fixed: Tensor
    moving: Tensor
    weight: Tensor | None
    affine: Array


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
        data = gaussian_filter(data, sigma)
    return Volume(data, volume.grid, volume.name)


def prepare(pair: Pair, affine: Array, device: torch.device, dtype: torch.dtype) -> Workspace:
    """Bring the pair onto its working grid.

    affine: (4, 4), fixed to moving points in RAS+ mm.
    Raises InputError where the moving image shows nothing there.
    """
    fixed, moving = pair.fixed, pair.moving
    grid = working_grid(fixed, moving, affine)

    def tensor(data: NDArray) -> Tensor:
        return torch.from_numpy(data).to(device, dtype)[None, None]

    first = tensor(pull(normalised(fixed, grid), grid))
    second = tensor(pull(normalised(moving, grid), grid, through=lambda x: apply_affine(affine, x)))
    if not second.any():
        raise InputError(
            f"{moving.name} shows nothing where {fixed.name} lies; try affine alignment"
        )
    counts = np.ones(fixed.grid.shape, np.float32) if pair.mask is None else pair.mask.data
    weight = tensor(pull(Volume(counts, fixed.grid, "weight"), grid))
    return Workspace(grid, first, second, None if bool((weight == 1).all()) else weight, affine)


def in_millimetres(flow: Tensor, work: Workspace) -> NDArray:
    """A flow on the working grid, (1, 3, H, W, D) in its voxels, as (H, W, D, 3) RAS+ mm."""
    vectors = flow[0].permute(1, 2, 3, 0).cpu() @ torch.from_numpy(work.grid.affine[:3, :3].T).to(
        flow.dtype
    )
    return vectors.numpy()


def affine_field(affine: Array, pair: Pair) -> DisplacementField:
    """An affine, fixed to moving points in RAS+ mm, as a field on the fixed grid."""
    grid = pair.fixed.grid
    field = np.empty((*grid.shape, 3), np.float32)
    for part in grid.slabs():
        world = grid.world(part)
        field[part] = apply_affine(affine, world) - world
    return DisplacementField(field, grid)


@torch.no_grad()
def transforms(
    velocity: Tensor, work: Workspace, pair: Pair
) -> tuple[DisplacementField, DisplacementField]:
    """The pulling field on the fixed grid, and its inverse on the moving grid.

    velocity: as `optimise` returns it. The inverse starts from exp(-velocity) and is refined until
    it inverts the sampled field itself.
    """
    forward, backward = (
        in_millimetres(flow_of(v, work.grid.shape), work) for v in (velocity, -velocity)
    )
    fixed, moving = pair.fixed.grid, pair.moving.grid
    field = np.empty((*fixed.shape, 3), np.float32)
    for part in fixed.slabs():
        world = fixed.world(part)
        local = sample(forward, work.grid.to_index(world))
        field[part] = apply_affine(work.affine, world + local) - world
    back = np.linalg.inv(work.affine)
    guess = np.empty((*moving.shape, 3), np.float32)
    for part in moving.slabs():
        world = moving.world(part)
        aligned = apply_affine(back, world)
        guess[part] = aligned + sample(backward, work.grid.to_index(aligned)) - world
    transform = DisplacementField(field, fixed)
    return transform, transform.invert(moving, DisplacementField(guess, moving))

"""From two volumes in the world to one isotropic working grid, and back.

The working grid has the fixed image's axes and cubic voxels of the fixed voxels' volume (so that
the cost depends on the voxel count). It covers the part of the fixed image where either image has
foreground, with a margin in which the displacement falls to zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..ops import compose, warp
from ..runtime.device import numbers, sent
from ..transforms.field import DisplacementField
from ..volumes.grid import Array, Grid, Volume
from ..volumes.intensity import foreground_box, window_of
from ..volumes.resample import index_flow, linear_on, pull, read, turned
from .noise import noise_between
from .optimiser import exponential, flow_of
from .pair import Pair, apply_affine
from .separable import along_axes, growth, linear_map, positions

MARGIN = 6  # working voxels around the anatomy
BRIGHTEST = 1.5  # times the foreground's range: brighter voxels are clipped to it
ROUNDING = 1e-4  # voxels: rounding errors of affines that do not change the grid


@dataclass(frozen=True, eq=False)
class Workspace:
    """The pair on the working grid.

    grid: the working Grid. fixed, moving: (1, 1, H, W, D) on it, background 0 and foreground of
    about unit range. weights: of the fixed and of the moving image, in [0, 1]; None for 1
    everywhere. noise: see `noise_between`.
    affine: (4, 4), fixed to moving points in RAS+ mm, by which the moving image was resampled.
    first: a flow (1, 3, H, W, D) in working voxels by which the moving image was then warped, or
    None.
    """

    grid: Grid
    fixed: Tensor
    moving: Tensor
    weights: tuple[Tensor | None, Tensor | None]
    affine: Array
    noise: float
    first: Tensor | None = None

    def after(self, flow: Tensor) -> Workspace:
        """The same workspace, the moving image warped by a flow (1, 3, H, W, D)."""
        fixed, moving = self.weights
        weights = (fixed, None if moving is None else warp(moving, flow))
        return replace(self, moving=warp(self.moving, flow), weights=weights, first=flow)


@dataclass(frozen=True, eq=False)
class Seen:
    """An image with scaled intensities, and the box of its foreground.

    image: from 0, the background, to about 1. first, last: (3,) voxel indices of the foreground.
    """

    image: Volume
    first: Array
    last: Array

    @classmethod
    def of(cls, volume: Volume) -> Seen:
        """Scale a volume and find its foreground."""
        window = window_of(volume.data)
        first, last = foreground_box(volume.data, window.low)
        data = window.scaled(volume.data, BRIGHTEST)
        return cls(Volume(data, volume.grid, volume.name), first.astype(float), last.astype(float))

    @property
    def cut(self) -> list[tuple[bool, bool]]:
        """Per axis, whether the first and the last face cut through the anatomy."""
        ends = np.array(self.image.grid.shape) - 1
        return [(f == 0, e == n) for f, e, n in zip(self.first, self.last, ends, strict=True)]

    def blurred(self, grid: Grid) -> Seen:
        """The image at the resolution of a coarser grid."""
        coarser = grid.spacing.mean() / self.image.grid.spacing
        sigma = np.where(coarser > 1.2, 0.5 * coarser, 0)
        if not sigma.any():
            return self
        from scipy.ndimage import gaussian_filter  # slow to load, and often not needed

        data = gaussian_filter(self.image.data, sigma)
        return replace(self, image=Volume(data, self.image.grid, self.image.name))

    def on(self, grid: Grid, affine: Array, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """The image on a grid, and its weight: 0 beyond the faces that cut through anatomy.

        affine: (4, 4), from the grid's points to the image's, in RAS+ mm. The weight is None if it
        is 1 everywhere. Beyond the faces that cut through anatomy the image keeps the value at the
        face, so that there is no edge; beyond the other faces it is background.
        """
        own = self.image.grid
        moved = Grid(own.shape, np.linalg.inv(affine) @ own.affine)
        if not np.any(self.cut):
            return pull(Volume(self.image.data, moved, self.image.name), grid, device), None
        rim = np.eye(4)
        rim[:3, 3] = -1
        x, y, z = own.shape
        around = Grid((x + 2, y + 2, z + 2), moved.affine @ rim)
        data = np.pad(self.image.data, 1, mode="edge")
        weight = np.ones(around.shape, np.float32)
        for axis, faces in enumerate(self.cut):
            for face, cut in zip((0, -1), faces, strict=True):
                (weight if cut else data).swapaxes(0, axis)[face] = 0
        image, counts = (
            pull(Volume(values, around, self.image.name), grid, device, "border")
            for values in (data, weight)
        )
        return image, counts


def working_grid(fixed: Seen, moving: Seen, affine: Array) -> Grid:
    """The working grid; see the module's docstring."""
    own = fixed.image.grid
    corners = Grid((2, 2, 2), np.eye(4)).world().reshape(-1, 3)
    world = moving.image.grid.to_world(moving.first + corners * (moving.last - moving.first))
    index = own.to_index(apply_affine(np.linalg.inv(affine), world))
    edge = np.array(own.shape) - 1.0
    low = np.minimum(fixed.first, index.min(0).clip(0, edge))
    high = np.maximum(fixed.last, index.max(0).clip(0, edge))
    spacing = own.spacing
    side = float(spacing.prod() ** (1 / 3))
    steps = side / spacing
    # Whole fixed voxels where the fixed grid is isotropic, so that nothing is interpolated twice.
    low = np.floor(low + ROUNDING) - MARGIN * steps
    last = np.ceil(high - ROUNDING) + MARGIN * steps
    count = np.ceil((last - low) / steps - ROUNDING).astype(int) + 1
    matrix = own.affine.copy()
    matrix[:3, :3] *= steps
    matrix[:3, 3] = own.to_world(low)
    return Grid((int(count[0]), int(count[1]), int(count[2])), matrix)


def prepare(pair: Pair, affine: Array, device: torch.device, dtype: torch.dtype) -> Workspace:
    """Resample the pair to its working grid.

    affine: (4, 4), fixed to moving points in RAS+ mm.
    Raises InputError if the moving image has no foreground there, or the mask covers nothing.
    """
    fixed, moving = Seen.of(pair.fixed), Seen.of(pair.moving)
    grid = working_grid(fixed, moving, affine)
    first, fixed_weight = fixed.blurred(grid).on(grid, np.eye(4), device)
    second, moving_weight = moving.blurred(grid).on(grid, affine, device)
    if pair.fixed_mask is not None:
        mask = Volume(pair.fixed_mask.data.astype(np.float32), pair.fixed.grid, "mask")
        masked = pull(mask, grid, device)
        fixed_weight = masked if fixed_weight is None else fixed_weight * masked
    weights = (fixed_weight, moving_weight)
    shown = second if moving_weight is None else second * moving_weight
    counts = first if fixed_weight is None else first * fixed_weight
    full = [(w == 1).all() for w in weights if w is not None]
    asked = [counts.any(), shown.any(), noise_between(first, second), *full]
    counted, shows, noise, *everywhere = numbers(asked)
    if pair.fixed_mask is not None and not counted:
        raise InputError(
            f"the mask does not overlap the foreground of {pair.fixed.name}: it must be non-zero "
            "where the similarity counts"
        )
    if not shows:
        raise InputError(
            f"{moving.image.name} does not overlap the foreground of {fixed.image.name}; "
            "try initial rigid or affine"
        )
    answers = iter(everywhere)
    kept = [None if w is None or next(answers) else w.to(dtype) for w in weights]
    return Workspace(grid, first.to(dtype), second.to(dtype), (kept[0], kept[1]), affine, noise)


@torch.no_grad()
def transforms(
    velocity: Tensor, work: Workspace, pair: Pair
) -> tuple[DisplacementField, DisplacementField]:
    """The displacement field on the fixed grid, and its inverse on the moving grid.

    velocity: as `optimise` returns it. The inverse is that of the sampled field itself; without a
    network its iteration starts from exp(-velocity).
    """
    fixed, moving = pair.fixed.grid, pair.moving.grid
    if work.first is not None:
        whole = compose(work.first, flow_of(velocity, work.grid.shape))
        field = field_of(whole, work.grid, work, fixed)
        return field, field.invert(moving)
    coarse = velocity.shape[2], velocity.shape[3], velocity.shape[4]
    own = Grid(coarse, work.grid.affine @ np.diag([*growth(coarse, work.grid.shape), 1]))
    field = field_of(exponential(velocity), own, work, fixed)
    backward = turned(own.affine[:3, :3], exponential(-velocity).float())
    seen = Grid(own.shape, work.affine @ own.affine)
    straight = (np.linalg.inv(work.affine) - np.eye(4)) @ moving.affine

    def guess(part: slice) -> Tensor:
        way = index_flow(moving, seen, part, device=backward.device)
        line = linear_on(moving, straight, part, device=backward.device)
        return line + read(backward, way, "zeros")

    start = DisplacementField.of_slabs(guess, moving, backward.device)
    return field, field.invert(moving, start)


def field_of(flow: Tensor, own: Grid, work: Workspace, fixed: Grid) -> DisplacementField:
    """The field on the fixed grid of a flow (1, 3, *own.shape) in voxels of `own`, with the affine.

    own: covers the extent of the working grid.
    """
    vectors = turned(work.affine[:3, :3] @ own.affine[:3, :3], flow.float())
    first, *others = (sent(m, vectors) for m in maps_onto(fixed, work, own.shape))
    straight = (work.affine - np.eye(4)) @ fixed.affine

    def moved(part: slice) -> Tensor:
        line = linear_on(fixed, straight, part, device=vectors.device)
        return line + along_axes(vectors, [first[part], *others])

    return DisplacementField.of_slabs(moved, fixed, vectors.device)


def maps_onto(fixed: Grid, work: Workspace, coarse: Sequence[int]) -> list[Tensor]:
    """One matrix per axis: linear from the velocity's grid to the working grid to the fixed grid.

    Zero outside the working grid. Both grids have the same axes.
    """
    onto = np.linalg.inv(work.grid.affine) @ fixed.affine
    maps = []
    for axis, (o, n, m) in enumerate(zip(coarse, work.grid.shape, fixed.shape, strict=True)):
        index = torch.arange(m, dtype=torch.float64) * onto[axis, axis] + onto[axis, 3]
        maps.append((linear_map(n, index) @ linear_map(o, positions(o, n))).float())
    return maps

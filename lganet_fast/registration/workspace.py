"""From two volumes in the world to one isotropic working grid, and back.

The working grid has the fixed image's axes and cubic voxels of the fixed voxels' volume (so that
the cost depends on the voxel count); of a 2D image, squares in its plane. It covers the part of the
fixed image where either image has foreground, with a margin in which the displacement falls to
zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..ops import compose
from ..runtime.device import sent
from ..transforms.field import DisplacementField
from ..volumes.grid import Array, Grid, apply_affine
from ..volumes.resample import index_flow, linear_on, read, turned
from .channels import Channel, Place, channel_of
from .label_codes import coded_labels
from .optimiser import exponential, flow_of
from .pair import Pair
from .seen import Seen
from .separable import along_axes, growth, linear_map, positions

MARGIN = 6  # working voxels around the anatomy
ROUNDING = 1e-4  # voxels: rounding errors of affines that do not change the grid


@dataclass(frozen=True, eq=False)
class Workspace:
    """The pair on the working grid.

    grid: the working Grid. affine: (4, 4), fixed to moving points in RAS+ mm, by which the moving
    images were resampled. channels: the images. labels: coded, if they guide the search, else None.
    points: (N, 3) matching points of the fixed and of the moving image in working voxels, or None.
    first: a flow (1, 3, H, W, D) in working voxels by which all of the moving side was then warped,
    or None.
    """

    grid: Grid
    affine: Array
    channels: tuple[Channel, ...]
    labels: Channel | None = None
    points: tuple[Array, Array] | None = None
    first: Tensor | None = None

    @property
    def fixed(self) -> Tensor:
        """The fixed image of the first channel, (1, 1, H, W, D)."""
        return self.channels[0].fixed

    @property
    def moving(self) -> Tensor:
        """The moving image of the first channel, (1, 1, H, W, D)."""
        return self.channels[0].moving

    @property
    def guided(self) -> bool:
        """Whether more than the similarity of the images steers the search."""
        return self.points is not None or self.labels is not None

    def after(self, flow: Tensor) -> Workspace:
        """The workspace, as prepared, with the moving side warped by a flow (1, 3, H, W, D)."""
        return replace(
            self,
            channels=tuple(channel.after(flow) for channel in self.channels),
            labels=None if self.labels is None else self.labels.after(flow),
            points=None if self.points is None else (self.points[0], pulled(self.points[1], flow)),
            first=flow,
        )


def pulled(points: Array, flow: Tensor) -> Array:
    """The places (N, 3) that a flow (1, 3, H, W, D) moves to these points; all in voxels."""
    size = flow.shape[2], flow.shape[3], flow.shape[4]
    return DisplacementField(flow.detach().float(), Grid(size, np.eye(4))).map_inverse(points)


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
    solid = np.array(own.shape) > 1
    side = float(spacing[solid].prod() ** (1 / solid.sum()))
    steps = side / spacing
    margin = MARGIN * solid * steps
    # Whole fixed voxels where the fixed grid is isotropic, so that nothing is interpolated twice.
    low = np.floor(low + ROUNDING) - margin
    last = np.ceil(high - ROUNDING) + margin
    count = np.ceil((last - low) / steps - ROUNDING).astype(int) + 1
    matrix = own.affine.copy()
    matrix[:3, :3] *= steps
    matrix[:3, 3] = own.to_world(low)
    return Grid((int(count[0]), int(count[1]), int(count[2])), matrix)


def prepare(
    pair: Pair,
    affine: Array,
    device: torch.device,
    dtype: torch.dtype,
    *,
    weights: Sequence[float] = (1.0,),
    guide_labels: float = 0.0,
) -> Workspace:
    """Resample the pair to its working grid.

    affine: (4, 4), fixed to moving points in RAS+ mm. weights: of the channels, in proportion.
    guide_labels: weight of the labels, if they guide the search.
    Raises InputError if the moving image has no foreground there, if the masks cover nothing, or
    if labels that are to guide have none in common.
    """
    images = [(Seen.of(x), Seen.of(y)) for x, y in ((pair.fixed, pair.moving), *pair.further)]
    grid = working_grid(*images[0], affine)
    place = Place(grid, affine, device, dtype)
    shares = [weight / sum(weights) for weight in weights]
    channels = tuple(
        channel_of(*both, pair.masks, place, share)
        for both, share in zip(images, shares, strict=True)
    )
    points = labels = None
    if pair.points is not None:
        own, other = pair.points
        other = apply_affine(np.linalg.inv(affine), other)
        solid = np.array(grid.shape) > 1  # of a 2D image, points in its plane
        points = grid.to_index(own) * solid, grid.to_index(other) * solid
    if guide_labels:
        labels = Channel(*coded_labels(pair, place), channels[0].weights, weight=guide_labels)
    return Workspace(grid, affine, channels, labels, points)


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

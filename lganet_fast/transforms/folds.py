"""Whether a displacement field folds anywhere, also between voxel centres, and its repair.

In each cell of eight neighbouring voxels the map is trilinear, so its Jacobian determinant is a
polynomial of degree 2 in each coordinate. The least of its 27 Bernstein coefficients is at most the
least determinant in the cell, and at the cell's corners both are equal (Farouki, 2012). Cells lie
between voxel centres; a slice repeats itself on both sides of its plane.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool3d

from ..errors import InputError
from ..volumes.grid import Array, Grid
from ..volumes.resample import linear_on, smoothed
from .field import DisplacementField
from .jacobian import triple_product

SURE = 0.5  # norm of the change of the map's derivative in a cell that cannot fold, since below 1
AT_ONCE = 200_000  # cells whose coefficients are computed at once
LEAST = 0.01  # determinant, relative to that of the linear part, that a repair leaves
ROUNDS = 60  # of smoothing, before the whole displacement is scaled down
REACH = 2  # voxels around a cell that are smoothed with it, one more every few rounds
SLOWER = 8  # rounds per further voxel
SHRINK = 0.8  # by which a displacement that smoothing cannot repair is scaled, again and again


@dataclass(frozen=True, eq=False)
class Bounds:
    """Lower bounds of the determinant.

    least: of all cells, and place: (3,) of that cell's centre in RAS+ mm. bad: (N, 3) indices of
    the cells whose bound is not above the limit asked for; cell (i, j, k) lies between the voxels
    (i, j, k) and (i + 1, j + 1, k + 1). cells: their number in all.
    """

    least: float
    place: Array
    bad: Tensor
    cells: int


@dataclass(frozen=True, eq=False)
class Repair:
    """A field without folds. cells: that could fold before; bounds: of the result.

    scale: of the displacement, below 1 where smoothing was not enough.
    """

    field: DisplacementField
    cells: int
    bounds: Bounds
    scale: float


def bounds_of(field: DisplacementField, limit: float = 0.0, linear: Array | None = None) -> Bounds:
    """Lower bounds of det(dT/dx) of a field in every cell, relative to that of a linear map.

    limit: cells whose bound is at most this are bad. linear: (3, 3), by default the identity.
    """
    matrix = np.eye(3) if linear is None else linear
    grid = field.grid
    # Positions in the coordinates in which the linear map is the step to the next voxel.
    into = torch.from_numpy(np.linalg.inv(matrix @ grid.affine[:3, :3]))
    moved = thick(field.vectors().double())[0]
    moved = (into.to(moved) @ moved.flatten(1)).reshape(moved.shape)
    still = torch.from_numpy(np.linalg.inv(matrix @ grid.affine[:3, :3]) @ grid.affine[:3, :3])
    changes = []
    for axis in range(3):
        step = moved.diff(dim=axis + 1)
        step += (still - torch.eye(3, dtype=still.dtype)).to(step)[:, axis].reshape(3, 1, 1, 1)
        changes.append(highest(step.square().sum(0), axis))
    size = sum(changes[1:], changes[0]).sqrt()
    unsure = (size >= min(SURE, float(size.max()))).nonzero()
    least = [
        least_coefficients(moved, part, still.to(moved)) for part in torch.split(unsure, AT_ONCE)
    ]
    lows = torch.cat(least)
    worst = int(lows.argmin())
    beside = np.array([0.0 if n == 1 else 0.5 for n in grid.shape])
    centre = grid.to_world(unsure[worst].cpu().numpy() * (beside > 0) + beside)
    return Bounds(float(lows[worst]), centre, unsure[~(lows > limit)], size.numel())


def thick(x: Tensor) -> Tensor:
    """(1, C, X, Y, Z), twice along each axis of one voxel."""
    return x.expand(-1, -1, *(max(n, 2) for n in x.shape[2:]))


def highest(edges: Tensor, axis: int) -> Tensor:
    """The largest value at the four edges along an axis of each cell."""
    for other in {0, 1, 2} - {axis}:
        n = edges.shape[other] - 1
        edges = torch.maximum(edges.narrow(other, 0, n), edges.narrow(other, 1, n))
    return edges


def least_coefficients(moved: Tensor, cells: Tensor, still: Tensor) -> Tensor:
    """The least Bernstein coefficient of the determinant in some cells (N, 3): (N,).

    moved: (3, X, Y, Z), displacements. still: (3, 3), the steps without displacement;
    both in the same coordinates, of which the determinant is that of the map.
    """
    corners = []
    for corner in itertools.product((0, 1), repeat=3):
        i, j, k = (cells[:, axis] + side for axis, side in enumerate(corner))
        corners.append(moved[:, i, j, k].T)
    at = torch.stack(corners, 1).reshape(-1, 2, 2, 2, 3)
    columns = [at.select(1 + axis, 1) - at.select(1 + axis, 0) for axis in range(3)]
    first, second, third = (edge + still[:, axis] for axis, edge in enumerate(columns))
    found = at.new_zeros(len(at), 3, 3, 3)
    share = (1.0, 0.5, 1.0)  # of a product of two Bernstein polynomials of degree 1
    for p, q, r, s, t, u in itertools.product((0, 1), repeat=6):
        a, b, c = r + t, p + u, q + s
        sides = first[:, p, q], second[:, r, s], third[:, t, u]
        det = triple_product(*(side.unbind(-1) for side in sides))
        found[:, a, b, c] += share[a] * share[b] * share[c] * det
    return found.flatten(1).amin(1)


def without_folds(field: DisplacementField, affine: Array) -> Repair:
    """The field, smoothed around the cells that may fold until none may.

    affine: (4, 4), the linear part of the map in RAS+ mm, which stays. Cells have a bound above
    LEAST of its determinant. If smoothing does not suffice, all of the displacement is scaled down.
    Raises InputError if the linear part mirrors.
    """
    linear = affine[:3, :3]
    if np.linalg.det(linear) <= 0:
        raise InputError("no_folds: the initial transform mirrors the image, so all of it folds")
    grid = field.grid
    bounds = bounds_of(field, LEAST, linear)
    count = len(bounds.bad)
    if not count:
        return Repair(field, 0, bounds, 1.0)
    straight = linear_on(grid, (affine - np.eye(4)) @ grid.affine, slice(None))
    rest = field.vectors().cpu() - straight
    scale = 1.0

    def whole() -> DisplacementField:
        return DisplacementField((straight + scale * rest).to(field.device), grid)

    for turn in range(ROUNDS):
        weight = around(bounds.bad.cpu(), grid, REACH + turn // SLOWER)
        for _ in range(2):
            rest = rest + weight * (smoothed(rest) - rest)
        bounds = bounds_of(whole(), LEAST, linear)
        if not len(bounds.bad):
            break
    while len(bounds.bad):
        scale *= SHRINK
        bounds = bounds_of(whole(), LEAST, linear)
    return Repair(whole(), count, bounds, scale)


def around(cells: Tensor, grid: Grid, reach: int) -> Tensor:
    """(1, 1, X, Y, Z): 1 at the corners of cells (N, 3), falling to 0 over `reach` voxels."""
    marks = torch.zeros(grid.shape)
    last = torch.tensor(grid.shape) - 1
    for corner in itertools.product((0, 1), repeat=3):
        i, j, k = torch.minimum(cells + torch.tensor(corner), last).T
        marks[i, j, k] = 1
    weight = marks[None, None]
    for _ in range(reach):
        weight = torch.maximum(weight, smoothed(max_pool3d(weight, 3, 1, 1)))
    return weight

"""Solving x + d(x) = y for x, point by point."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from ..ops import invert
from ..runtime.device import fetched, sent, true_places
from ..volumes.grid import Array, Grid
from ..volumes.resample import index_flow, turned

MAX_NEWTON = 60
LOOK = 6  # iterations between two reads of the remaining points from a device
TOLERANCE = 9e-4  # mm, or of a smaller voxel: the rest of 1e-3 is left for rounding


class Inverter:
    """The inverse of T(x) = x + d(x), where d keeps its edge value outside its grid.

    vectors: d, (1, 3, X, Y, Z) in RAS+ mm on `grid`; its device computes.
    Points are iterated as x <- x - M (T(x) - y) (Chen et al., Med. Phys. 2008, with M = 1), where M
    is the inverse of the linear map nearest to T, so that a rotation or scale in d does no harm.
    Where this converges slowly or not at all, the Levenberg-Marquardt method with the field's own
    derivative is used.
    """

    def __init__(self, vectors: Tensor, grid: Grid) -> None:
        self.grid = grid
        self.to_index = np.linalg.inv(grid.affine)[:3, :3]
        self.field = turned(self.to_index, vectors)
        self.tolerance = TOLERANCE * min(1.0, grid.spacing.min())  # mm
        self.linear, self.offset = self._nearest_affine(vectors)
        self.cells = Cells(self.field, grid)

    def start(self, targets: Array) -> Array:
        """A first guess (N, 3) for targets (N, 3), both in RAS+ mm."""
        return targets @ self.linear.T + self.offset

    def solve(self, targets: Array, start: Array) -> Array:
        """Points x (N, 3) with |T(x) - y| under 1e-3 mm (or of a voxel), for targets y (N, 3).

        start: (N, 3), a guess. All in RAS+ mm. If no x exists, a point of locally minimal error.
        """
        if not len(targets):
            return targets.copy()
        # Arranged as a padded cube, whose indices are small numbers.
        side = math.ceil(len(targets) ** (1 / 3))
        pile = np.arange(side**3) % len(targets)
        own = np.indices((side, side, side)).reshape(3, -1)
        goal, flow = (
            sent(self.grid.to_index(points)[pile].T - own, self.field)
            for points in (targets, start)
        )
        cube = (1, 3, side, side, side)
        flow, solved = self._iterate(goal.reshape(cube), flow.reshape(cube))
        index = fetched(flow.double()).reshape(3, -1) + own
        points = self.grid.to_world(index[:, : len(targets)].T)
        rest = np.flatnonzero(~fetched(solved).ravel()[: len(targets)])
        wide = self.cells.matrix
        points[rest] = fetched(self._newton(sent(targets[rest], wide), sent(points[rest], wide)))
        return points

    def solve_on(self, grid: Grid, planes: slice, guess: Tensor | None) -> Tensor:
        """The displacement x - y for the voxels y of some planes: (1, 3, x, Y, Z) RAS+ mm.

        guess: an initial x - y, of the same shape.
        """
        device = self.field.device
        goal = index_flow(grid, self.grid, planes, device=device)
        if guess is None:
            linear = np.eye(4)
            linear[:3, :3], linear[:3, 3] = self.linear, self.offset
            into = Grid(self.grid.shape, np.linalg.inv(linear) @ self.grid.affine)
            flow = index_flow(grid, into, planes, device=device)
        else:
            flow = goal + turned(self.to_index, guess)
        flow, solved = self._iterate(goal, flow)
        out = turned(self.grid.affine[:3, :3], flow - goal)
        rest = true_places(~solved)
        if len(rest):
            width, depth = grid.shape[1:]
            voxels = [planes.start + rest // (width * depth), rest // depth % width, rest % depth]
            affine = sent(grid.affine, self.cells.matrix)
            targets = torch.stack(voxels, -1).double() @ affine[:3, :3].T + affine[:3, 3]
            ways = out.view(3, -1)
            points = self._newton(targets, targets + ways[:, rest].T)
            ways[:, rest] = (points - targets).T.to(ways.dtype)
        return out

    def _iterate(self, goal: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """The flow, and the mask of the voxels where the iteration converges well."""
        matrix = self.grid.affine[:3, :3]
        step = self.to_index @ self.linear @ matrix
        numbers = step.ravel().tolist(), matrix.ravel().tolist()
        return invert(self.field, goal, flow, *numbers, self.tolerance)

    def _newton(self, targets: Tensor, points: Tensor) -> Tensor:
        """Points (N, 3) nearer to T(x) = y than those given, for y (N, 3): RAS+ mm, float64."""
        look = 1 if points.device.type == "cpu" else LOOK
        points, damping = points.clone(), torch.full_like(points[:, 0], 1e-3)
        error, slope = self.cells.evaluate(points, targets)
        size = error.square().sum(-1)
        one = torch.eye(3, dtype=points.dtype, device=points.device)
        going = torch.arange(len(points), device=points.device)
        for turn in range(MAX_NEWTON):
            if turn % look == 0:  # finished points do not change in between
                going = going[true_places(self._unsolved(size, damping)[going])]
                if not len(going):
                    break
            begun, damp = points[going], damping[going]
            active = self._unsolved(size, damping)[going]
            transposed = slope[going].mT
            normal = transposed @ slope[going] + damp[:, None, None] * one
            step, _ = torch.linalg.solve_ex(normal, transposed @ error[going][..., None])
            trial = begun - step[..., 0]
            new_error, new_slope = self.cells.evaluate(trial, targets[going])
            new_size = new_error.square().sum(-1)
            better = (new_size < (1 - 1e-6) * size[going]) & active  # by more than rounding
            damping[going] = torch.where(active, damp * torch.where(better, 0.1, 10.0), damp)
            for all_, new in (
                (points, trial),
                (size, new_size),
                (error, new_error),
                (slope, new_slope),
            ):
                chosen = better.reshape(-1, *[1] * (new.dim() - 1))
                all_[going] = torch.where(chosen, new, all_[going])
        return points

    def _unsolved(self, size: Tensor, damping: Tensor) -> Tensor:
        return (size > self.tolerance**2) & (damping < 1e8)

    def _nearest_affine(self, vectors: Tensor) -> tuple[Array, Array]:
        """Matrix and offset of the inverse of the affine map nearest to T on a coarse lattice."""
        steps = [slice(None, None, max(1, n // 16)) for n in self.grid.shape]
        axes = [np.arange(n, dtype=float)[s] for n, s in zip(self.grid.shape, steps, strict=True)]
        source = self.grid.to_world(np.stack(np.meshgrid(*axes, indexing="ij"), -1)).reshape(-1, 3)
        moved = source + fetched(vectors[0][(slice(None), *steps)]).reshape(3, -1).T
        centre, moved_centre = source.mean(0), moved.mean(0)
        fit, *_ = np.linalg.lstsq(source - centre, moved - moved_centre, rcond=None)
        forward = fit.T
        if min(self.grid.shape) < 2 or np.linalg.cond(forward) > 100:
            forward = np.eye(3)
        linear = np.linalg.inv(forward)
        return linear, centre - linear @ moved_centre


class Cells:
    """T(x) = x + d(x) and its derivative at scattered points, in float64.

    field: d, (1, 3, X, Y, Z), in voxels of `grid`.
    """

    def __init__(self, field: Tensor, grid: Grid) -> None:
        wide = field.new_empty(0, dtype=torch.float64)
        self.values = field.reshape(3, -1)
        self.shape = grid.shape
        self.matrix = sent(grid.affine[:3, :3], wide)
        self.back = sent(np.linalg.inv(grid.affine), wide)
        self.last = sent(np.array(grid.shape) - 1.0, wide)
        self.one = sent(np.eye(3), wide)

    def evaluate(self, points: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """T(x) - y, (N, 3), and the derivative of T, (N, 3, 3), at points x (N, 3) in RAS+ mm.

        For the derivative d keeps its edge value outside.
        """
        index = points @ self.back[:3, :3].T + self.back[:3, 3]
        nearest = index.clamp(min=torch.zeros_like(self.last), max=self.last)
        base = torch.minimum(nearest.floor(), (self.last - 1).clamp(min=0))
        above = nearest - base
        sides = [1 - above, above]
        ends = [base.long(), torch.minimum(base + 1, self.last).long()]
        shift, slope = torch.zeros_like(points), points.new_zeros(len(points), 3, 3)  # by voxel
        _, width, depth = self.shape
        for corner in itertools.product((0, 1), repeat=3):
            i, j, k = (ends[side][:, axis] for axis, side in enumerate(corner))
            value = self.values[:, (i * width + j) * depth + k].T.to(points.dtype)
            factor = [sides[side][:, axis, None] for axis, side in enumerate(corner)]
            shift += factor[0] * factor[1] * factor[2] * value
            for axis, side in enumerate(corner):
                first, second = (factor[other] for other in range(3) if other != axis)
                slope[:, :, axis] += (first * second * (1 if side else -1)) * value
        outside = (index < 0) | (index > self.last)
        slope = torch.where(outside[:, None, :], 0.0, slope)
        error = points - targets + shift @ self.matrix.T
        return error, self.one + self.matrix @ slope @ self.back[:3, :3]

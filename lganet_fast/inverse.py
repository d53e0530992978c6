"""Solving x + d(x) = y for x, point by point."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .grid import Array, Grid
from .ops import invert
from .resample import channels_first, channels_last, index_flow, turned
from .sampling import cell

MAX_NEWTON = 60
TOLERANCE = 9e-4  # of a mm, or of a smaller voxel: the rest of 1e-3 is left to rounding


class Inverter:
    """The inverse of T(x) = x + d(x), where d keeps its edge value outside its grid.

    displacement: (X, Y, Z, 3) in RAS+ mm on `grid`. Points are iterated as x <- x - M (T(x) - y)
    (Chen et al., Med. Phys. 2008, with M = 1), M being the inverse of the linear map nearest to T,
    so that a rotation or a scale in d does no harm. Where that converges slowly or not at all, the
    Levenberg-Marquardt method with the field's own derivative takes over.
    """

    def __init__(self, displacement: NDArray, grid: Grid) -> None:
        self.displacement = displacement
        self.grid = grid
        self.to_index = np.linalg.inv(grid.affine)[:3, :3]
        self.field = turned(self.to_index, channels_first(displacement))
        self.tolerance = TOLERANCE * min(1.0, grid.spacing.min())  # mm
        self.linear, self.offset = self._nearest_affine()

    def start(self, targets: Array) -> Array:
        """A first guess (N, 3) for targets (N, 3), both in RAS+ mm."""
        return targets @ self.linear.T + self.offset

    def solve(self, targets: Array, start: Array) -> Array:
        """Points x (N, 3) with |T(x) - y| under 1e-3 mm (or of a voxel), for targets y (N, 3).

        start: (N, 3), a guess. All in RAS+ mm. Where no x exists, one of locally least error.
        """
        if not len(targets):
            return targets.copy()
        # Piled up as a cube, whose indices are small numbers, and the rest of it filled up.
        side = math.ceil(len(targets) ** (1 / 3))
        pile = np.arange(side**3) % len(targets)
        own = np.indices((side, side, side)).reshape(3, -1)
        goal, flow = (
            torch.from_numpy((self.grid.to_index(points)[pile].T - own).astype(np.float32))
            for points in (targets, start)
        )
        cube = (1, 3, side, side, side)
        flow, solved = self._iterate(goal.reshape(cube), flow.reshape(cube))
        index = flow.double().reshape(3, -1).numpy() + own
        points = self.grid.to_world(index[:, : len(targets)].T)
        rest = np.flatnonzero(~solved.flatten()[: len(targets)].numpy())
        points[rest] = self._newton(targets[rest], points[rest])
        return points

    def solve_on(self, grid: Grid, planes: slice, guess: Tensor | None) -> Tensor:
        """The way x - y for the voxels y of some planes of a grid: (1, 3, x, Y, Z) RAS+ mm.

        guess: a first x - y, alike.
        """
        goal = index_flow(grid, self.grid, planes)
        if guess is None:
            linear = np.eye(4)
            linear[:3, :3], linear[:3, 3] = self.linear, self.offset
            into = Grid(self.grid.shape, np.linalg.inv(linear) @ self.grid.affine)
            flow = index_flow(grid, into, planes)
        else:
            flow = goal + turned(self.to_index, guess)
        flow, solved = self._iterate(goal, flow)
        out = turned(self.grid.affine[:3, :3], flow - goal)
        rest = (~solved[0].numpy()).nonzero()
        if rest[0].size:
            voxels = np.stack(rest, -1) + np.array([planes.start, 0, 0])
            targets = grid.to_world(voxels)
            vectors = channels_last(out)
            vectors[rest] = self._newton(targets, targets + vectors[rest]) - targets
        return out

    def _iterate(self, goal: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """The flow where the iteration converges well, and where that is."""
        matrix = self.grid.affine[:3, :3]
        step = self.to_index @ self.linear @ matrix
        numbers = step.ravel().tolist(), matrix.ravel().tolist()
        return invert(self.field, goal, flow, *numbers, self.tolerance)

    def _newton(self, targets: Array, points: Array) -> Array:
        damping = np.full(len(points), 1e-3)
        error, slope = self._evaluate(points, targets)
        size = (error**2).sum(-1)
        active = np.arange(len(points))
        for _ in range(MAX_NEWTON):
            active = active[(size[active] > self.tolerance**2) & (damping[active] < 1e8)]
            if not len(active):
                break
            transposed = slope[active].transpose(0, 2, 1)
            normal = transposed @ slope[active] + damping[active, None, None] * np.eye(3)
            step = np.linalg.solve(normal, transposed @ error[active, :, None])[..., 0]
            trial = points[active] - step
            new_error, new_slope = self._evaluate(trial, targets[active])
            new_size = (new_error**2).sum(-1)
            better = new_size < (1 - 1e-6) * size[active]  # by more than rounding
            damping[active] *= np.where(better, 0.1, 10)
            chosen = active[better]
            points[chosen], size[chosen] = trial[better], new_size[better]
            error[chosen], slope[chosen] = new_error[better], new_slope[better]
        return points

    def _evaluate(self, points: Array, targets: Array) -> tuple[Array, Array]:
        """T(x) - y, (N, 3), and the derivative of T, (N, 3, 3), at points (N, 3)."""
        index = self.grid.to_index(points)
        error = points - targets
        slope = np.zeros((len(points), 3, 3))  # by voxel
        for voxel, factors, sign in cell(index, self.grid.shape):
            value = self.displacement[tuple(voxel.T)].astype(np.float64)
            error += factors.prod(-1)[:, None] * value
            for axis in range(3):
                others = np.delete(factors, axis, 1).prod(-1) * sign[axis]
                slope[:, :, axis] += others[:, None] * value
        outside = (index < 0) | (index > np.array(self.grid.shape) - 1)
        slope *= ~outside[:, None, :]
        return error, np.eye(3) + slope @ self.to_index

    def _nearest_affine(self) -> tuple[Array, Array]:
        """Matrix and offset of the inverse of the affine map nearest to T on a coarse lattice."""
        steps = [slice(None, None, max(1, n // 16)) for n in self.grid.shape]
        axes = [np.arange(n, dtype=float)[s] for n, s in zip(self.grid.shape, steps, strict=True)]
        source = self.grid.to_world(np.stack(np.meshgrid(*axes, indexing="ij"), -1)).reshape(-1, 3)
        moved = source + self.displacement[tuple(steps)].reshape(-1, 3)
        centre, moved_centre = source.mean(0), moved.mean(0)
        fit, *_ = np.linalg.lstsq(source - centre, moved - moved_centre, rcond=None)
        forward = fit.T
        if min(self.grid.shape) < 2 or np.linalg.cond(forward) > 100:
            forward = np.eye(3)
        linear = np.linalg.inv(forward)
        return linear, centre - linear @ moved_centre

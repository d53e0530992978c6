"""The images of a pair at one resolution, prepared for the linear stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d, max_pool3d, pad

from ...errors import InputError
from ...runtime.device import fetched, placed
from ...volumes.grid import Array, Grid
from ...volumes.resample import smoothed
from ..objective import LEAST_WEIGHT
from ..seen import Seen

RING = 2  # voxels around the moving image, so that it falls to the background outside
MARGIN = 0.3  # of the radius, around the fixed image: there the moving one must be background too
NEAR = 3  # voxels around the fixed foreground from which a limited number of points is taken
SAMPLES = 64  # voxels per axis, at most, from which moments are computed
FOREGROUND = 0.02  # of the foreground's range: higher intensities are foreground


@dataclass(frozen=True, eq=False)
class Frame:
    """The position and size of the fixed anatomy.

    centre: (3,) its mean position in RAS+ mm. radius: root mean square distance from the centre, in
    mm; about 50 for brains.
    """

    centre: Array
    radius: float

    @classmethod
    def of(cls, centre: Array, covariance: Array) -> Frame:
        """From a mean position and a covariance."""
        return cls(centre, max(float(np.sqrt(np.trace(covariance))), 1e-6))


@dataclass(frozen=True, eq=False)
class Level:
    """An image (1, 1, h, w, d) and its weight of the same shape (None: all ones), on a grid."""

    image: Tensor
    weight: Tensor | None
    grid: Grid


def pyramid(
    seen: Seen, spacings: Sequence[float], device: torch.device, weight: Tensor | None
) -> list[Level]:
    """An image at given spacings in mm, coarse to fine. weight: (1, 1, X, Y, Z) or None."""
    level = Level(placed(np.asarray(seen.image.data), device)[None, None], weight, seen.image.grid)
    found = []
    for spacing in reversed(spacings):
        level = coarser(level, spacing)
        found.append(level)
    return found[::-1]


def coarser(level: Level, spacing: float) -> Level:
    """The level at about a spacing in mm, by means of blocks; unchanged if it is not finer."""
    size = np.array(level.grid.shape)
    factors = np.maximum(1, np.round(spacing / level.grid.spacing)).astype(int)
    factors = np.minimum(factors, np.maximum(1, size // 4))
    if (factors == 1).all():
        return level
    a, b, c = (int(f) for f in factors)
    ends = [int(-n % f) for n, f in zip(size, factors, strict=True)]
    around = [x for end in reversed(ends) for x in (0, end)]

    def pooled(x: Tensor) -> Tensor:
        return avg_pool3d(pad(x, around, mode="replicate"), (a, b, c))

    affine = level.grid.affine.copy()
    affine[:3, 3] = level.grid.to_world((factors - 1) / 2)
    affine[:3, :3] *= factors
    image = weighted(pooled, level)
    shape = image.shape[2], image.shape[3], image.shape[4]
    weight = None if level.weight is None else pooled(level.weight)
    return Level(image, weight, Grid(shape, affine))


def weighted(mean: Callable[[Tensor], Tensor], level: Level) -> Tensor:
    """A local mean of the image, in which voxels count by their weight."""
    if level.weight is None:
        return mean(level.image)
    least = level.weight.clamp_min(LEAST_WEIGHT)  # where no neighbour has weight all count alike
    return mean(level.image * least) / mean(least)


def smoothed_level(level: Level) -> Level:
    """The level smoothed; only voxels all of whose neighbours have weight keep theirs, if any."""
    weight = level.weight
    if weight is not None:
        inner = -max_pool3d(-weight, 3, 1, 1)
        weight = inner if inner.any() else weight
    return Level(weighted(smoothed, level), weight, level.grid)


def padded(level: Level, cut: list[tuple[bool, bool]], width: Array) -> Level:
    """The level padded by `width` voxels (3,) of background, or of weight 0 beyond a cut face."""
    a, b, c = (int(n) for n in width)
    around = [c, c, b, b, a, a]
    image = pad(level.image, around, mode="replicate")
    weight = level.weight
    if weight is None and np.any(cut):
        weight = torch.ones_like(level.image)
    weight = None if weight is None else pad(weight, around, mode="replicate")
    for axis, (faces, n) in enumerate(zip(cut, (a, b, c), strict=True)):
        size = image.shape[2 + axis]
        for start, is_cut in zip((0, size - n), faces, strict=True):
            if is_cut and weight is not None:
                weight.narrow(2 + axis, start, n).zero_()
            elif not is_cut:
                image.narrow(2 + axis, start, n).zero_()
    affine = level.grid.affine.copy()
    affine[:3, 3] = level.grid.to_world(-np.asarray(width, float))
    shape = image.shape[2], image.shape[3], image.shape[4]
    return Level(image, weight, Grid(shape, affine))


@dataclass(frozen=True, eq=False)
class Points:
    """Points of the fixed image: places (N, 3) relative to the frame's centre, values, weights."""

    places: Tensor
    values: Tensor
    weights: Tensor
    frame: Frame


def points_of(level: Level, cut: list[tuple[bool, bool]], frame: Frame, most: int) -> Points:
    """At most `most` voxels of a level: all, or an even choice of those near the foreground.

    Raises InputError if there is none.
    """
    width = np.ceil(MARGIN * frame.radius / level.grid.spacing)
    ring = padded(smoothed_level(level), cut, width)
    image = ring.image
    counts = torch.ones_like(image) if ring.weight is None else ring.weight
    chosen = (counts > 0).flatten().nonzero()[:, 0]
    if len(chosen) > most:
        foreground = (image > FOREGROUND).to(image.dtype)
        near = max_pool3d(foreground, 2 * NEAR + 1, 1, NEAR)
        chosen = ((counts > 0) & (near > 0)).flatten().nonzero()[:, 0]
    if len(chosen) > most:
        evenly = ((torch.arange(most, dtype=torch.float64) + 0.5) * (len(chosen) / most)).long()
        chosen = chosen[evenly.to(chosen.device)]
    if not len(chosen):
        raise InputError("the fixed mask leaves no voxel near the foreground to align by")
    index = np.stack(np.unravel_index(fetched(chosen), ring.grid.shape), -1)
    places = torch.from_numpy((ring.grid.to_world(index) - frame.centre).astype(np.float32))
    values, weights = (x.flatten()[chosen] for x in (image, counts))
    return Points(places.to(image.device), values, weights, frame)


@dataclass(frozen=True, eq=False)
class Slopes:
    """The moving image with its slopes per mm, (1, 4 or 5, h, w, d); the fifth is its weight."""

    channels: Tensor
    grid: Grid


def slopes_of(level: Level, cut: list[tuple[bool, bool]]) -> Slopes:
    """The moving image of a level, with its slopes."""
    ring = padded(smoothed_level(level), cut, np.full(3, RING, float))
    steps = torch.stack(torch.gradient(ring.image[0, 0]))
    turn = torch.from_numpy(np.linalg.inv(ring.grid.affine[:3, :3]).T).to(steps)
    slopes = (turn @ steps.flatten(1)).reshape(steps.shape)
    parts = [ring.image[0], slopes]
    if ring.weight is not None:
        parts.append(ring.weight[0])
    return Slopes(torch.cat(parts)[None].contiguous(), ring.grid)


def moments(seen: Seen) -> tuple[Array, Array]:
    """The mean position (3,) of an image's foreground in RAS+ mm, and covariance (3, 3) in mm^2.

    The intensity has little influence, so that images of different contrasts give similar moments.
    """
    grid = seen.image.grid
    steps = [-(-n // SAMPLES) for n in grid.shape]
    every = tuple(slice(step // 2, None, step) for step in steps)
    weight = (seen.image.data[every].astype(float) * 5).clip(0, 1).ravel()
    if not weight.any():
        weight[:] = 1
    lines = [np.arange(n, dtype=float)[part] for n, part in zip(grid.shape, every, strict=True)]
    world = grid.to_world(np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, 3))
    centre = weight @ world / weight.sum()
    apart = world - centre
    return centre, (apart * weight[:, None]).T @ apart / weight.sum()

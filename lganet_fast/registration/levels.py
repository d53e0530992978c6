"""The levels of a search, coarse to fine.

From level to level the velocity's grid becomes finer, to 1/2 of the resolution. The images are
finer than the velocity: a smooth deformation is found better from images with detail. So they are
at 4 times its resolution, but only the last level takes more than 1/2 of the full resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

FINEST_VELOCITY = 2  # the velocity's grid is never finer than this many working voxels
DETAIL = 4  # voxels of the images along one voxel of the velocity, before the last levels
HALF = 2  # shrink factor of the images up to the last level
LEAST_SIDE = 4  # levels whose velocity has fewer voxels on a side are skipped


@dataclass(frozen=True)
class Level:
    """One level: its shrink factor, the sizes of both grids, the iterations.

    factor: of the velocity's grid; 1 for the images at full resolution.
    """

    factor: int
    images: tuple[int, ...]
    velocity: tuple[int, ...]
    iterations: int

    @property
    def cost(self) -> int:
        """Voxels visited, the unit of progress."""
        return self.iterations * self.images[0] * self.images[1] * self.images[2]


def shrunk(size: tuple[int, ...], factor: int) -> tuple[int, ...]:
    """Grid size at a shrink factor over the same extent."""
    return tuple(max(1, round((n - 1) / factor) + 1) for n in size)


def image_factor(factor: int) -> int:
    """The shrink factor of the images at a level."""
    return 1 if factor == 1 else max(HALF, factor // DETAIL)


def plan_levels(size: tuple[int, ...], iterations: tuple[int, ...]) -> list[Level]:
    """Levels for a working grid of `size`, coarse to fine; the last is at full resolution.

    Levels without iterations and levels that are too coarse are skipped, but never the last level
    with iterations. Returns no level if none has iterations.
    """
    factors = [2 ** (len(iterations) - 1 - k) for k in range(len(iterations))]
    wanted = [(f, n) for f, n in zip(factors, iterations, strict=True) if n > 0]
    solid = tuple(n for n in size if n > 1)
    fine = [(f, n) for f, n in wanted if min(shrunk(solid, f)) >= LEAST_SIDE] or wanted[-1:]
    return [
        Level(f, shrunk(size, image_factor(f)), shrunk(size, max(f, FINEST_VELOCITY)), n)
        for f, n in fine
    ]

"""Reading and checking the pair to register."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..volumes import nifti
from ..volumes.grid import Array, Grid, Volume
from .settings import Sources

LATTICE = 24  # points per axis that overlap is judged by
SPACING_RATIO = 4


@dataclass(frozen=True, eq=False)
class Pair:
    """Both images, their labels and the mask, each on its image's grid."""

    fixed: Volume
    moving: Volume
    fixed_labels: Volume | None
    moving_labels: Volume | None
    fixed_mask: Volume | None


def read_pair(sources: Sources) -> Pair:
    """Read the images, labels and mask.

    Raises InputError with a one-line message.
    """
    given = sources.given()
    for role in ("fixed", "moving"):
        if role not in given:
            raise InputError(f"{role} is missing: pass a volume")
    fixed, moving = (nifti.load_image(given[role], role) for role in ("fixed", "moving"))

    def beside(role: str, grid: Grid, load: Callable[..., Volume]) -> Volume | None:
        return load(given[role], role, grid) if role in given else None

    return Pair(
        fixed,
        moving,
        beside("fixed_labels", fixed.grid, nifti.load_labels),
        beside("moving_labels", moving.grid, nifti.load_labels),
        beside("fixed_mask", fixed.grid, nifti.load_mask),
    )


def apply_affine(matrix: NDArray[np.floating], points: NDArray[np.floating]) -> Array:
    """Map (..., 3) points by a (4, 4) matrix."""
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3], np.float64)


def overlap(fixed: Grid, moving: Grid, affine: Array) -> float:
    """Fraction of the fixed grid, 0 to 1, that lies inside the moving grid."""
    lines = [np.linspace(0, n - 1, LATTICE) for n in fixed.shape]
    points = fixed.to_world(np.stack(np.meshgrid(*lines, indexing="ij"), -1))
    index = moving.to_index(apply_affine(affine, points))
    inside = (index >= -0.5) & (index <= np.array(moving.shape) - 0.5)
    return float(inside.all(-1).mean())


def pair_warnings(pair: Pair, part: float) -> list[str]:
    """Warnings that the user should check before trusting a result.

    part: fraction of the fixed grid, 0 to 1, inside the moving grid: `overlap`.
    Raises InputError if the two images do not overlap.
    """
    found = []
    fixed, moving = pair.fixed.grid, pair.moving.grid
    codes = nifti.orientation(fixed), nifti.orientation(moving)
    if codes[0] != codes[1]:
        found.append(
            f"orientation differs: fixed {codes[0]}, moving {codes[1]}; the affines are trusted"
        )
    ratio = max(np.max(fixed.spacing / moving.spacing), np.max(moving.spacing / fixed.spacing))
    if codes[0] == codes[1] and ratio > SPACING_RATIO:
        sizes = ["x".join(f"{s:.3g}" for s in g.spacing) for g in (fixed, moving)]
        found.append(f"spacing differs {ratio:.1f}-fold: fixed {sizes[0]} mm, moving {sizes[1]} mm")
    if part == 0:
        raise InputError(
            "fixed and moving do not overlap in world space: "
            f"fixed is {nifti.describe_grid(fixed)}, moving is {nifti.describe_grid(moving)}; "
            "align them first, or use initial rigid or affine"
        )
    return found

"""Reading and checking the pair to register."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..errors import InputError
from ..volumes import nifti
from ..volumes.grid import Array, Grid, Volume, apply_affine
from ..volumes.points import load_points
from ..volumes.sampling import inside
from .settings import POINT_ROLES, Sources

LATTICE = 24  # points per axis that overlap is judged by
SPACING_RATIO = 4
PLANE = 0.01  # of the thickness: distance of 2D images that lie in one plane
POINTS_NAMED = 8  # points that an error lists


Masks: TypeAlias = tuple[Volume | None, Volume | None]


@dataclass(frozen=True, eq=False)
class Pair:
    """Both images, their labels and masks, each on its image's grid.

    points: (N, 3) in the fixed and in the moving image, matching by row, in RAS+ mm; or None.
    further: the images of further channels, on grids of their own.
    """

    fixed: Volume
    moving: Volume
    fixed_labels: Volume | None = None
    moving_labels: Volume | None = None
    fixed_mask: Volume | None = None
    moving_mask: Volume | None = None
    points: tuple[Array, Array] | None = None
    further: tuple[tuple[Volume, Volume], ...] = ()

    @property
    def masks(self) -> Masks:
        """Of the fixed and of the moving image, on its grid."""
        first, second = (
            None if mask is None else Volume(mask.data, image.grid, mask.name)
            for image, mask in ((self.fixed, self.fixed_mask), (self.moving, self.moving_mask))
        )
        return first, second


def read_pair(sources: Sources) -> Pair:
    """Read the images, labels, masks and points.

    Raises InputError with a one-line message.
    """
    given = sources.given()
    for role in ("fixed", "moving"):
        if role not in given:
            raise InputError(f"{role} is missing: pass a volume")
    sides = [
        [nifti.load_image(source, role) for role, source in sources.images(side).items()]
        for side in ("fixed", "moving")
    ]
    (fixed, moving), *further = zip(*sides, strict=True)
    for image in (image for side in sides for image in side):
        check_plane(fixed, image)

    def beside(role: str, grid: Grid, load: Callable[..., Volume]) -> Volume | None:
        return load(given[role], role, grid) if role in given else None

    return Pair(
        fixed,
        moving,
        beside("fixed_labels", fixed.grid, nifti.load_labels),
        beside("moving_labels", moving.grid, nifti.load_labels),
        beside("fixed_mask", fixed.grid, nifti.load_mask),
        beside("moving_mask", moving.grid, nifti.load_mask),
        read_matching(sources, fixed.grid, moving.grid),
        tuple(further),
    )


def check_plane(fixed: Volume, other: Volume) -> None:
    """Raise InputError for a 2D and a 3D image, and for 2D images in different planes."""
    first, second = fixed.grid.flat, other.grid.flat
    if (first is None) != (second is None):
        kinds = ("2D" if axis is not None else "3D" for axis in (first, second))
        raise InputError(
            "{} is {} and {} is {}: both must be the same".format(
                *(x for pair in zip((fixed.name, other.name), kinds, strict=True) for x in pair)
            )
        )
    if first is None:
        return
    apart = np.abs(fixed.grid.to_index(other.grid.corners())[:, first]).max()
    if apart > PLANE:
        mm = apart * fixed.grid.spacing[first]
        raise InputError(
            f"{fixed.name} and {other.name} are 2D images in different planes, up to {mm:.3g} mm "
            "apart: give both the same plane in their headers"
        )


def read_matching(sources: Sources, fixed: Grid, moving: Grid) -> tuple[Array, Array] | None:
    """Read the matching points (N, 3) of both images, in RAS+ mm; None if they have none.

    Raises InputError if one is missing, if their numbers differ, and for points outside the image.
    """
    given = sources.points()
    if not given:
        return None
    first, second = (load_points(given.get(role), role) for role in POINT_ROLES)
    if len(first) != len(second):
        raise InputError(
            f"fixed_points has {len(first)} points and moving_points has {len(second)}: "
            "they must match by row"
        )
    for role, points, grid in zip(POINT_ROLES, (first, second), (fixed, moving), strict=True):
        out = 1 + np.flatnonzero(~inside(grid.to_index(points), grid.shape))
        if out.size:
            more = ", ..." * (out.size > POINTS_NAMED)
            raise InputError(
                f"{role}: {out.size} of {len(points)} lie outside the image, "
                f"which is {nifti.describe_grid(grid)}: number "
                f"{', '.join(map(str, out[:POINTS_NAMED]))}{more}"
            )
    return first, second


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

"""Linear alignment: the starting poses, the resolutions, and doubts about the result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...runtime.device import CPU, placed
from ...volumes.grid import Array, Volume
from ..pair import Masks
from ..seen import Seen
from ..settings import INITIALS
from . import levels, search
from .maps import about, degrees
from .objective import Fit, Objective
from .refine import refine

SPACINGS = (0.16, 0.08, 0.04)  # of the radius, between voxels of each level; brains: 8, 4, 2 mm
MOST = (30_000, 60_000, 120_000)  # points compared on each level
STEPS = (12, 8, 10)
ENOUGH = (6e-3, 4e-3, 4e-4)  # of the radius: smaller steps end a level
SEARCHED = 6_000  # points compared in the search of poses
TRIED, KEPT = 12, 4  # poses that are refined on the first level and on the second
HEADERS = 0.98  # of the best likelihood; of fits above it, the smallest rotation is taken
# Thresholds of doubts. Brains of two subjects have a score of 0.8 to 0.94, and the best other pose
# 0.43 to 0.65 of the likelihood.
POOR, RIVAL, LITTLE = 0.3, 0.9, 0.25


@dataclass(frozen=True, eq=False)
class LinearResult:
    """A linear alignment.

    matrix: (4, 4), fixed points to moving points, both in RAS+ mm. score: the correlation ratio, 0
    to 1. overlap: the fraction of the fixed image and its surroundings that is inside the moving
    one. Both are NaN if they were not computed. rival: the likelihood of the best other pose, one
    that differs by more than 18 degrees or a third of the radius, divided by that of the result.
    doubts: reasons why the result may be wrong, one line each.
    """

    matrix: Array
    score: float = float("nan")
    overlap: float = float("nan")
    rival: float = 0.0
    doubts: tuple[str, ...] = ()


class Images:
    """Both images at every resolution."""

    def __init__(self, fixed: Volume, moving: Volume, masks: Masks, device: torch.device) -> None:
        """masks: of the fixed and of the moving image, non-zero where the fit counts."""
        seen = Seen.of(fixed), Seen.of(moving)
        self.cuts = seen[0].cut, seen[1].cut
        self.seen = seen
        self.moments = levels.moments(seen[0]), levels.moments(seen[1])
        self.frame = levels.Frame.of(*self.moments[0])
        spacings = [part * self.frame.radius for part in SPACINGS]
        self.fixed, self.moving = (
            levels.pyramid(s, spacings, device, None if mask is None else as_weight(mask, device))
            for s, mask in zip(seen, masks, strict=True)
        )

    @property
    def centres(self) -> tuple[Array, Array]:
        """The centre (3,) of each image's foreground, in RAS+ mm."""
        return self.moments[0][0], self.moments[1][0]

    def objective(self, number: int, most: int | None = None) -> Objective:
        """The fit as a function of the map, at one resolution. most: points, by default MOST."""
        count = most or MOST[number]
        points = levels.points_of(self.fixed[number], self.cuts[0], self.frame, count)
        return Objective(points, levels.slopes_of(self.moving[number], self.cuts[1]))

    def scale(self) -> float:
        """The size of the moving anatomy over the fixed one's; 1 if one has a partial view."""
        if np.any(self.cuts):
            return 1.0
        spread = [np.trace(covariance) for _, covariance in self.moments]
        return float(np.sqrt(spread[1] / spread[0])) if min(spread) > 0 else 1.0

    def poses(self, scale: float) -> list[Array]:
        """Starting maps: the best of all rotations about possible centres."""
        fixed, moving = (
            search.hidden_shifts(seen.image.grid, cut)
            for seen, cut in zip(self.seen, self.cuts, strict=True)
        )
        centres = search.pairs_of_centres(self.centres, (fixed, moving))
        return search.poses(self.objective(0, SEARCHED), centres, scale, TRIED)


def as_weight(mask: Volume, device: torch.device) -> Tensor:
    """A mask as a weight (1, 1, X, Y, Z)."""
    return placed((np.asarray(mask.data) != 0).astype(np.float32), device)[None, None]


@torch.no_grad()
def align(
    fixed: Volume,
    moving: Volume,
    kind: str = "affine",
    *,
    masks: Masks = (None, None),
    device: torch.device = CPU,
) -> LinearResult:
    """The linear map from the fixed to the moving image, found from any starting pose.

    kind: "identity" trusts the headers. "center" aligns the centres of the foregrounds; "moments"
    also aligns their principal axes, in the order and with the signs that fit best. "rigid",
    "similarity" and "affine" search all rotations and maximise the correlation ratio, which does
    not depend on the relation between the contrasts. masks: of the fixed and of the moving image,
    on their grids, non-zero where the fit is evaluated. The same input gives the same result.
    Raises ValueError for another kind.
    """
    if kind not in INITIALS:
        raise ValueError(f"kind must be one of {', '.join(INITIALS)}, got {kind!r}")
    if kind == "identity":
        return LinearResult(np.eye(4))
    images = Images(fixed, moving, masks, device)
    centred = about(np.eye(3), *images.centres)
    if kind == "center":
        return LinearResult(centred)
    coarse = images.objective(0)
    if kind == "moments":
        ways = search.axes_onto_each_other(*images.moments)
        fit = max(map(coarse.fit, ways), key=lambda fit: fit.likelihood)
        return LinearResult(fit.matrix, fit.score, fit.overlap, 0.0, doubts(fit, [], 0.0))
    return optimised(images, coarse, [np.eye(4), centred], kind)


def optimised(images: Images, coarse: Objective, given: list[Array], kind: str) -> LinearResult:
    """The best map of a kind. given: starting maps besides those of the search."""
    early, scale = ("rigid", 1.0) if kind == "rigid" else ("similarity", images.scale())
    starts = [
        refine(coarse, way, early, STEPS[0], ENOUGH[0]) for way in [*given, *images.poses(scale)]
    ]
    middle = images.objective(1)
    kept = search.different(starts, KEPT)
    fits = search.different(
        [refine(middle, fit.matrix, early, STEPS[1], ENOUGH[1]) for fit in kept], KEPT
    )
    # Of equally good fits, the smallest rotation: headers are usually right.
    good = [fit for fit in fits if fit.likelihood >= HEADERS * fits[0].likelihood]
    best = min(good, key=lambda fit: degrees(fit.matrix[:3, :3]))
    others = [fit for fit in fits if fit is not best]
    rival = others[0].likelihood / max(best.likelihood, 1e-9) if others else 0.0
    if kind != early:
        best = refine(middle, best.matrix, kind, STEPS[1], ENOUGH[1])
    best = refine(images.objective(2), best.matrix, kind, STEPS[2], ENOUGH[2])
    return LinearResult(best.matrix, best.score, best.overlap, rival, doubts(best, others, rival))


def doubts(fit: Fit, others: list[Fit], rival: float) -> tuple[str, ...]:
    """Reasons to doubt a result."""
    found = []
    if fit.score < POOR:
        found.append(
            f"the linear alignment fits poorly: the fixed image explains {fit.score:.0%} of the "
            "moving one's variance"
        )
    if rival > RIVAL:
        turn = search.turn_between(fit.matrix, others[0].matrix)
        found.append(
            f"another pose, turned by {turn:.0f} degrees, fits nearly as well as the linear "
            f"alignment ({rival:.0%} of its likelihood)"
        )
    if fit.overlap < LITTLE:
        found.append(f"only {fit.overlap:.0%} of the fixed image's anatomy has a counterpart")
    return tuple(found)

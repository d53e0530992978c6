"""Starting poses: a coarse search over all rotations, and over shifts for partial views."""

from __future__ import annotations

from itertools import product

import numpy as np

from ...volumes.grid import Array, Grid
from .levels import Frame
from .maps import about, degrees, rotations, signed_permutations
from .objective import Fit, Objective

TURNS = 768  # rotations; any rotation is within 32 degrees of one of them
APART = 18.0  # degrees between different poses, or
ASIDE = 1 / 3  # of the radius between their centres
CENTRES = 27  # pairs of centres at most
HIDDEN = (0.25, 0.5)  # of the size of a cut image: shifts of the centre of the whole anatomy


def hidden_shifts(grid: Grid, cut: list[tuple[bool, bool]]) -> list[Array]:
    """Vectors (3,) in mm from the centre of the visible part to possible centres of the whole."""
    size = np.array(grid.shape) - 1.0
    choices = []
    for axis, (first, last) in enumerate(cut):
        unit = grid.affine[:3, axis] * size[axis]
        if first and last:
            parts = [0.0, -HIDDEN[0], HIDDEN[0]]
        elif first or last:
            parts = [0.0, *(part if last else -part for part in HIDDEN)]
        else:
            parts = [0.0]
        choices.append([part * unit for part in parts])
    return [np.sum(way, 0) for way in product(*choices)]


def pairs_of_centres(
    centres: tuple[Array, Array], shifts: tuple[list[Array], list[Array]]
) -> list[tuple[Array, Array]]:
    """Points of both images that may correspond, those with the smallest shifts first."""
    ways = sorted(product(*shifts), key=lambda way: float(sum(map(np.linalg.norm, way))))
    return [(centres[0] + one, centres[1] + other) for one, other in ways[:CENTRES]]


def axes_onto_each_other(fixed: tuple[Array, Array], moving: tuple[Array, Array]) -> list[Array]:
    """The maps that align the principal axes, in any order and with any signs.

    fixed, moving: mean position (3,) and covariance (3, 3). The order matters for axes of similar
    length. Returns 24 rigid maps (4, 4).
    """
    (here, spread), (there, other) = fixed, moving
    axes, target = np.linalg.eigh(spread)[1], np.linalg.eigh(other)[1]
    turns = [target @ cube @ axes.T for cube in signed_permutations()]
    return [about(turn, here, there) for turn in turns if np.linalg.det(turn) > 0]


def turn_between(one: Array, other: Array) -> float:
    """The angle between the rotations of two maps, in degrees."""
    return degrees(one[:3, :3] @ np.linalg.inv(other[:3, :3]))


def differ(one: Array, other: Array, frame: Frame) -> bool:
    """Whether two maps differ in rotation or in the position of the centre."""
    shift = (one - other)[:3, :3] @ frame.centre + (one - other)[:3, 3]
    return bool(np.linalg.norm(shift) > ASIDE * frame.radius) or turn_between(one, other) > APART


def different(fits: list[Fit], count: int) -> list[Fit]:
    """The most likely fits, the best first, without those that do not differ from a better one."""
    found: list[Fit] = []
    for fit in sorted(fits, key=lambda fit: -fit.likelihood):
        if len(found) < count and all(differ(fit.matrix, o.matrix, fit.frame) for o in found):
            found.append(fit)
    return found


def poses(
    objective: Objective, centres: list[tuple[Array, Array]], scale: float, count: int
) -> list[Array]:
    """The best of all rotations about some centres, different from each other.

    centres: pairs of a fixed and a moving point (3,) that may correspond. Returns at most `count`
    maps (4, 4).
    """
    turns = scale * rotations(TURNS)
    matrices = np.stack([about(turn, f, m) for f, m in centres for turn in turns])
    values = objective.likelihoods(matrices)
    found: list[Array] = []
    for k in np.argsort(-values, kind="stable"):
        if all(differ(matrices[k], other, objective.points.frame) for other in found):
            found.append(matrices[k])
        if len(found) == count:
            break
    return found

"""Where to start from: a coarse search over all rotations, and over shifts where a view is cut."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from ...volumes.grid import Array
from .levels import Level
from .maps import about, degrees, rotations
from .objective import Fit, Objective

TURNS = 768  # rotations, about 27 degrees from one to the next
APART = 18.0  # degrees between candidates
HIDDEN = (0.25, 0.5)  # of what a cut view shows along an axis: how far its centre may be off


def likelihood(score: float | Array, overlap: float | Array) -> Array:
    """How much a fit says: a correlation ratio over little overlap says less."""
    return np.asarray(-np.log1p(-np.minimum(score, 0.9999)) * overlap)


def value(fit: Fit) -> float:
    """The likelihood of a fit."""
    return float(likelihood(fit.score, fit.overlap))


def hidden_shifts(level: Level, cut: list[tuple[bool, bool]]) -> list[Array]:
    """Vectors (3,) in mm from the centre of what is seen to where that of the whole may be."""
    size = np.array(level.grid.shape) - 1.0
    choices = []
    for axis, (first, last) in enumerate(cut):
        unit = level.grid.affine[:3, axis] * size[axis]
        if first and last:
            parts = [0.0, -HIDDEN[0], HIDDEN[0]]
        elif first or last:
            parts = [0.0, *(part if last else -part for part in HIDDEN)]
        else:
            parts = [0.0]
        choices.append([part * unit for part in parts])
    return [np.sum(way, 0) for way in product(*choices)]


def apart(one: Array, other: Array) -> float:
    """Degrees between the rotations of two maps."""
    return degrees(one[:3, :3] @ np.linalg.inv(other[:3, :3]))


def candidates(
    objective: Objective, centres: list[tuple[Array, Array]], scale: float, count: int
) -> list[Array]:
    """The best starting maps, different from each other in rotation or shift.

    centres: pairs of a fixed and a moving point (3,) that may belong together.
    """
    turns = scale * rotations(TURNS)
    matrices = np.stack([about(turn, f, m) for f, m in centres for turn in turns])
    scores, overlaps = objective.scores(matrices)
    values = likelihood(scores, overlaps)
    found: list[Array] = []
    where = objective.points.centre
    for k in np.argsort(-values, kind="stable"):
        matrix = matrices[k]
        if all(
            apart(matrix, other) > APART
            or np.linalg.norm((matrix - other)[:3, :3] @ where + (matrix - other)[:3, 3]) > APART
            for other in found
        ):
            found.append(matrix)
        if len(found) == count:
            break
    return found

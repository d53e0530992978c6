"""Levenberg-Marquardt steps on one level."""

from __future__ import annotations

import numpy as np

from ...volumes.grid import Array
from .maps import basis, stepped
from .objective import Fit, Objective

DAMPING, LESS, MORE, MOST = 1e-3, 0.2, 5.0, 1e4


def refine(objective: Objective, matrix: Array, kind: str, steps: int, enough: float) -> Fit:
    """The best map of a kind near a given one.

    steps: at most. enough: the fraction of the radius below which a step is the last one.
    """
    directions, frame = basis(kind), objective.points.frame
    fit, damping = objective.fit(matrix), DAMPING
    for _ in range(steps):
        curvature = directions.T @ fit.curvature @ directions
        slope = directions.T @ fit.slope
        diagonal = np.diag(curvature).clip(1e-12 * np.trace(curvature) + 1e-30)
        change = np.linalg.solve(curvature + damping * np.diag(diagonal), slope)
        step = (directions @ change).reshape(3, 4)
        size = float(np.abs(step).sum(1).max()) / frame.radius
        step[:, :3] /= frame.radius
        centre = fit.matrix[:3, :3] @ frame.centre + fit.matrix[:3, 3]
        tried = objective.fit(stepped(fit.matrix, step, centre))
        if tried.score > fit.score:
            fit, damping = tried, damping * LESS
            if size < enough:
                break
        else:
            damping = max(damping, DAMPING) * MORE
            if damping > MOST or size < enough:
                break
    return fit

"""The stages of the linear alignment."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from ...errors import InputError
from ...runtime.device import CPU
from ...volumes.grid import Array, Volume
from ..workspace import Seen
from . import levels
from .levels import Level, Points, Slopes
from .maps import Kind, about
from .objective import Fit, Objective
from .refine import refine
from .search import apart, candidates, hidden_shifts, value

SPACINGS = (8.0, 4.0, 2.0)
MOST = (30_000, 60_000, 120_000)
FIRST, SECOND = 12, 4


@dataclass(frozen=True, eq=False)
class LinearResult:
    matrix: Array
    score: float
    overlap: float
    runner_up: float
    seconds: dict[str, float]


@torch.no_grad()
def align(fixed: Volume, moving: Volume, kind: Kind = "affine", device: torch.device = CPU, debug=None) -> LinearResult:
    t0 = time.perf_counter()
    clock = {}
    seen = Seen.of(fixed), Seen.of(moving)
    cuts = seen[0].cut, seen[1].cut
    clock["seen"] = time.perf_counter() - t0
    pyramids = []
    for s in seen:
        level = levels.whole(s, device)
        stack = []
        for spacing in reversed(SPACINGS):
            level = levels.coarser(level, spacing)
            stack.append(level)
        pyramids.append(stack[::-1])
    centre = levels.centre_of(pyramids[0][0])
    other = levels.centre_of(pyramids[1][0])
    clock["pyramid"] = time.perf_counter() - t0

    def objective(k: int) -> Objective:
        return Objective(
            levels.points_of(pyramids[0][k], cuts[0], centre, MOST[k]),
            levels.slopes_of(pyramids[1][k], cuts[1]),
        )

    coarse = objective(0)
    centres = [
        (centre + f, other + m)
        for f in hidden_shifts(pyramids[0][0], cuts[0])
        for m in hidden_shifts(pyramids[1][0], cuts[1])
    ]
    early = "rigid" if kind == "rigid" else "similarity"
    scale = 1.0
    if early == "similarity" and not np.any(cuts):
        spread = [np.trace(levels.moments(p[0])[1]) for p in pyramids]
        scale = float(np.sqrt(spread[1] / spread[0]))
    starts = [np.eye(4), *(about(np.eye(3), f, m) for f, m in centres[:1])]
    found = candidates(coarse, centres, scale, FIRST)
    clock["grid"] = time.perf_counter() - t0
    fits = [refine(coarse, m, early, 12, 0.3) for m in starts + found]
    if debug is not None:
        debug["starts"] = starts + found
        debug["fits"] = fits
    kept: list[Fit] = []
    for fit in sorted(fits, key=value, reverse=True):
        if all(apart(fit.matrix, o.matrix) > 10 for o in kept) and len(kept) < SECOND:
            kept.append(fit)
    clock["coarse"] = time.perf_counter() - t0
    middle = objective(1)
    fits = sorted((refine(middle, f.matrix, early, 8, 0.2) for f in kept), key=value, reverse=True)
    if debug is not None:
        debug["middle"] = fits
    best = fits[0]
    runner = value(fits[1]) / value(best) if len(fits) > 1 else 0.0
    clock["middle"] = time.perf_counter() - t0
    if kind != early:
        best = refine(middle, best.matrix, kind, 8, 0.1)
    fine = objective(2)
    best = refine(fine, best.matrix, kind, 10, 0.02)
    clock["fine"] = time.perf_counter() - t0
    return LinearResult(best.matrix, best.score, best.overlap, runner, clock)

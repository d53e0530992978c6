"""How well the moving image fits under a linear map, and the step that makes it fit better.

The correlation ratio (Roche et al., 1998): how much of the moving image's variance the fixed
image's intensity explains, through any function of it. It is 1 - residual over variance, and
needs no relation between the contrasts to be linear or even monotonic. For the function that is
the best at a map, the slope in the map's parameters is that of a plain correlation, so a
Gauss-Newton step of that is a step of the ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...ops import warp
from ...volumes.grid import Array
from .levels import Points, Slopes

BINS = 24
TOP = 1.2  # of the foreground's range: the last bin begins there
RADIUS = 50.0  # mm: about how far anatomy is from its centre, so that turns weigh like shifts
BLOCK = 64  # sides of the array that scattered points are read as
EMPTY = 1e-6


@dataclass(frozen=True, eq=False)
class Fit:
    """What is known at one map.

    score: the correlation ratio, 0 to 1. overlap: part of the fixed weight that is inside.
    curvature (12, 12), slope (12,): of the correlation, in changes as `maps.basis` has them, turns
    in units of 1 / RADIUS.
    """

    matrix: Array
    score: float
    overlap: float
    curvature: Array
    slope: Array


class Objective:
    """The fit of one level's images as a function of the map."""

    def __init__(self, points: Points, moving: Slopes) -> None:
        """points: of the fixed image."""
        self.points, self.moving = points, moving
        level = (points.values.clamp(0, TOP) / TOP * (BINS - 1)).ceil().long()
        self.bins = torch.nn.functional.one_hot(level, BINS).to(points.values).T.contiguous()
        self.total = float(points.weights.sum().double())

    def places_in(self, matrix: Array) -> tuple[Tensor, Array, Array]:
        """Voxel coordinates (N, 3) in the moving image; the linear part; where the centre goes."""
        linear = matrix[:3, :3]
        centre = linear @ self.points.centre + matrix[:3, 3]
        into = np.linalg.inv(self.moving.grid.affine)
        turn = torch.from_numpy((into[:3, :3] @ linear).astype(np.float32))
        offset = torch.from_numpy((into[:3, :3] @ centre + into[:3, 3]).astype(np.float32))
        places = self.points.places
        return torch.addmm(offset.to(places), places, turn.to(places).T), linear, centre

    def fit(self, matrix: Array) -> Fit:
        """The fit at a map (4, 4)."""
        index, linear, _ = self.places_in(matrix)
        read = scattered(self.moving.channels, index)
        weights = self.points.weights if len(read) == 4 else self.points.weights * read[4]
        value = read[0]
        inside = float(weights.sum())
        value = value - (weights @ value) / max(inside, EMPTY)
        sums = self.bins @ torch.stack([weights * value, weights], 1)
        means = sums[:, 0] / sums[:, 1].clamp(min=EMPTY)
        explained = means @ self.bins
        turn = torch.from_numpy((linear / RADIUS).astype(np.float32)).to(index)
        ahead = turn @ self.points.places.T
        columns = torch.empty(15, len(value), device=value.device)
        torch.mul(read[1:4, None], ahead, out=columns[:12].view(3, 4, -1)[:, :3])
        columns[:12].view(3, 4, -1)[:, 3] = read[1:4]
        columns[12], columns[13], columns[14] = 1, value, explained
        gram = (columns * weights) @ columns.T
        return self.judged(matrix, gram.double().cpu().numpy())

    def judged(self, matrix: Array, gram: Array) -> Fit:
        """The fit from the weighted products of the columns: 12 slopes, 1, value, explained."""
        inside = max(gram[12, 12], EMPTY)
        central = gram - np.outer(gram[12], gram[12]) / inside
        steps, moving, explained = slice(0, 12), 13, 14
        variance = max(central[moving, moving], EMPTY)
        known = max(central[explained, explained], EMPTY**2)
        correlation = central[moving, explained] / np.sqrt(variance * known)
        own = central[steps, moving] / np.sqrt(variance)
        other = central[steps, explained] / np.sqrt(known)
        return Fit(
            matrix,
            float(np.clip(correlation, 0, 1) ** 2),
            inside / max(self.total, EMPTY),
            (central[steps, steps] - np.outer(own, own)) / variance,
            (other - correlation * own) / np.sqrt(variance),
        )

    def scores(self, matrices: Array) -> tuple[Array, Array]:
        """The scores (K,) and overlaps (K,) of many maps (K, 4, 4)."""
        image = self.moving.channels[:, :1].contiguous()
        counts = self.moving.channels[:, 4:].contiguous()
        count = len(self.points.values)
        parts = []
        chunk = max(1, 2_000_000 // max(count, 1))
        for start in range(0, len(matrices), chunk):
            index = torch.stack(
                [self.places_in(matrix)[0] for matrix in matrices[start : start + chunk]]
            )
            many = len(index)
            value = scattered(image, index.reshape(-1, 3))[0].reshape(many, count)
            weights = self.points.weights.expand(many, count)
            if counts.shape[1]:
                weights = weights * scattered(counts, index.reshape(-1, 3))[0].reshape(many, count)
            inside = weights.sum(1).clamp(min=EMPTY)
            weighted = weights * value
            mean = weighted.sum(1) / inside
            variance = (weighted * value).sum(1) - inside * mean**2
            sums = weighted @ self.bins.T
            per_bin = weights @ self.bins.T
            known = (sums**2 / per_bin.clamp(min=EMPTY)).sum(1) - inside * mean**2
            parts.append(torch.stack([known / variance.clamp(min=EMPTY), inside / self.total]))
        scores, overlaps = torch.cat(parts, 1).double().cpu().numpy()
        return scores.clip(0, 1), overlaps


def scattered(channels: Tensor, index: Tensor) -> Tensor:
    """Trilinear values (C, N) of channels (1, C, h, w, d) at voxel coordinates (N, 3)."""
    count = len(index)
    rows = -(-count // (BLOCK * BLOCK))
    whole = rows * BLOCK * BLOCK
    flow = torch.zeros(3, whole, device=index.device)
    flow[:, :count] = index.T
    flow = flow.view(1, 3, rows, BLOCK, BLOCK)
    for axis, n in enumerate((rows, BLOCK, BLOCK)):
        line = torch.arange(n, dtype=flow.dtype, device=flow.device)
        flow[:, axis] -= line.view([-1 if a == axis else 1 for a in range(3)])
    return warp(channels, flow, padding="border")[0].reshape(channels.shape[1], -1)[:, :count]

"""The fit of the moving image under a linear map, and its derivatives.

The fit is the correlation ratio (Roche et al., 1998): the fraction of the moving image's variance
that a function of the fixed image's intensity can explain, 1 - residual / variance. The relation
between the contrasts need not be linear or monotonic. If the best function at a map is kept fixed,
the ratio has the same gradient as the squared correlation with that function, so Gauss-Newton steps
of the correlation are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ...ops import warp
from ...runtime.device import fetched
from ...volumes.grid import Array
from .levels import Frame, Points, Slopes

BINS = 24
TOP = 1.2  # of the foreground's range: the end of the last bin
BLOCK = 64  # sides of the array in which points are passed to `warp`
AT_ONCE = 2_000_000  # points interpolated at once
EMPTY = 1e-6


@dataclass(frozen=True, eq=False)
class Fit:
    """The fit at one map, and its derivatives.

    score: the correlation ratio, 0 to 1. overlap: the fraction of the fixed weight inside the
    moving image. curvature (12, 12), slope (12,): of the correlation, for changes as in
    `maps.basis`; rotations are in units of 1 / radius, so that they are comparable to shifts.
    """

    matrix: Array
    score: float
    overlap: float
    curvature: Array
    slope: Array
    frame: Frame

    @property
    def likelihood(self) -> float:
        """See `likelihood`."""
        return float(likelihood(np.array(self.score), np.array(self.overlap)))


def likelihood(score: Array, overlap: Array) -> Array:
    """The log likelihood ratio per voxel of the fixed image: a small overlap counts less."""
    return np.asarray(-np.log1p(-score.clip(0, 0.9999)) * overlap)


class Objective:
    """The fit of one level's images as a function of the map."""

    def __init__(self, points: Points, moving: Slopes) -> None:
        """points: of the fixed image."""
        self.points, self.moving = points, moving
        number = (points.values.clamp(0, TOP) / TOP * (BINS - 1)).ceil().long()
        self.bins = one_hot(number, BINS).to(points.values).T.contiguous()
        self.total = max(float(points.weights.sum().double()), EMPTY)

    def places_in(self, matrix: Array) -> Tensor:
        """Voxel coordinates (N, 3) of the points in the moving image."""
        linear = matrix[:3, :3]
        centre = linear @ self.points.frame.centre + matrix[:3, 3]
        into = np.linalg.inv(self.moving.grid.affine)
        turn = torch.from_numpy((into[:3, :3] @ linear).astype(np.float32))
        offset = torch.from_numpy((into[:3, :3] @ centre + into[:3, 3]).astype(np.float32))
        places = self.points.places
        return torch.addmm(offset.to(places), places, turn.to(places).T)

    def fit(self, matrix: Array) -> Fit:
        """The fit at a map (4, 4)."""
        index = self.places_in(matrix)
        read = scattered(self.moving.channels, index)
        weights = self.points.weights if len(read) == 4 else self.points.weights * read[4]
        value = read[0]
        inside = float(weights.sum())
        value = value - (weights @ value) / max(inside, EMPTY)
        sums = self.bins @ torch.stack([weights * value, weights], 1)
        means = sums[:, 0] / sums[:, 1].clamp(min=EMPTY)
        explained = means @ self.bins
        turn = torch.from_numpy((matrix[:3, :3] / self.points.frame.radius).astype(np.float32)).to(
            index
        )
        ahead = turn @ self.points.places.T
        columns = torch.empty(15, len(value), device=value.device)
        torch.mul(read[1:4, None], ahead, out=columns[:12].view(3, 4, -1)[:, :3])
        columns[:12].view(3, 4, -1)[:, 3] = read[1:4]
        columns[12], columns[13], columns[14] = 1, value, explained
        gram = (columns * weights) @ columns.T
        return self.judged(matrix, fetched(gram.double()))

    def judged(self, matrix: Array, gram: Array) -> Fit:
        """The fit from the weighted Gram matrix of the columns: 12 slopes, 1, value, explained."""
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
            inside / self.total,
            (central[steps, steps] - np.outer(own, own)) / variance,
            (other - correlation * own) / np.sqrt(variance),
            self.points.frame,
        )

    def likelihoods(self, matrices: Array) -> Array:
        """The likelihoods (K,) of many maps (K, 4, 4)."""
        many = max(1, AT_ONCE // max(len(self.points.values), 1))
        chunks = [matrices[i : i + many] for i in range(0, len(matrices), many)]
        found = torch.cat([self.scores(chunk) for chunk in chunks], 1)
        scores, overlaps = fetched(found.double())
        return likelihood(scores, overlaps)

    def scores(self, matrices: Array) -> Tensor:
        """The scores and the overlaps (2, K) of maps (K, 4, 4)."""
        many, count = len(matrices), len(self.points.values)
        index = torch.cat([self.places_in(matrix) for matrix in matrices])
        channels = self.moving.channels[:, [0, *range(4, self.moving.channels.shape[1])]]
        read = scattered(channels.contiguous(), index).reshape(-1, many, count)
        weights = self.points.weights.expand(many, count)
        if len(read) > 1:
            weights = weights * read[1]
        inside = weights.sum(1).clamp(min=EMPTY)
        weighted = weights * read[0]
        middle = weighted.sum(1) ** 2 / inside
        variance = (weighted * read[0]).sum(1) - middle
        per_bin = (weights @ self.bins.T).clamp(min=EMPTY)
        explained = ((weighted @ self.bins.T) ** 2 / per_bin).sum(1) - middle
        return torch.stack([explained / variance.clamp(min=EMPTY), inside / self.total])


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

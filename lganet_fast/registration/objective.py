"""What a search minimises: a sum of terms, each a part of the loss.

A term says of itself, once per resolution, how its loss is computed there. A further one (labels or
points that steer, another channel) is a further Term, in the list that `stages.objective` makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..losses.dissimilarity import SIMILARITIES
from ..ops import gradient_loss, warp
from .levels import Level
from .separable import shrink

DAMPING = 2.0  # of the noise: parts of the loss per voxel moved below which steps are shorter
STILL = 0.005  # such a part where there is no noise: what rounding may come to
FAINT = 2.5  # of the noise: contrast that it explains
QUIET = 0.002  # of the foreground's range: less noise has no say
LEAST_WEIGHT = 1e-3  # of a voxel's value beside others', where it has no say


@dataclass(frozen=True, eq=False)
class HalfWay:
    """Where a velocity v moves both images, so that they meet.

    ways: (2, 3, h, w, d), exp(-v/2) and exp(v/2) on the velocity's grid, in its voxels. flows: the
    same two, each (1, 3, H, W, D), on the images' grid, in its voxels: the first one is the fixed
    image's, the second one the moving image's.
    """

    ways: Tensor
    flows: tuple[Tensor, Tensor]


class TermAtLevel(Protocol):
    """A term at one resolution. Its state lies in tensors that it does not replace."""

    @property
    def weight(self) -> float:
        """Of its loss in the sum."""

    @property
    def least_slope(self) -> float:
        """Loss per voxel moved that noise may come to: below it steps are shorter."""

    def loss(self, moved: HalfWay) -> Tensor:
        """The loss, a scalar that has a gradient."""


class Term(Protocol):
    """A part of the objective, on the working grid."""

    def at(self, level: Level) -> TermAtLevel:
        """The same at one resolution."""


@dataclass(frozen=True, eq=False)
class ImageTerm:
    """The dissimilarity of two images (1, 1, H, W, D), where both have a say.

    weights: (1, 1, H, W, D) in [0, 1], where the fixed and where the moving image has a say; None
    for one that has everywhere. similarity: a name of SIMILARITIES. noise: see `noise_between`.
    """

    fixed: Tensor
    moving: Tensor
    weights: tuple[Tensor | None, Tensor | None]
    similarity: str
    noise: float = 0.0
    weight: float = 1.0

    def at(self, level: Level) -> ImagesAtLevel:
        """The images at one resolution."""
        return ImagesAtLevel(self, level)


class ImagesAtLevel:
    """The dissimilarity at one resolution."""

    def __init__(self, term: ImageTerm, level: Level) -> None:
        self.weight, self.measure = term.weight, SIMILARITIES[term.similarity]
        both = zip((term.fixed, term.moving), term.weights, strict=True)
        self.images = [self.measure.features(shrunk_image(*x, level.images)) for x in both]
        self.weights = [None if w is None else shrink(w, level.images) for w in term.weights]
        texture = self.measure.texture if term.noise > QUIET else None
        faint = FAINT * term.noise
        self.textures = [] if texture is None else [1 - texture(x, faint) for x in self.images]
        self.least_slope = max(STILL, DAMPING * term.noise) * self.measure.scale

    def loss(self, moved: HalfWay) -> Tensor:
        """The dissimilarity half way, times the part of the grid where it counts."""
        images = [warp(image, flow) for image, flow in zip(self.images, moved.flows, strict=True)]
        seen, counts = self.say(moved.flows)
        fixed, moving = images if seen is None else (x * seen for x in images)
        loss = self.measure.loss(fixed, moving, counts)
        return loss if counts is None else counts.mean() * loss

    @torch.no_grad()
    def say(self, flows: Sequence[Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """Where both images are seen half way, and where their similarity counts; None: everywhere.

        Of what is seen, that where either image shows more than noise counts, where there is noise.
        """
        pairs = zip(self.weights, flows, strict=True)
        parts = [warp(weight, flow) for weight, flow in pairs if weight is not None]
        seen = torch.stack(parts).prod(0) if parts else None
        if not self.textures:
            return seen, seen
        first, second = (
            warp(x, flow, padding="border") for x, flow in zip(self.textures, flows, strict=True)
        )
        shown = first.mul_(second).neg_().add_(1)
        return seen, shown if seen is None else shown.mul_(seen)


@dataclass(frozen=True)
class SmoothnessTerm:
    """The squared gradients of both half displacements; the same at every resolution.

    smoothness: weight of the squared gradient of the whole displacement, which is twice the half
    one where that is small.
    """

    smoothness: float
    least_slope: float = 0.0

    @property
    def weight(self) -> float:
        """Of the mean over both half displacements."""
        return 4 * self.smoothness

    def at(self, level: Level) -> SmoothnessTerm:
        """The same at one resolution."""
        return self

    def loss(self, moved: HalfWay) -> Tensor:
        """The mean squared gradient."""
        return gradient_loss(moved.ways)


def total(parts: Sequence[TermAtLevel], moved: HalfWay) -> Tensor:
    """The weighted sum of the terms' losses."""
    first, *others = parts
    loss = first.loss(moved)
    if first.weight != 1:
        loss = loss * first.weight
    for part in others:
        loss = loss.add(part.loss(moved), alpha=part.weight)
    return loss


def shrunk_image(image: Tensor, weight: Tensor | None, size: tuple[int, ...]) -> Tensor:
    """An image on a coarser grid: where it has no weight, others' values reach over there."""
    if weight is None:
        return shrink(image, size)
    least = weight.clamp_min(LEAST_WEIGHT)
    return shrink(image * least, size) / shrink(least, size)

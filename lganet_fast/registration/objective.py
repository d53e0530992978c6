"""The objective of a search: a sum of terms.

Each term makes, once per resolution, an object that computes its loss there. A further term (of
labels, points or another channel) is a further Term in the list that `stages.objective` makes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from ..losses.dissimilarity import SIMILARITIES, Similarity
from ..ops import gradient_loss, warp
from .levels import Level
from .separable import growth, shrink

DAMPING = 2.0  # times the noise: slope of the loss per voxel moved below which steps are shorter
STILL = 0.005  # the least such slope, without noise: the size of rounding errors
FAINT = 3.0  # times the noise: contrast that noise explains
QUIET = 0.002  # fraction of the foreground's range: less noise is ignored
Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor | None], Tensor]

BESIDE = 2  # planes on both sides of a 2D image: half of the largest window
LEAST_WEIGHT = 1e-3  # of a voxel of weight 0 relative to its neighbours


@dataclass(frozen=True, eq=False)
class HalfWay:
    """The two half flows of a velocity v, which move both images so that they meet half way.

    ways: (2, 3, h, w, d), exp(-v/2) and exp(v/2) on the velocity's grid, in its voxels. flows: the
    same two, each (1, 3, H, W, D), on the images' grid, in its voxels: the first for the fixed
    image, the second for the moving image.
    """

    ways: Tensor
    flows: tuple[Tensor, Tensor]


class TermAtLevel(Protocol):
    """A term at one resolution. Its state is in tensors that it never replaces."""

    @property
    def weight(self) -> float:
        """Weight of the loss in the sum."""

    @property
    def least_slope(self) -> float:
        """Slope of the loss, per voxel moved, due to noise: below it steps are shorter."""

    def loss(self, moved: HalfWay) -> Tensor:
        """The loss, a differentiable scalar."""


class Term(Protocol):
    """A part of the objective, on the working grid."""

    def at(self, level: Level) -> TermAtLevel:
        """The term at one resolution."""


@dataclass(frozen=True, eq=False)
class ImageTerm:
    """The dissimilarity of two images (1, C, H, W, D), where both have weight.

    weights: (1, 1, H, W, D) in [0, 1], of the fixed and of the moving image; None for 1 everywhere.
    similarity: a name of SIMILARITIES. noise: see `noise_between`.
    """

    fixed: Tensor
    moving: Tensor
    weights: tuple[Tensor | None, Tensor | None]
    similarity: str
    noise: float = 0.0
    weight: float = 1.0

    @cached_property
    def channels(self) -> tuple[Tensor, Tensor]:
        """What the measure makes of both images at full resolution."""
        return SIMILARITIES[self.similarity].channels(self.fixed, self.moving)

    def at(self, level: Level) -> ImagesAtLevel:
        """The term at one resolution."""
        return ImagesAtLevel(self, level)


class ImagesAtLevel:
    """The dissimilarity at one resolution."""

    def __init__(self, term: ImageTerm, level: Level) -> None:
        self.weight = term.weight
        self.measure = measure_for(term.similarity, term.fixed.shape[2:])
        both = zip(term.channels, term.weights, strict=True)
        self.images = [self.measure.features(shrunk_image(*x, level.images)) for x in both]
        self.weights = [None if w is None else shrink(w, level.images) for w in term.weights]
        texture = self.measure.texture if term.noise > QUIET else None
        faint = FAINT * term.noise
        self.textures = [] if texture is None else [1 - texture(x, faint) for x in self.images]
        self.least_slope = max(STILL, DAMPING * term.noise) * self.measure.scale

    def loss(self, moved: HalfWay) -> Tensor:
        """The dissimilarity half way, times the mean weight over the grid."""
        images = [warp(image, flow) for image, flow in zip(self.images, moved.flows, strict=True)]
        seen, counts = self.say(moved.flows)
        fixed, moving = images if seen is None else (x * seen for x in images)
        loss = (self.measure.searched or self.measure.loss)(fixed, moving, counts)
        return loss if counts is None else counts.mean() * loss

    @torch.no_grad()
    def say(self, flows: Sequence[Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """The weights of both images half way, and those of the similarity; None: 1 everywhere.

        With noise, only places where either image shows more than noise count.
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


@dataclass(frozen=True, eq=False)
class PointsTerm:
    """The mean squared distance in mm^2 of matching points that both half flows have moved.

    fixed, moving: (N, 3) on the working grid, in its voxels. size: of that grid. side: of its
    voxels, in mm. weight: per mm^2.
    """

    fixed: Tensor
    moving: Tensor
    size: tuple[int, ...]
    side: float
    weight: float

    def at(self, level: Level) -> PointsAtLevel:
        """The term at one resolution."""
        return PointsAtLevel(self, level)


class PointsAtLevel:
    """The distance at one resolution, read from the half flows on the velocity's grid."""

    least_slope = 0.0

    def __init__(self, term: PointsTerm, level: Level) -> None:
        self.weight = term.weight
        voxels = term.fixed.new_tensor(growth(level.velocity, term.size)).reshape(3, 1)
        onto = term.fixed.new_tensor(growth(term.size, level.velocity))
        places = torch.stack([term.moving * onto, term.fixed * onto]).mT  # (2, 3, N)
        self.mm = voxels * term.side
        self.apart = (term.fixed - term.moving).mT * term.side
        line = torch.arange(places.shape[2], dtype=places.dtype, device=places.device)
        self.flow = places[:, :, None, None].clone()  # from the voxels of a grid of (1, 1, N)
        self.flow[:, 2] -= line

    def loss(self, moved: HalfWay) -> Tensor:
        """The mean squared distance half way.

        exp(v/2) moves the points of the fixed image there, exp(-v/2) those of the moving image.
        """
        ways = warp(moved.ways, self.flow)[:, :, 0, 0]
        gap = self.apart + (ways[1] - ways[0]) * self.mm
        return gap.square().sum(0).mean()


@dataclass(frozen=True)
class SmoothnessTerm:
    """The squared gradients of both half displacements; the same at every resolution.

    smoothness: weight of the squared gradient of the whole displacement, which is twice the half
    displacement if that is small.
    """

    smoothness: float
    least_slope: float = 0.0

    @property
    def weight(self) -> float:
        """Weight of the mean over both half displacements."""
        return 4 * self.smoothness

    def at(self, level: Level) -> SmoothnessTerm:
        """The term at one resolution, which is the same."""
        return self

    def loss(self, moved: HalfWay) -> Tensor:
        """The mean squared gradient."""
        return gradient_loss(moved.ways)


def measure_for(similarity: str, size: Sequence[int]) -> Similarity:
    """The measure of images of a size; of 2D images, in planes that repeat across the plane.

    So windows and neighbourhoods are full, and the measure is that of the plane. similarity: a name
    of SIMILARITIES.
    """
    measure = SIMILARITIES[similarity]
    if 1 not in size:
        return measure
    axis = 2 + list(size).index(1)

    def thick(x: Tensor) -> Tensor:
        return torch.cat([x] * (2 * BESIDE + 1), axis)

    def middle(x: Tensor) -> Tensor:
        return x.narrow(axis, BESIDE, 1)

    def loss(of: Loss, fixed: Tensor, warped: Tensor, weight: Tensor | None) -> Tensor:
        own = torch.ones_like(fixed[:, :1]) if weight is None else weight
        none = torch.zeros_like(own)
        counts = torch.cat([*[none] * BESIDE, own, *[none] * BESIDE], axis)
        return of(thick(fixed), thick(warped), counts)

    def texture(x: Tensor, noise: float) -> Tensor:
        assert measure.texture is not None
        return middle(measure.texture(thick(x), noise))

    return replace(
        measure,
        features=lambda image: middle(measure.features(thick(image))),
        loss=partial(loss, measure.loss),
        searched=None if measure.searched is None else partial(loss, measure.searched),
        texture=None if measure.texture is None else texture,
    )


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
    """Shrink an image to a coarser grid; voxels without weight take their neighbours' values."""
    if weight is None:
        return shrink(image, size)
    least = weight.clamp_min(LEAST_WEIGHT)
    return shrink(image * least, size) / shrink(least, size)

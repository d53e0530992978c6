"""The search on slabs: every process takes the step that one would take alone.

The loss is a sum of parts, one a process. Each process differentiates its own part; the gradients
that concern others' planes travel back with the planes that were fetched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..losses.dissimilarity import SEARCH_WINDOW
from ..registration.channels import Channel
from ..registration.levels import FINEST_VELOCITY, Level, plan_levels, shrunk
from ..registration.objective import (
    DAMPING,
    FAINT,
    LEAST_WEIGHT,
    QUIET,
    STILL,
    SmoothnessTerm,
    measure_for,
)
from ..registration.optimiser import SIGMA, STEPS, Adam, Search, Step, descend, taper
from ..registration.separable import gaussian_map
from ..registration.settings import Settings
from ..registration.workspace import MARGIN
from ..runtime.device import sent
from .group import Group
from .operations import Aimed, Along, Stretch, gradient_loss, integrate, shrink, with_halo, within

MEASURES = {"lncc": SEARCH_WINDOW // 2, "mse": 0}  # that have a sharded search, and its halo
REPORTED = {"lncc": 2, "mse": 0}  # halo of the loss that a report states
Size = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Slabs:
    """A channel of which this process has the planes (1, 1, H, W, d). size: of the whole grid."""

    group: Group
    size: Size
    channel: Channel


class ImagesOfSlabs:
    """`registration.objective.ImagesAtLevel` of slabs."""

    def __init__(self, slabs: Slabs, similarity: str, level: Level) -> None:
        group, channel = slabs.group, slabs.channel
        self.group, self.size, self.halo = group, level.images, MEASURES[similarity]
        measure = measure_for(similarity, slabs.size)

        def smaller(x: Tensor) -> Tensor:
            return shrink(group, x, slabs.size, level.images)

        def image(x: Tensor, weight: Tensor | None) -> Tensor:
            if weight is None:
                return smaller(x)
            least = weight.clamp_min(LEAST_WEIGHT)
            return smaller(x * least) / smaller(least)

        def flat(x: Tensor) -> Tensor:
            assert measure.texture is not None
            near = with_halo(group, x, self.size[2], self.halo)
            texture = measure.texture(near, FAINT * channel.noise)
            return 1 - within(group, texture, self.size[2], self.halo)

        both = zip((channel.fixed, channel.moving), channel.weights, strict=True)
        self.images = [image(*x) for x in both]
        self.weights = [None if w is None else smaller(w) for w in channel.weights]
        noisy = measure.texture is not None and channel.noise > QUIET
        self.textures = [flat(x) for x in self.images] if noisy else []
        self.least_slope = max(STILL, DAMPING * channel.noise) * measure.scale
        self.measure = measure.searched or measure.loss

    def part(self, aims: Sequence[Aimed]) -> Tensor:
        """The process's part of the loss, half way. aims: of the fixed and of the moving image."""
        images = [aim.read(x) for x, aim in zip(self.images, aims, strict=True)]
        seen, counts = self.say(aims)
        if seen is not None:
            images = [x * seen for x in images]
        share = torch.ones_like(images[0]) if counts is None else counts
        loss, mean = mean_part(self.group, self.measure, images, share, self.size, self.halo)
        return loss if counts is None else mean * loss

    @torch.no_grad()
    def say(self, aims: Sequence[Aimed]) -> tuple[Tensor | None, Tensor | None]:
        """As in `ImagesAtLevel`."""
        pairs = zip(self.weights, aims, strict=True)
        parts = [aim.read(weight) for weight, aim in pairs if weight is not None]
        seen = torch.stack(parts).prod(0) if parts else None
        if not self.textures:
            return seen, seen
        pairs_of = zip(self.textures, aims, strict=True)
        first, second = (aim.read(x, "border") for x, aim in pairs_of)
        shown = 1 - first * second
        return seen, shown if seen is None else shown * seen


def mean_part(
    group: Group,
    loss: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    images: Sequence[Tensor],
    counts: Tensor,
    size: Size,
    halo: int,
) -> tuple[Tensor, float]:
    """The process's part of a weighted mean over the grid, and the mean weight of the grid.

    loss: the mean over some planes, weighted. images: (1, C, H, W, d) each. counts: their weight
    (1, 1, H, W, d). halo: planes beside a voxel that its value depends on.
    """
    first, second = (with_halo(group, x, size[2], halo) for x in images)
    a, b = group.own(size[2])
    low, high = min(halo, a), min(halo, size[2] - b)
    own = float(counts.sum(dtype=torch.float64))
    every = group.sum(own)
    # Where nothing counts, the mean would be 0 / 0: a tiny weight makes it 0 times a number.
    tiny = torch.nn.functional.pad(counts + 1e-30, (low, high))
    return loss(first, second, tiny) * (own / every), every / math.prod(size)


class SearchOfSlabs(Search):
    """The search at one level; `loss` is that of all processes."""

    def __init__(
        self,
        slabs: Slabs,
        settings: Settings,
        level: Level,
        start: Tensor,
        margin: float,
    ) -> None:
        group, size = slabs.group, level.velocity
        self.group, self.level = group, level
        self.term = ImagesOfSlabs(slabs, settings.similarity, level)
        self.smoothness = SmoothnessTerm(settings.smoothness).weight
        self.window = sent(group.cut(taper(size, margin)), start)
        self.smoothing = Along(group, [gaussian_map(n, n, SIGMA) for n in size], start)
        self.onto_images = Stretch(group, size, level.images, start)
        self.raw = start.clone().requires_grad_(True)
        voxels = size[0] * size[1] * size[2]
        self.adam = Adam(self.raw, self.term.least_slope / voxels)
        self.loss = start.new_zeros(())

    def velocity(self) -> Tensor:
        """Compute the velocity from the parameters."""
        return self.smoothing(self.raw) * self.window

    def objective(self) -> Tensor:
        """Compute this process's part of the objective."""
        velocity, planes = self.velocity(), self.level.velocity[2]
        both = torch.cat([-velocity, velocity]) / 2
        ways = integrate(self.group, both, planes, STEPS - 1)
        aims = [
            Aimed(self.group, self.onto_images(way), self.level.images[2]) for way in ways.chunk(2)
        ]
        return self.term.part(aims) + self.smoothness * gradient_loss(self.group, ways, planes)

    def iterate(self) -> None:
        """Run one iteration."""
        part = self.objective()
        (slope,) = torch.autograd.grad(part, self.raw)
        self.adam.step(slope)
        self.loss.copy_(self.group.total(part.detach().double()))


def search(slabs: Slabs, settings: Settings, on_step: Callable[[Step], None]) -> Tensor:
    """`registration.optimiser.minimise`: the planes (1, 3, h, w, d) of the velocity.

    Raises InputError if the coarsest level has fewer planes than there are processes.
    """
    group, size, like = slabs.group, slabs.size, slabs.channel.fixed
    levels = plan_levels(size, settings.iterations)
    planes = levels[0].velocity[2]
    if planes < group.count:
        raise InputError(
            f"{group.count} processes are too many: the coarsest level has {planes} planes along "
            "the third axis, one a process at least; give fewer processes or fewer levels"
        )
    sizes = [levels[0].velocity]

    def begin(level: Level, raw: Tensor, width: float) -> Search:
        start = Stretch(group, sizes[-1], level.velocity, raw)(raw)
        sizes.append(level.velocity)
        return SearchOfSlabs(slabs, settings, level, start, width)

    first, end = group.own(planes)
    raw = like.new_zeros(1, 3, *levels[0].velocity[:2], end - first)
    return descend(begin, levels, size, raw, MARGIN, on_step, 1, None)


def velocity_size(size: Size, settings: Settings) -> Size:
    """The size of the grid of the velocity that `search` returns."""
    levels = plan_levels(size, settings.iterations)
    return levels[-1].velocity if levels else shrunk(size, FINEST_VELOCITY)


@torch.no_grad()
def similarities(slabs: Slabs, flow: Tensor, similarity: str) -> tuple[float, float]:
    """The similarity over the fixed foreground, before and after a flow.

    flow: (1, 3, H, W, d) in voxels of the working grid.
    """
    group, channel, size = slabs.group, slabs.channel, slabs.size
    measure = measure_for(similarity, size)
    counts = (channel.fixed > 0).to(channel.fixed)
    for weight in channel.weights:
        counts = counts if weight is None else counts * weight
    warped = Aimed(group, flow, size[2]).read(channel.moving)

    def value(image: Tensor) -> float:
        pair, halo = (channel.fixed, image), REPORTED[similarity]
        part, _ = mean_part(group, measure.loss, pair, counts, size, halo)
        loss = group.sum(float(part))
        return 1 - loss if similarity == "lncc" else loss

    return value(channel.moving), value(warped)

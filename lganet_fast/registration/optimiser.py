"""Instance optimisation: the best diffeomorphism for one pair, with no weights.

A stationary velocity field v is sought, coarse to fine, by Adam:

    minimise  dissimilarity(fixed o exp(-v/2), moving o exp(v/2))
              + 2 smoothness * (|grad exp(-v/2)|^2 + |grad exp(v/2)|^2)

with exp by scaling and squaring (Arsigny et al., 2006): half way between the images (Avants et al.,
2008), so that neither is favoured and equal ones stay where they are. A point where either image
has no say has none in the dissimilarity. The parameters are smoothed by a Gaussian of one voxel
before they count as a velocity, which preconditions the descent and keeps v smooth. What was tried:
docs/registration.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..losses.dissimilarity import SIMILARITIES
from ..ops import gradient_loss, integrate, warp
from ..runtime.device import fetched, sent
from ..runtime.steps import Recorder, Repeated, recorder_for
from .separable import Stretch, along_axes, gaussian_map, shrink, stretch_flow

STEPS = 4  # squarings while optimising, and in the result
LEARNING_RATE = 0.3  # voxels of the velocity's grid
BETAS = (0.9, 0.999)  # of Adam's means
DAMPING = 2.0  # of the noise: parts of the loss per voxel moved below which steps are shorter
STILL = 0.005  # such a part where there is no noise: what rounding may come to
FAINT = 2.5  # of the noise: contrast that it explains
QUIET = 0.002  # of the foreground's range: less noise has no say
SIGMA = 1.0  # smoothing of the velocity, in voxels of its grid
FINEST_VELOCITY = 2  # the velocity's grid is never finer than this many working voxels
LEAST_SIDE = 4  # a level whose smallest side has fewer voxels is left out
LOOK = 5  # iterations between looks at the loss, on a device that must be waited for
LEAST_WEIGHT = 1e-3  # of a voxel's value beside others', where it has no say
PATIENCE = 10  # iterations over which progress is judged
TOLERANCE = 0.01  # a level ends when they bring less than this part of its gain so far


@dataclass(frozen=True)
class Level:
    """One resolution: the images' shrink factor, both grids' sizes, the iterations."""

    factor: int
    images: tuple[int, int, int]
    velocity: tuple[int, int, int]
    iterations: int

    @property
    def cost(self) -> int:
        """Voxels visited, the unit of progress."""
        return self.iterations * self.images[0] * self.images[1] * self.images[2]


@dataclass(frozen=True)
class Step:
    """What a progress display is told after each iteration."""

    level: Level
    iteration: int
    loss: float
    done: int
    total: int


def shrunk(size: tuple[int, ...], factor: int) -> tuple[int, int, int]:
    """Grid size at a shrink factor over the same extent."""
    first, second, third = (max(1, round((n - 1) / factor) + 1) for n in size)
    return first, second, third


def plan_levels(size: tuple[int, ...], iterations: tuple[int, ...]) -> list[Level]:
    """Levels for a working grid of `size`, coarse to fine; the last is at full resolution.

    Levels without iterations, and those too coarse to hold anything, are left out; the last one
    that has iterations never is. None of them where no level has any.
    """
    factors = [2 ** (len(iterations) - 1 - k) for k in range(len(iterations))]
    wanted = [(f, n) for f, n in zip(factors, iterations, strict=True) if n > 0]
    fine = [(f, n) for f, n in wanted if min(shrunk(size, f)) >= LEAST_SIDE] or wanted[-1:]
    return [Level(f, shrunk(size, f), shrunk(size, max(f, FINEST_VELOCITY)), n) for f, n in fine]


def taper(size: tuple[int, ...], margin: float) -> Tensor:
    """(1, 1, H, W, D): 0 at the border of the grid, rising to 1 over `margin` of its voxels."""
    out = torch.ones(1, 1, 1, 1, 1)
    for axis, n in enumerate(size):
        line = torch.arange(n, dtype=torch.float32)
        edge = (torch.minimum(line, n - 1 - line) / max(margin, 1e-6)).clamp(0, 1)
        out = out * (edge * edge * (3 - 2 * edge)).reshape(
            [-1 if a == axis else 1 for a in range(-2, 3)]
        )
    return out


def stalled(losses: list[float]) -> bool:
    """True where the last PATIENCE iterations brought little of the level's whole gain."""
    if len(losses) < 2 * PATIENCE:
        return False
    recent = sum(losses[-PATIENCE:]) / PATIENCE
    before = sum(losses[-2 * PATIENCE : -PATIENCE]) / PATIENCE
    return before - recent <= TOLERANCE * (max(losses) - recent)


def shrunk_image(image: Tensor, weight: Tensor | None, size: tuple[int, ...]) -> Tensor:
    """An image on a coarser grid: where it has no weight, others' values reach over there."""
    if weight is None:
        return shrink(image, size)
    least = weight.clamp_min(LEAST_WEIGHT)
    return shrink(image * least, size) / shrink(least, size)


class Adam:
    """Adam (Kingma and Ba, 2015) for one tensor, in one pass; torch's takes a second to import."""

    def __init__(self, x: Tensor, epsilon: float) -> None:
        self.x, self.epsilon, self.count = x, epsilon, torch.zeros((), device=x.device)
        self.mean, self.square = torch.zeros_like(x), torch.zeros_like(x)

    @torch.no_grad()
    def step(self, slope: Tensor) -> None:
        """Move x down its slope."""
        self.count += 1
        torch._fused_adam_(
            [self.x],
            [slope],
            [self.mean],
            [self.square],
            [],
            [self.count],
            lr=LEARNING_RATE,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=self.epsilon,
            amsgrad=False,
            maximize=False,
        )


class Search:
    """The search at one level. All of its state is in tensors: an iteration can be replayed.

    raw: the parameters (1, 3, h, w, d). loss: of the parameters before the last iteration.
    """

    def __init__(
        self,
        level: Level,
        images: tuple[Tensor, Tensor],
        weights: tuple[Tensor | None, Tensor | None],
        start: Tensor,
        margin: float,
        similarity: str,
        smoothness: float,
        noise: float,
    ) -> None:
        self.measure = SIMILARITIES[similarity]
        self.smoothness = smoothness
        both = list(zip(images, weights, strict=True))
        self.images = [self.measure.features(shrunk_image(*x, level.images)) for x in both]
        self.weights = [None if w is None else shrink(w, level.images) for w in weights]
        texture = self.measure.texture if noise > QUIET else None
        faint = FAINT * noise
        self.textures = [] if texture is None else [1 - texture(x, faint) for x in self.images]
        self.window = sent(taper(level.velocity, margin), start)
        self.blur = [sent(gaussian_map(n, n, SIGMA), start) for n in level.velocity]
        self.stretch = Stretch(level.velocity, level.images, start)
        self.raw = stretch_flow(start, level.velocity).requires_grad_(True)
        voxels = math.prod(level.velocity)  # the loss is a mean over them
        self.adam = Adam(self.raw, max(STILL, DAMPING * noise) * self.measure.scale / voxels)
        self.loss = start.new_zeros(())

    def velocity(self) -> Tensor:
        """The velocity that the parameters stand for."""
        return along_axes(self.raw, self.blur) * self.window

    def objective(self) -> Tensor:
        """What is minimised."""
        velocity = self.velocity()
        ways = integrate(torch.cat([-velocity, velocity]) / 2, STEPS - 1)
        flows = [self.stretch(way) for way in ways.chunk(2)]
        moved = [warp(image, flow) for image, flow in zip(self.images, flows, strict=True)]
        seen, counts = self.say(flows)
        fixed, moving = moved if seen is None else (x * seen for x in moved)
        loss = self.measure.loss(fixed, moving, counts)
        if counts is not None:
            loss = counts.mean() * loss
        return loss.add(gradient_loss(ways), alpha=4 * self.smoothness)

    @torch.no_grad()
    def say(self, flows: list[Tensor]) -> tuple[Tensor | None, Tensor | None]:
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

    def iterate(self) -> None:
        """One iteration."""
        loss = self.objective()
        (slope,) = torch.autograd.grad(loss, self.raw)
        self.adam.step(slope)
        self.loss.copy_(loss.detach())

    def run(self, iterations: int, look: int, record: Recorder | None) -> Iterator[float]:
        """Iterate until the last or until it has stalled, yielding each iteration's loss.

        look: iterations between looks at the loss, for which a device must be waited for. The
        parameters end as they were when the loss stalled, however many iterations came after.
        """
        step, losses = Repeated(self.iterate, record), []
        seen = self.loss.new_empty(look)
        kept = [torch.empty_like(self.raw) if look > 1 else self.raw for _ in range(look)]
        for first in range(0, iterations, look):
            block = min(look, iterations - first)
            for k in range(block):
                step()
                seen[k].copy_(self.loss)
                if look > 1:
                    kept[k].data.copy_(self.raw.data)
            for raw, loss in zip(kept, fetched(seen).tolist()[:block], strict=False):
                losses.append(loss)
                yield loss
                if stalled(losses):
                    self.raw = raw
                    return


def optimise(
    fixed: Tensor,
    moving: Tensor,
    weights: tuple[Tensor | None, Tensor | None],
    *,
    similarity: str,
    iterations: tuple[int, ...],
    smoothness: float,
    margin: float,
    noise: float = 0.0,
    on_step: Callable[[Step], None] = lambda step: None,
    look: int | None = None,
    record: Recorder | None = None,
) -> Tensor:
    """Find the velocity field that registers one pair.

    fixed, moving: (1, 1, H, W, D) on one isotropic working grid, foreground of about unit
    intensity, background 0. weights: (1, 1, H, W, D) in [0, 1], where the fixed and where the
    moving image has a say; None for one that has everywhere. margin: working voxels at the border
    over which the velocity falls to zero. noise: see `noise_between`.
    look: iterations between looks at the loss; record: what records an iteration. Neither changes
    the result; where omitted, they are the device's own.
    Returns the velocity (1, 3, h, w, d) on its own, coarser grid over the same extent, in voxels
    of that grid; `flow_of` turns it into a flow.
    """
    size = (fixed.shape[2], fixed.shape[3], fixed.shape[4])
    levels = plan_levels(size, iterations)
    if not levels:
        return fixed.new_zeros(1, 3, *shrunk(size, FINEST_VELOCITY))
    look = look or (1 if fixed.device.type == "cpu" else LOOK)
    record = record or recorder_for(fixed.device)
    total, done = sum(level.cost for level in levels), 0
    raw = fixed.new_zeros(1, 3, *levels[0].velocity)
    for level in levels:
        width = margin * (level.velocity[0] - 1) / (size[0] - 1)
        search = Search(level, (fixed, moving), weights, raw, width, similarity, smoothness, noise)
        end, count = done + level.cost, level.iterations
        for iteration, loss in enumerate(search.run(count, look, record), start=1):
            done += level.cost // count
            on_step(Step(level, iteration, loss, done, total))
        done, raw = end, search.raw.detach()
    return search.velocity().detach()


def flow_of(velocity: Tensor, size: tuple[int, ...]) -> Tensor:
    """exp(velocity) on the working grid: (1, 3, *size) in its voxels."""
    return stretch_flow(integrate(velocity, STEPS), size)

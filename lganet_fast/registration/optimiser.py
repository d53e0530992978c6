"""Instance optimisation: the best diffeomorphism for one pair, without a network.

Adam optimises a stationary velocity field v, coarse to fine:

    minimise  dissimilarity(fixed o exp(-v/2), moving o exp(v/2))
              + 2 smoothness * (|grad exp(-v/2)|^2 + |grad exp(v/2)|^2)

with exp by scaling and squaring (Arsigny et al., 2006): half way between the images (Avants et al.,
2008), so that neither is favoured and equal images are not moved. A point where either image has
weight 0 has weight 0 in the dissimilarity. The velocity is the parameters smoothed by a Gaussian of
one voxel, which preconditions the descent and keeps v smooth. docs/registration.md lists what was
tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ops import integrate
from ..runtime.device import fetched, sent
from ..runtime.steps import Recorder, Repeated, recorder_for
from .levels import FINEST_VELOCITY, Level, plan_levels, shrunk
from .objective import HalfWay, ImageTerm, SmoothnessTerm, Term, total
from .separable import Stretch, along_axes, gaussian_map, stretch_flow

STEPS = 4  # squarings while optimising, and in the result
LEARNING_RATE = 0.3  # voxels of the velocity's grid
BETAS = (0.9, 0.999)  # of Adam's means
SIGMA = 1.0  # smoothing of the velocity, in voxels of its grid
LOOK = 5  # iterations between two reads of the loss from a device
PATIENCE = 10  # iterations over which progress is judged
TOLERANCE = 0.01  # a level ends when they gain less than this fraction of its gain so far


@dataclass(frozen=True)
class Step:
    """The state of a search after an iteration, for a progress display."""

    level: Level
    iteration: int
    loss: float
    done: int
    total: int


def taper(size: tuple[int, ...], margin: float) -> Tensor:
    """(1, 1, H, W, D): 0 at the border of the grid, rising to 1 over `margin` of its voxels.

    An axis of a single voxel, of a 2D image, has no border.
    """
    out = torch.ones(1, 1, 1, 1, 1)
    for axis, n in enumerate(size):
        if n == 1:
            continue
        line = torch.arange(n, dtype=torch.float32)
        edge = (torch.minimum(line, n - 1 - line) / max(margin, 1e-6)).clamp(0, 1)
        out = out * (edge * edge * (3 - 2 * edge)).reshape(
            [-1 if a == axis else 1 for a in range(-2, 3)]
        )
    return out


def stalled(losses: list[float]) -> bool:
    """Whether the last PATIENCE iterations gained little of the level's whole gain."""
    if len(losses) < 2 * PATIENCE:
        return False
    recent = sum(losses[-PATIENCE:]) / PATIENCE
    before = sum(losses[-2 * PATIENCE : -PATIENCE]) / PATIENCE
    return before - recent <= TOLERANCE * (max(losses) - recent)


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
    """The search at one level. All of its state is in tensors, so an iteration can be replayed.

    terms: of the objective. start: the initial parameters (1, 3, h, w, d), on any grid over the
    same extent. margin: voxels of the velocity's grid over which the velocity falls to 0.
    raw: the parameters (1, 3, h, w, d). loss: of the parameters before the last iteration.
    """

    def __init__(self, level: Level, terms: Sequence[Term], start: Tensor, margin: float) -> None:
        self.parts = [term.at(level) for term in terms]
        window = taper(level.velocity, margin)
        if 1 in level.velocity:  # nothing moves out of the plane of a 2D image
            window = torch.cat([window * (n > 1) for n in level.velocity], 1)
        self.window = sent(window, start)
        self.blur = [sent(gaussian_map(n, n, SIGMA), start) for n in level.velocity]
        self.stretch = Stretch(level.velocity, level.images, start)
        self.raw = stretch_flow(start, level.velocity).requires_grad_(True)
        voxels = math.prod(level.velocity)  # the loss is a mean over them
        self.adam = Adam(self.raw, max(part.least_slope for part in self.parts) / voxels)
        self.loss = start.new_zeros(())

    def velocity(self) -> Tensor:
        """Compute the velocity from the parameters."""
        return along_axes(self.raw, self.blur) * self.window

    def objective(self) -> Tensor:
        """Compute the objective."""
        velocity = self.velocity()
        ways = integrate(torch.cat([-velocity, velocity]) / 2, STEPS - 1)
        first, second = (self.stretch(way) for way in ways.chunk(2))
        return total(self.parts, HalfWay(ways, (first, second)))

    def iterate(self) -> None:
        """Run one iteration."""
        loss = self.objective()
        (slope,) = torch.autograd.grad(loss, self.raw)
        self.adam.step(slope)
        self.loss.copy_(loss.detach())

    def run(self, iterations: int, look: int, record: Recorder | None) -> Iterator[float]:
        """Iterate to the last iteration or until the loss stalls, yielding each loss.

        look: iterations between two reads of the loss, each of which waits for the device. The
        final parameters are those at which the loss stalled, even if more iterations were run.
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
    """Find the velocity field that registers a pair, from its images alone.

    fixed, moving: (1, 1, H, W, D) on one isotropic working grid, foreground of about unit
    intensity, background 0. weights, similarity, noise: see `ImageTerm`. smoothness: see
    `SmoothnessTerm`. The other arguments and the result are those of `minimise`.
    """
    terms: list[Term] = [
        ImageTerm(fixed, moving, weights, similarity, noise),
        SmoothnessTerm(smoothness),
    ]
    return minimise(
        terms, fixed, iterations, margin=margin, on_step=on_step, look=look, record=record
    )


def minimise(
    terms: Sequence[Term],
    like: Tensor,
    iterations: tuple[int, ...],
    *,
    margin: float,
    on_step: Callable[[Step], None] = lambda step: None,
    look: int | None = None,
    record: Recorder | None = None,
) -> Tensor:
    """Find the velocity field that minimises a sum of terms.

    like: (1, C, H, W, D) on the isotropic working grid, for size, type and device. iterations:
    maximum per level, coarse to fine. margin: working voxels at the border over which the velocity
    falls to zero. on_step: called after each iteration.
    look: iterations between two reads of the loss; record: records an iteration. Neither changes
    the result; the defaults depend on the device.
    Returns the velocity (1, 3, h, w, d) on its own, coarser grid over the same extent, in voxels
    of that grid; `flow_of` turns it into a flow.
    """
    size = (like.shape[2], like.shape[3], like.shape[4])
    levels = plan_levels(size, iterations)
    if not levels:
        return like.new_zeros(1, 3, *shrunk(size, FINEST_VELOCITY))

    def begin(level: Level, raw: Tensor, width: float) -> Search:
        return Search(level, terms, raw, width)

    look = look or (1 if like.device.type == "cpu" else LOOK)
    record = record or recorder_for(like.device)
    raw = like.new_zeros(1, 3, *levels[0].velocity)
    return descend(begin, levels, size, raw, margin, on_step, look, record)


def descend(
    begin: Callable[[Level, Tensor, float], Search],
    levels: Sequence[Level],
    size: tuple[int, ...],
    raw: Tensor,
    margin: float,
    on_step: Callable[[Step], None],
    look: int,
    record: Recorder | None,
) -> Tensor:
    """Search level by level; returns the last velocity.

    begin: (level, parameters of the level before, margin in voxels of the velocity's grid) to the
    search at a level. size: of the working grid. raw: the first parameters. The other arguments are
    those of `minimise`.
    """
    cost, done = sum(level.cost for level in levels), 0
    side = next(axis for axis, n in enumerate(size) if n > 1)
    for level in levels:
        width = margin * (level.velocity[side] - 1) / (size[side] - 1)
        search = begin(level, raw, width)
        end, count = done + level.cost, level.iterations
        for iteration, loss in enumerate(search.run(count, look, record), start=1):
            done += level.cost // count
            on_step(Step(level, iteration, loss, done, cost))
        done, raw = end, search.raw.detach()
    return search.velocity().detach()


def exponential(velocity: Tensor) -> Tensor:
    """exp(velocity), (1, 3, h, w, d) in voxels of the velocity's grid."""
    return integrate(velocity, STEPS)


def flow_of(velocity: Tensor, size: tuple[int, ...]) -> Tensor:
    """exp(velocity) on the working grid: (1, 3, *size) in its voxels."""
    return stretch_flow(exponential(velocity), size)

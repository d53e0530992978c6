"""The operations on slabs: those of `ops` on the planes that each needs, fetched before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..ops import resize, warp
from ..registration.separable import along_axes, growth, linear_map, positions, shrink_maps
from ..runtime.device import sent
from .exchange import beside, planes
from .group import Group, Span

DEPTH = 4  # the axis of tensors that is split


class Aimed:
    """A flow with what it points to: reads images at its positions.

    flow: (B, 3, H, W, d), in voxels of a grid of `size` planes, of which the process owns d.
    Every process fetches the planes between the lowest and the highest that its flow points to,
    however far they are.
    """

    def __init__(self, group: Group, flow: Tensor, size: int) -> None:
        self.group, self.size = group, size
        first, end = group.own(size)
        self.wanted = [(0, size)]
        self.flow = flow
        if group.count == 1:
            return
        line = torch.arange(first, end, dtype=flow.dtype, device=flow.device)
        low, high = torch.aminmax(flow.detach()[:, 2] + line)
        rows = group.rows([float(low), float(high)])
        self.wanted = [reached(least, most, size) for least, most in rows]
        shift = flow.new_tensor([0, 0, first - self.wanted[group.rank][0]])
        self.flow = flow + shift.reshape(1, 3, 1, 1, 1)

    def read(self, image: Tensor, padding: str = "zeros") -> Tensor:
        """`ops.warp` of an image (B, C, H, W, d) of the same grid."""
        return warp(planes(image, self.group, self.size, self.wanted), self.flow, padding=padding)


def reached(low: float, high: float, size: int) -> Span:
    """The planes that positions from `low` to `high` are interpolated from; at least one."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0, size
    first = min(max(math.floor(low), 0), size - 1)
    return first, min(max(math.floor(high) + 2, first + 1), size)


def integrate(group: Group, velocity: Tensor, size: int, steps: int) -> Tensor:
    """`ops.integrate`: every squaring fetches as far as the flow of that step points.

    velocity: (B, 3, H, W, d). size: planes of the whole grid.
    """
    flow = velocity / 2**steps
    for _ in range(steps):
        flow = flow + Aimed(group, flow, size).read(flow)
    return flow


class Along:
    """Linear maps along the three axes of slabs: smoothing, shrinking.

    maps: (H', H), (W', W), (D', D), of the whole grid. like: a tensor of the type and device.
    """

    def __init__(self, group: Group, maps: Sequence[Tensor], like: Tensor) -> None:
        first, second, third = maps
        self.group, self.size = group, third.shape[1]
        self.wanted = [columns(third[a:b]) for a, b in group.spans(third.shape[0])]
        (a, b), (low, high) = group.own(third.shape[0]), self.wanted[group.rank]
        self.maps = [sent(m, like) for m in (first, second, third[a:b, low:high].contiguous())]

    def __call__(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W, d). Returns (B, C, H', W', d')."""
        return along_axes(planes(x, self.group, self.size, self.wanted), self.maps)


def columns(rows: Tensor) -> Span:
    """The columns that some rows of a matrix read; at least one."""
    found = (rows != 0).any(0).nonzero().flatten().tolist()
    return (found[0], found[-1] + 1) if found else (0, 1)


def shrink(group: Group, image: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """`registration.separable.shrink`; old, new: the sizes of the whole grids."""
    return Along(group, shrink_maps(old, new), image)(image)


class Stretch:
    """`registration.separable.Stretch` of slabs; old, new: the sizes of the whole grids."""

    def __init__(self, group: Group, old: Sequence[int], new: Sequence[int], like: Tensor) -> None:
        self.new = tuple(new)
        self.moves = tuple(old) != self.new
        factors = torch.tensor(growth(old, new), dtype=torch.float64)
        self.factors = sent(factors.reshape(1, 3, 1, 1, 1), like)
        maps = [linear_map(o, positions(o, n)) for o, n in zip(old, new, strict=True)]
        self.resizes = like.device.type == "cpu"  # as there
        if self.resizes:
            maps[:2] = [torch.eye(1), torch.eye(1)]
        self.along = Along(group, maps, like)

    def __call__(self, flow: Tensor) -> Tensor:
        """flow: (B, 3, h, w, d). Returns (B, 3, H, W, D)."""
        if not self.moves:
            return flow
        scaled = flow * self.factors
        if not self.resizes:
            return self.along(scaled)
        along = self.along
        near = planes(scaled, along.group, along.size, along.wanted) @ along.maps[2].mT
        return resize(near, (*self.new[:2], near.shape[-1]))


def gradient_loss(group: Group, flow: Tensor, size: int) -> Tensor:
    """The process's part of `ops.gradient_loss`: the sum over processes is the whole.

    flow: (B, 3, H, W, d). size: planes of the whole grid.
    """
    a, b = group.own(size)
    last = [(first, min(end + 1, size)) for first, end in group.spans(size)]
    further = planes(flow, group, size, last)
    whole = flow.numel() // (b - a) * size
    parts = []
    for axis in (2, 3, DEPTH):
        x, n = (further, size) if axis == DEPTH else (flow, flow.shape[axis])
        pairs = whole // n * (n - 1)
        parts.append(x.diff(dim=axis).square().sum() / max(pairs, 1))
    return torch.stack(parts).mean()


def with_halo(group: Group, x: Tensor, size: int, width: int) -> Tensor:
    """The planes (B, C, H, W, d) with a halo of `width` on both sides, within the volume."""
    return planes(x, group, size, beside(group, size, width)) if width else x


def within(group: Group, x: Tensor, size: int, width: int) -> Tensor:
    """Cut the halo of `width` off again."""
    (a, b), (low, _) = group.own(size), beside(group, size, width)[group.rank]
    return x[..., a - low : b - low]

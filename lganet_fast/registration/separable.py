"""Linear maps that act along each axis in turn: smoothing, resizing, both at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ops import resize
from ..runtime.device import sent


def along_axes(x: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """Apply one matrix along each spatial axis.

    x: (B, C, H, W, D). maps: (H', H), (W', W), (D', D). Returns (B, C, H', W', D').
    """
    first, second, third = maps
    x = second @ (x @ third.mT)
    return (first @ x.flatten(3)).reshape(*x.shape[:2], -1, *x.shape[3:])


def positions(size: int, samples: int) -> Tensor:
    """Positions, in voxels, of `samples` points spread evenly from end to end of an axis."""
    return torch.linspace(0, size - 1, samples, dtype=torch.float64)


def gaussian_map(size: int, samples: int, sigma: float) -> Tensor:
    """(samples, size) matrix: a Gaussian mean of width `sigma` voxels at evenly spread points."""
    offset = positions(size, samples)[:, None] - torch.arange(size)
    weight = torch.exp(-0.5 * (offset / max(sigma, 1e-3)) ** 2) * (offset.abs() <= 4 * sigma + 1)
    return weight / weight.sum(1, keepdim=True)


def linear_map(size: int, at: Tensor) -> Tensor:
    """(samples, size) matrix: linear interpolation at voxel coordinates (samples,), 0 outside."""
    return (1 - (at[:, None] - torch.arange(size)).abs()).clamp_min(0)


def growth(old: Sequence[int], new: Sequence[int]) -> list[float]:
    """Voxels of the `new` grid per voxel of the `old` grid, per axis, over the same extent."""
    return [max(n - 1, 1) / max(o - 1, 1) for o, n in zip(old, new, strict=True)]


def shrink(image: Tensor, size: Sequence[int]) -> Tensor:
    """The image on a coarser grid over the same extent, smoothed against aliasing.

    image: (B, C, H, W, D). size: three lengths, none above the image's. At the same size the image
    is smoothed too: otherwise interpolation would smooth it more between voxels than at voxels,
    and noise alone would make two images agree better after a shift by half a voxel.
    """
    return along_axes(image, [sent(m, image) for m in shrink_maps(image.shape[2:], size)])


def shrink_maps(old: Sequence[int], new: Sequence[int]) -> list[Tensor]:
    """The matrices along the axes by which `shrink` goes from one size to another."""
    return [
        gaussian_map(o, n, 0.7 if o == n else 0.5 * (o - 1) / max(n - 1, 1))
        for o, n in zip(old, new, strict=True)
    ]


class Stretch:
    """Resamples flows to another grid over the same extent, with values in that grid's voxels.

    old, new: three lengths. like: a tensor of the flows' type on their device. On the CPU this is
    `ops.resize`; elsewhere a matrix along each axis, whose gradient is a matrix product too and
    needs no atomic sums.
    """

    def __init__(self, old: Sequence[int], new: Sequence[int], like: Tensor) -> None:
        self.size = tuple(new)
        self.moves = tuple(old) != self.size
        lengths = list(zip(old, new, strict=True))
        factors = torch.tensor(growth(old, new), dtype=torch.float64)
        self.factors = sent(factors.reshape(1, 3, 1, 1, 1), like)
        self.maps = (
            []
            if like.device.type == "cpu"
            else [sent(linear_map(o, positions(o, n)), like) for o, n in lengths]
        )

    def __call__(self, flow: Tensor) -> Tensor:
        """flow: (B, 3, *old). Returns (B, 3, *new)."""
        if not self.moves:
            return flow
        scaled = flow * self.factors
        return along_axes(scaled, self.maps) if self.maps else resize(scaled, self.size)


def stretch_flow(flow: Tensor, size: Sequence[int]) -> Tensor:
    """Resample a flow (B, 3, h, w, d) to another grid, (B, 3, *size); see `Stretch`."""
    return Stretch(flow.shape[2:], size, flow)(flow)

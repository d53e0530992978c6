"""Random numbers that vary smoothly over a volume, and random deformations made of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops import integrate, resize, warp

Size = tuple[int, int, int]
# Of the velocities that add up: distance between their random numbers and largest standard
# deviation, both in mm.
SCALES_MM = ((48.0, 4.0), (24.0, 2.5), (12.0, 1.2))
TURN = 10.0  # degrees about each axis, at most, of the affine part
GROWTH = 0.1  # and change of scale, shear and translation (of the longest side)
SHEAR = 0.05
SHIFT = 0.04


class Source:
    """Random numbers on a device, all from one seed."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """Normal numbers, mean 0 and standard deviation 1."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Numbers from `low` to `high`."""
        found = torch.rand(shape, generator=self.generator, device=self.device)
        return found * (high - low) + low

    def number(self, low: float = 0.0, high: float = 1.0) -> float:
        """One number from `low` to `high`."""
        return float(self.uniform(1, low=low, high=high))

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return min(high, low + int(self.number() * (high + 1 - low)))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.number() < probability


def smooth_noise(source: Source, channels: int, size: Sequence[int], distance: float) -> Tensor:
    """(1, channels, H, W, D): numbers of about unit variance that vary over `distance` voxels."""
    coarse = [max(2, round(n / distance) + 1) for n in size]
    out = source.normal(1, channels, *coarse)
    middle = [min(n, 4 * c) for n, c in zip(size, coarse, strict=True)]
    out = F.avg_pool3d(resize(out, middle), 3, 1, 1, count_include_pad=False)  # rounds off edges
    out = resize(out, size)
    return out / out.std().clamp_min(1e-6)


def velocity(source: Source, size: Size, spacing: float, strength: float) -> Tensor:
    """(1, 3, h, w, d): a random velocity on a grid of half the size, in its voxels.

    spacing: of the whole grid, in mm. strength: factor of SCALES_MM.
    """
    half = [max(2, n // 2) for n in size]
    parts = [
        smooth_noise(source, 3, half, distance / (2 * spacing))
        * (source.number() * strength * amplitude / (2 * spacing))
        for distance, amplitude in SCALES_MM
    ]
    return torch.stack(parts).sum(0)


def exponential(velocity: Tensor, size: Size) -> Tensor:
    """exp(velocity) on the whole grid, (1, 3, H, W, D), in its voxels."""
    return resize(integrate(velocity, 5), size, factor=2.0)


def affine(source: Source, strength: float) -> Tensor:
    """(3, 4): a random affine map about the centre, translations as fractions of the longest side.

    strength: factor of TURN, GROWTH, SHEAR and SHIFT.
    """
    x, y, z = torch.deg2rad(source.uniform(3, low=-1.0) * TURN * strength).double().cpu()
    generator = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    stretch = torch.diag(1 + source.uniform(3, low=-1.0).double().cpu() * GROWTH * strength)
    a, b, c = source.uniform(3, low=-1.0).double().cpu() * SHEAR * strength
    stretch[0, 1], stretch[0, 2], stretch[1, 2] = a, b, c
    shift = source.uniform(3, 1, low=-1.0).double().cpu() * SHIFT * strength
    return torch.cat([torch.linalg.matrix_exp(generator) @ stretch, shift], 1)


def centred(size: Size, like: Tensor) -> Tensor:
    """(1, 3, H, W, D): the places of the voxels from the centre of the grid."""
    lines = [torch.arange(n, device=like.device, dtype=like.dtype) - (n - 1) / 2 for n in size]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"))[None]


def mapped(matrix: Tensor, places: Tensor, size: Size) -> Tensor:
    """The affine map of places from the centre; `matrix` as `affine` makes it."""
    matrix = matrix.to(places)
    turned = torch.einsum("ij,bjxyz->bixyz", matrix[:, :3], places)
    return turned + matrix[:, 3].view(1, 3, 1, 1, 1) * max(size)


def inverse(matrix: Tensor) -> Tensor:
    """The inverse of an affine map."""
    turn = torch.linalg.inv(matrix[:, :3])
    return torch.cat([turn, -turn @ matrix[:, 3:]], 1)


class Deformation:
    """A random map from the voxels of an image to those of the label map that it shows.

    x -> affine(x + u(x)) with a flow u = exp(v), both of random strength.
    """

    def __init__(self, source: Source, size: Size, spacing: float, strength: float) -> None:
        self.size = size
        self.velocity = velocity(source, size, spacing, strength)
        self.matrix = affine(source, strength)
        self.places = centred(size, self.velocity)

    @cached_property
    def target(self) -> Tensor:
        """(1, 3, H, W, D): where each voxel lies in the label map, from the centre, in voxels."""
        moved = self.places + exponential(self.velocity, self.size)
        return mapped(self.matrix, moved, self.size)

    def flow(self) -> Tensor:
        """(1, 3, H, W, D), with which `warp` makes the image of the label map."""
        return self.target - self.places

    def flow_to(self, other: Deformation) -> Tensor:
        """(1, 3, H, W, D): where each voxel's anatomy lies in the other image, in voxels.

        The other map's inverse after this one: exp(-v') o affine'^-1 o affine o exp(v).
        """
        there = mapped(inverse(other.matrix), self.target, self.size)
        back = exponential(-other.velocity, self.size)
        offset = there - self.places
        return offset + warp(back, offset, padding="border")

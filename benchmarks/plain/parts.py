"""Parts shared by several networks; tensors are (B, C, H, W, D), flows in voxels."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lganet_fast.models.published import ConvNormAct, conv3

__all__ = [
    "ConvAct",
    "ConvNormAct",
    "Head",
    "ResidualEncoder",
    "UpConv",
    "compose",
    "conv3",
    "integrate",
    "norm_leaky",
    "two_convs",
    "up",
    "voxels",
    "warp",
]


@cache
def voxels(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The coordinates of a volume's voxels, (1, 3, H, W, D), stored like the authors' buffers."""
    lines = [torch.arange(n, dtype=dtype, device=device) for n in size]
    return torch.stack(torch.meshgrid(lines, indexing="ij"))[None]


def warp(image: Tensor, flow: Tensor, aligned: bool = True) -> Tensor:
    """The image at p + flow(p), zeros outside.

    Coordinates are scaled by the flow's size. aligned: whether [-1, 1] ends at the centres of the
    outer voxels, or at their outer faces, as in GroupMorph.
    """
    size = flow.shape[2:]
    place = voxels(tuple(size), flow.dtype, flow.device) + flow
    axes = [2 * (place[:, axis] / (n - 1) - 0.5) for axis, n in enumerate(size)]
    grid = torch.stack(axes[::-1], -1)
    return F.grid_sample(image, grid, align_corners=aligned)


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The flow second(p) + first(p + second(p))."""
    return warp(first, second) + second


def integrate(velocity: Tensor, steps: int = 7) -> Tensor:
    """Scaling and squaring."""
    flow = velocity / 2**steps
    for _ in range(steps):
        flow = flow + warp(flow, flow)
    return flow


def up(x: Tensor, factor: float = 2) -> Tensor:
    """Trilinear interpolation with aligned corners; values are not scaled."""
    return F.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=True)


def norm_leaky(x: Tensor, slope: float = 0.1) -> Tensor:
    """LReLU(IN(x))."""
    return F.leaky_relu(F.instance_norm(x), slope)


class ConvAct(nn.Module):
    """LReLU(conv3(x)); slope 0 is a ReLU."""

    def __init__(self, inputs: int, outputs: int, slope: float = 0.1, stride: int = 1) -> None:
        super().__init__()
        self.main = nn.Conv3d(inputs, outputs, 3, stride, padding=1)
        self.act = nn.LeakyReLU(slope) if slope else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W, D) -> (B, outputs, H', W', D')."""
        return self.act(self.main(x))


def two_convs(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution, norm and leaky ReLU, twice."""
    return nn.Sequential(ConvNormAct(inputs, outputs), ConvNormAct(outputs, outputs))


class Head(nn.Module):
    """A module with one part, under its name in checkpoints."""

    def __init__(self, **part: nn.Module) -> None:
        super().__init__()
        ((self.name, module),) = part.items()
        self.add_module(self.name, module)

    def forward(self, x: Tensor) -> Tensor:
        """The result of the part."""
        out: Tensor = self.get_submodule(self.name)(x)
        return out


class Residual(nn.Module):
    """LReLU(IN(x + conv3(LReLU(IN(x)))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.InstanceNorm3d(channels), nn.LeakyReLU(0.1), conv3(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> the same shape."""
        return norm_leaky(x + self.block(x))


class ResidualEncoder(nn.Module):
    """Features of four levels (RDP, PCNet)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = ConvNormAct(1, channels)
        for level in (1, 2, 3):
            width = channels << level
            down = nn.Conv3d(width // 2, width, 3, stride=2, padding=1)
            self.add_module(f"conv{level}", nn.Sequential(down, Residual(width)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 1, H, W, D) -> the levels' features."""
        found = []
        for level in range(4):
            x = self.get_submodule(f"conv{level}")(x)
            found.append(x)
        return found


class UpConv(nn.Module):
    """LReLU(IN(transposed convolution that doubles the sides))."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.upconv = nn.ConvTranspose3d(inputs, outputs, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W, D) -> (B, outputs, 2H, 2W, 2D)."""
        return norm_leaky(self.upconv(x))

"""PRNet++, which correlates sums over windows."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .parts import ConvAct, Head, compose, conv3, up, warp

C = 8


class Features(nn.Module):
    """Five maps of an image, coarse to fine."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, C, 2 * C, 2 * C, 4 * C, 4 * C)
        self.encoder = nn.Module()
        for k, (a, b) in enumerate(itertools.pairwise(widths), 1):
            self.encoder.add_module(f"block{k}", ConvAct(a, b, 0.0, stride=1 if k == 1 else 2))
        for k, (a, b) in enumerate(((8, 4), (6, 4), (6, 2), (3, 2)), 1):
            self.add_module(f"decoder{k}", Head(Conv=ConvAct(a * C, b * C, 0.0)))
        self.decoder5 = ConvAct(2 * C, C, 0.0)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 1, H, W, D) -> maps at 1/8, 1/4, 1/2, 1 and 1 of the size."""
        skips = []
        for k in range(1, 6):
            x = self.encoder.get_submodule(f"block{k}")(x)
            skips.append(x)
        x, found = skips.pop(), []
        for k in range(1, 5):
            wide = F.interpolate(x, scale_factor=2, mode="nearest")
            x = self.get_submodule(f"decoder{k}")(torch.cat([wide, skips.pop()], 1))
            found.append(x)
        return [*found, self.decoder5(x)]


def sums(x: Tensor) -> Tensor:
    """Sums over 3^3 voxels, zeros outside."""
    return F.avg_pool3d(x, 3, 1, padding=1, divisor_override=1)


def correlate(x: Tensor, y: Tensor) -> Tensor:
    """27 shifted products of sums over 3^3 voxels, 2 voxels apart."""
    height, width, depth = x.shape[2:]
    boxes, around = sums(x), sums(F.pad(y, [2] * 6))
    planes = [
        (boxes * around[:, :, i : i + height, j : j + width, k : k + depth]).sum(1, keepdim=True)
        for i, j, k in itertools.product((0, 2, 4), repeat=3)
    ]
    return torch.cat(planes, 1) / 27


class Registration(nn.Module):
    """A flow between two maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c, wide = channels, 2 * channels + 27
        self.conv1 = nn.Sequential(conv3(wide, wide), conv3(wide, c))
        self.conv2 = nn.Sequential(conv3(c, c), conv3(c, c))
        self.flow = conv3(c, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two (B, C, H, W, D) -> flow."""
        a = F.relu(self.conv1(torch.cat([x, correlate(x, y), y], 1)))
        return self.flow(a + F.relu(self.conv2(a)))


class Plain(nn.Module):
    """The flow of two images (B, 1, H, W, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Features()
        for k, width in enumerate((4, 4, 2, 2, 1), 1):
            self.add_module(f"prblock{k}", Registration(width * C))

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Coarse to fine; coarse flows are resized without doubling their values."""
        xs, ys = self.net(moving), self.net(fixed)
        flow = self.get_submodule("prblock1")(xs[0], ys[0])
        for k in (2, 3, 4):
            moved = warp(xs[k - 1], up(2 * flow))
            step = self.get_submodule(f"prblock{k}")(moved, ys[k - 1])
            flow = warp(flow, step) + step
        step = self.get_submodule("prblock5")(warp(xs[4], flow), ys[4])
        return compose(flow, step)

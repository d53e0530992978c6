"""ModeT, with 27 shifted copies of the keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..published import neighbour_attention
from .parts import ConvAct, ConvNormAct, compose, conv3, up, warp

C, HEAD, HEADS = 4, 6, (1, 1, 2, 4, 8)


class Encoder(nn.Module):
    """Features of five levels."""

    def __init__(self) -> None:
        super().__init__()
        for level in range(5):
            width = C << level
            first = nn.AvgPool3d(2) if level else ConvAct(1, C)
            convs = ConvNormAct(width, 2 * width), ConvNormAct(2 * width, 2 * width)
            self.add_module(f"conv{level}", nn.Sequential(first, *convs))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 1, H, W, D) -> the levels' features."""
        found = []
        for level in range(5):
            x = self.get_submodule(f"conv{level}")(x)
            found.append(x)
        return found


class Projection(nn.Module):
    """Queries or keys of all heads."""

    def __init__(self, inputs: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(HEAD * heads)
        self.proj = nn.Linear(inputs, HEAD * heads)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W, D) -> (B, 6 heads, H, W, D)."""
        x = self.norm(self.proj(x.permute(0, 2, 3, 4, 1)))
        return x.permute(0, 4, 1, 2, 3)


class Motion(nn.Module):
    """The mean offset of each head."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.rpb = nn.Parameter(torch.zeros(heads, 3, 3, 3))

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """(B, 6 heads, H, W, D) -> (B, 3 heads, H, W, D)."""
        return neighbour_attention(q, k, self.rpb)


class Weighting(nn.Module):
    """The heads' fields at twice the size, weighted."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        convs = ConvNormAct(3 * heads, 6 * heads), ConvNormAct(6 * heads, 6 * heads)
        self.conv = nn.Sequential(*convs, conv3(6 * heads, heads), nn.Softmax(1))

    def forward(self, fields: Tensor) -> Tensor:
        """(B, 3 heads, H, W, D) -> (B, 3, 2H, 2W, 2D)."""
        x = up(fields)
        weights = self.conv(x).unsqueeze(2)
        return 2 * (weights * torch.unflatten(x, 1, (self.heads, 3))).sum(1)


class Plain(nn.Module):
    """The flow of two images (B, 1, H, W, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        for level, heads in enumerate(HEADS, 1):
            self.add_module(f"projblock{level}", Projection(C << level, heads))
            self.add_module(f"mdt{level}", Motion(heads))
            if level > 2:
                self.add_module(f"cwm{level}", Weighting(heads))

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Coarse to fine."""
        xs, ys = self.encoder(moving), self.encoder(fixed)
        part = self.get_submodule

        def motion(level: int, moved: Tensor) -> Tensor:
            project = part(f"projblock{level}")
            found: Tensor = part(f"mdt{level}")(project(ys[level - 1]), project(moved))
            return found

        flow = part("cwm5")(motion(5, xs[4]))
        for level in (4, 3):
            step = part(f"cwm{level}")(motion(level, warp(xs[level - 1], flow)))
            flow = compose(up(2 * flow), step)
        flow = up(2 * compose(flow, motion(2, warp(xs[1], flow))))
        return compose(flow, motion(1, warp(xs[0], flow)))

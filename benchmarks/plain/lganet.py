"""LGANet, from the blocks that it shares with the published LGANet++."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lganet_fast.models.published import CWAM, PositionAttention, Residual, SwinBlock, Trunk

from .parts import ConvNormAct, compose, conv3, integrate, up, warp

FILTERS, LEVELS = 8, (4, 3, 2, 1)


class Encoder(nn.Module):
    """Features of five levels."""

    def __init__(self) -> None:
        super().__init__()
        before = 1
        for level in range(5):
            width = FILTERS << level
            stage = [conv3(before, width), *(ConvNormAct(width, width) for _ in range(2))]
            self.add_module(f"conv{level}", nn.Sequential(*stage))
            before = width

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 1, H, W, D) -> the levels' features."""
        found = []
        for level in range(5):
            x = self.get_submodule(f"conv{level}")(F.max_pool3d(x, 2) if level else x)
            found.append(x)
        return found


class Coarsest(nn.Module):
    """Level 5."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = 2 * channels
        self.convs = ConvNormAct(width, width)
        self.pa = PositionAttention(width)
        self.resnets = Residual(width)
        self.swin = nn.Sequential(*(SwinBlock(width, 0.0) for _ in range(2)))
        self.flows = conv3(width, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two (B, C, H, W, D) -> velocity."""
        out = self.convs(torch.cat([x, y], 1))
        return self.flows(self.swin(self.resnets(self.pa(out))))


class Level(nn.Module):
    """Levels 4 to 1."""

    def __init__(self, channels: int, decompose: bool) -> None:
        super().__init__()
        self.decompose = decompose
        if decompose:
            self.de = Trunk(channels)
        self.nff = CWAM(channels)
        self.resnet = Residual(3 * channels)
        self.flow = conv3(3 * channels, 3)

    def forward(self, x: Tensor, y: Tensor, coarse: Tensor) -> Tensor:
        """Two (B, C, H, W, D) and the flow so far -> velocity."""
        moved = warp(x, coarse)
        if not self.decompose:
            return self.flow(self.resnet(self.nff(x, moved, y)))
        features_y, flow_y = self.de(y)
        features_x, flow_x = self.de(moved)
        moved = moved + warp(features_y, flow_x) + warp(features_x, flow_y)
        return self.flow(self.resnet(self.nff(x, moved, y))) + flow_y + flow_x


class Plain(nn.Module):
    """The flow of two images (B, 1, H, W, D); no dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.deblock5 = Coarsest(16 * FILTERS)
        for level in LEVELS:
            self.add_module(f"deblock{level}", Level(FILTERS << level - 1, level > 1))

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Coarse to fine."""
        xs, ys = self.encoder(moving), self.encoder(fixed)
        flow = integrate(self.deblock5(xs[4], ys[4]))
        for level in LEVELS:
            coarse = up(2 * flow)
            step = self.get_submodule(f"deblock{level}")(xs[level - 1], ys[level - 1], coarse)
            flow = compose(coarse, integrate(step))
        return flow

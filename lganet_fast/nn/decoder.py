"""The levels of the decoder, coarse to fine (paper 2.3 to 2.5): features in, a level's flow out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import compose, correlate, warp
from .fifm import CWAM, IDM
from .layers import Block, Conv3, FlowConv, Residual
from .lgam import LGAM, PositionAttention


class CorrelationConv(Block, Conv3):
    """x + conv3(corr(x, y)): the moving features with what the fixed ones around say of them."""

    def __init__(self, channels: int) -> None:
        super().__init__(27, channels)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        """x, y (B, C, H, W, D) -> the same shape."""
        return x + super().forward(correlate(x, y))


class CoarsestLevel(nn.Module):
    """Level 4, `deblock4`: conv3 of the maps side by side, attention, conv3 to the level's flow.

    lgam=False leaves out correlation and attention; the convolutions and the residual block stay.
    """

    def __init__(
        self, channels: int, maps: int, token_order: str, dropout: float, lgam: bool = True
    ) -> None:
        super().__init__()
        self.lgam = lgam
        self.convs = Conv3(maps * channels, channels)
        self.resnets = Residual(channels)
        self.flows = FlowConv(channels)
        if lgam:
            self.Conv = CorrelationConv(channels)
            self.pa = PositionAttention(channels)
            self.swin = nn.Sequential(*(LGAM(channels, token_order, dropout) for _ in range(2)))

    def forward(self, x: Tensor, y: Tensor, fused: Tensor | None) -> Tensor:
        """Moving and fixed features and C_4, (B, C, H, W, D) -> flow (B, 3, H, W, D)."""
        if self.lgam:
            x = self.Conv(x, y)
        out = self.convs(torch.cat([m for m in (x, y, fused) if m is not None], 1))
        if self.lgam:
            out = self.pa(out)
        out = self.resnets(out)
        return self.flows(self.swin(out) if self.lgam else out)


class Level(nn.Module):
    """Levels 3 to 1, `deblock3` to `deblock1`; with w = warp(x', coarse), C the fused features:

    levels 3 and 2: (w2, g2), g1 = IDM twice on (y, w), p = flow(resnet(CWAM(C, w2, y))), the
    level's flow warp(warp(g1, g2) + g2, p) + p; level 1: p = flow(resnet(CWAM(C, w, y))) alone.
    fifm=False leaves out correlation, IDM and CWAM: p = flow(resnet([C, w, y])).
    """

    def __init__(self, channels: int, maps: int, decompose: bool, fifm: bool = True) -> None:
        super().__init__()
        self.fifm, self.decompose = fifm, decompose and fifm
        if fifm:
            self.Conv = CorrelationConv(channels)
            self.nff = CWAM(channels, maps)
        if self.decompose:
            self.idm = IDM(channels)
        self.resnet = Residual(maps * channels)
        self.flow = FlowConv(maps * channels)

    def forward(self, x: Tensor, y: Tensor, fused: Tensor | None, coarse: Tensor) -> Tensor:
        """Moving and fixed features and C_i, (B, C, H, W, D) -> flow (B, 3, H, W, D).

        coarse: the flow so far at this level's size, (B, 3, H, W, D), in its voxels.
        """
        moved = warp(self.Conv(x, y) if self.fifm else x, coarse)
        if self.decompose:
            moved, flow2, flow1 = self.idm(y, moved)
        maps = [m for m in (fused, moved, y) if m is not None]
        change = self.flow(self.resnet(self.nff(*maps) if self.fifm else torch.cat(maps, 1)))
        return compose(compose(flow1, flow2), change) if self.decompose else change

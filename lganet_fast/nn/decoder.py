"""The levels of the decoder, coarse to fine (paper 2.3 to 2.5): features in, a level's flow out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import compose, convolve, correlate, derived, warp
from .fifm import CWAM, IDM
from .folded import local_global_attention, position_attention
from .layers import Block, Conv3, FlowConv, Residual, fuses
from .lgam import LGAM, PositionAttention

PLANES = 48  # along H: a slab of the 27 channels of a correlation, where nobody keeps them


def with_zeros(weight: Tensor) -> Tensor:
    """The weights of 27 channels for 32 of which the last are zeros."""
    return F.pad(weight, [0, 0, 0, 0, 0, 0, 0, 5])


def part_of_more(x: Tensor) -> bool:
    """Whether other numbers share the memory of a tensor; True while that cannot be told."""
    traced = torch.compiler.is_compiling()
    return traced or x.untyped_storage().nbytes() > x.numel() * x.element_size()


class CorrelationConv(Block, Conv3):
    """x + conv3(corr(x, y)): moving features plus their convolved correlation with the fixed."""

    def __init__(self, channels: int) -> None:
        super().__init__(27, channels)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        """x, y (B, C, H, W, D) -> the same shape."""
        if fuses(x):  # 32 channels for 27: whole vectors of numbers
            around = correlate(x, y, width=32)
            return convolve(around, derived(with_zeros, self.weight), self.bias, add=x)
        if x.is_cuda or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(correlate(x, y), x)
        out = torch.empty_like(x)
        height = x.shape[2]
        for start in range(0, height, PLANES):
            end = min(start + PLANES, height)
            first = max(start - 2, 0)  # the planes that the slab's result depends on
            near = slice(first, min(end + 2, height))
            change = super().forward(correlate(x[:, :, near], y[:, :, near]))
            part = slice(start - first, end - first)
            torch.add(x[:, :, start:end], change[:, :, part], out=out[:, :, start:end])
        return out


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

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Moving and fixed features and, if any, C_4, (B, C, H, W, D) -> flow (B, 3, H, W, D)."""
        x, y, *fused = maps
        if self.lgam:
            x = self.Conv(x, y)
        out = self.convs([x, y, *fused])
        if not self.lgam:
            return self.flows(self.resnets(out))
        if fuses(out) and not self.training:
            out = self.resnets(position_attention(out, self.pa))
            parts: list[Any] = [part.attn for part in self.swin]
            return self.flows(local_global_attention(out, parts))
        return self.flows(self.swin(self.resnets(self.pa(out))))


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

    def forward(
        self, maps: list[Tensor], coarse: Tensor, trunk: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Moving and fixed features and, if any, C_i, (B, C, H, W, D) -> flow (B, 3, H, W, D).

        maps: emptied, so that the memory of each is free as soon as it has been used.
        coarse: the flow so far at this level's size, (B, 3, H, W, D), in its voxels.
        trunk: what IDM's trunk makes of the fixed features, where that is known.
        """
        x, y, *fused = maps
        maps.clear()
        x = self.Conv(x, y) if self.fifm else x
        if not torch.is_grad_enabled() and not y.is_cuda and part_of_more(y):
            y = y.clone()  # it was one with the moving features, whose memory is free now
        moved = warp(x, coarse)
        del x
        if self.decompose:
            moved, flow2, flow1 = self.idm(y, moved, trunk)
        side = [*fused, moved, y] if fuses(y) else torch.cat([*fused, moved, y], 1)
        del fused, moved, y
        change = self.flow(self.resnet(self.nff(side) if self.fifm else side))
        return compose(compose(flow1, flow2), change) if self.decompose else change

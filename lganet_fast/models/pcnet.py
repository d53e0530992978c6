"""PCNet: velocities of all levels gated into one at each level, and integrated there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..nn.fifm import CWAM
from ..nn.layers import Block, Conv3, FlowConv, done, fuses, times
from ..nn.pyramid import ResidualEncoder, TwoConvs, UpConv
from ..ops import compose, convolve, derived, integrate, resize, warp
from .network import Network, Shape
from .sizes import Size, smallest_that_fits

WIDTH = 16  # of the field integration, for each velocity
REDUCTION = 8  # of the channel attention's inner width


def joined(*parts: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of one convolution with the outputs of several, theirs in turn in `parts`."""
    return torch.cat(parts[::2]), torch.cat(parts[1::2])


class FieldIntegration(Block):
    """integrate(sum_i gate_i u_i), the gates in (0, 1) convolved from all n velocities u_i."""

    def __init__(self, count: int) -> None:
        super().__init__()
        width = WIDTH * count
        self.conv = TwoConvs(3 * count, width)
        self.weight_conv = nn.ModuleList(nn.Sequential(Conv3(width, 3)) for _ in range(count))

    def forward(self, velocities: Tensor) -> Tensor:
        """(B, 3n, H, W, D), coarsest first -> flow (B, 3, H, W, D)."""
        parts = list(self.weight_conv.parameters())
        weights = joined(*parts) if torch.is_grad_enabled() else derived(joined, *parts)
        gates = torch.sigmoid(convolve(self.conv(velocities), *weights)).to(velocities)
        gated = times(gates, velocities)
        return integrate(torch.unflatten(gated, 1, (-1, 3)).sum(1))


class PCNet(Network):
    """Lv et al. (2022), as reimplemented in PyTorch for the comparison: its published format.

    size: (H, W, D) of the volumes, for information: any volume is padded with zeros, at the far
        ends, to sides that are multiples of 8, and the flow is cropped back.
    in_channel: channels of each image. channels: of the finest level.
    checkpoint: None, or "blocks" to keep in training only what enters each block.

    Velocities are not doubled from level to level, and the heads begin at PyTorch's defaults, both
    as published. Raises InputError for invalid arguments.
    """

    name, title = "pcnet", "PCNet"
    least = 8

    def __init__(
        self,
        size: Sequence[int],
        in_channel: int = 1,
        channels: int = 16,
        checkpoint: str | None = None,
    ) -> None:
        if channels < 1:
            raise InputError(f"channels must be at least 1, got {channels}")
        super().__init__(size, in_channel=in_channel, channels=channels)
        c = channels
        self.encoder_float = ResidualEncoder(in_channel, c)
        self.encoder_fixed = ResidualEncoder(in_channel, c)
        self.conv_bottleNeck = TwoConvs(16 * c, 8 * c)
        self.reg_conv3 = FlowConv(8 * c)
        for level, width in ((2, 8 * c), (1, 12 * c), (0, 6 * c)):
            self.add_module(f"upconv{level}", UpConv(width, c << level))
            self.add_module(f"dfi_{level}", FieldIntegration(3 - level))
            self.add_module(f"nff_{level}", CWAM(c << level, 3, REDUCTION))
        self.reg_conv2 = FlowConv(12 * c)
        self.reg_conv1 = FlowConv(6 * c)
        self.reg_conv0 = nn.Sequential(Conv3(3 * c, c), FlowConv(c))
        self.finish(checkpoint)

    def padded_size(self, size: Sequence[int]) -> Size:
        """Sides of multiples of 8, more than one voxel in all at an eighth of them."""

        def fits(found: Size) -> bool:
            return sum(found) > 3 * self.least

        return smallest_that_fits(size, self.multiple, self.least, fits)

    def flow_of(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Coarse to fine: at each level all velocities so far make the flow that warps features."""
        moved, still = self.encoder_float(moving), self.encoder_fixed(fixed)
        z = self.conv_bottleNeck([still.pop(), moved.pop()])
        velocities = [self.reg_conv3(z)]
        part = self.get_submodule
        for level in (2, 1, 0):
            size = still[-1].shape[2:]
            here = torch.cat([resize(v, size) for v in velocities], 1)
            flow = part(f"dfi_{level}")(here)
            maps = [still.pop(), warp(moved.pop(), flow), part(f"upconv{level}")(z)]
            if not fuses(maps[0]):
                z = torch.cat(maps, 1)
                maps.clear()
            z = done(part(f"nff_{level}")(maps or z))
            if level:
                velocities.append(part(f"reg_conv{level}")(z))
        return compose(flow, integrate(self.reg_conv0(z)))

    @classmethod
    def options_of(cls, shapes: Mapping[str, Shape], about: Mapping[str, Any]) -> dict[str, Any]:
        """Read the channels from the first convolution."""
        channels, in_channel = shapes["encoder_float.conv0.main.weight"][:2]
        return {"in_channel": in_channel, "channels": channels}

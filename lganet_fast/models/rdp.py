"""RDP: a pyramid that estimates a level's flow several times, with the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..nn.layers import Block, ConvNormAct, FlowConv, done, double, near_zero
from ..nn.pyramid import ResidualEncoder, TwoConvs, UpConv
from ..ops import compose, integrate, warp
from .network import Network, Shape

PASSES = {3: 2, 2: 3, 1: 1}  # estimates at a level; level 4 has two


class Fuse(Block):
    """Two ConvNormAct that keep the width, under the name `conv` that checkpoints have."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = TwoConvs(channels, channels)

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Maps side by side -> as wide as they are together."""
        return self.conv(x)


class RDP(Network):
    """Wang, Ni and Wang (IEEE TMI 43(6), 2024), the recursive deformable pyramid network.

    size: (H, W, D) of the volumes, for information: any volume is padded with zeros, at the far
        ends, to sides that are multiples of 8 and at least 16.
    in_channel: channels of each image. channels: features of level 1.
    checkpoint: None, or "blocks" to recompute the inside of blocks in the backward.

    Every pass estimates a velocity from the fixed features and the moving ones under the whole flow
    so far, integrates it, and composes. Moving and fixed images have encoders of their own.
    Published state dicts load strictly, their grids dropped. Raises InputError for invalid
    arguments.
    """

    name, title = "rdp", "RDP"
    multiple, least = 8, 16
    voxel_bytes = 900

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
        self.encoder_moving = ResidualEncoder(in_channel, c)
        self.encoder_fixed = ResidualEncoder(in_channel, c)
        self.cconv_4 = TwoConvs(16 * c, 8 * c)
        self.defconv4 = near_zero(FlowConv(8 * c))
        self.dconv4 = TwoConvs(24 * c, 8 * c)
        below = 8 * c
        for level in (3, 2, 1):
            width = c << level - 1
            self.add_module(f"upconv{level}", UpConv(below, width))
            below = 3 * width
            self.add_module(f"cconv_{level}", Fuse(below))
            self.add_module(f"defconv{level}", near_zero(FlowConv(below)))
            if PASSES[level] > 1:
                self.add_module(f"dconv{level}", ConvNormAct(below, width, inplace=False))
        self.finish(checkpoint)

    @classmethod
    def options_of(cls, shapes: Mapping[str, Shape], about: Mapping[str, Any]) -> dict[str, Any]:
        """Read the channels from the first convolution."""
        channels, inputs = shapes["encoder_moving.conv0.main.weight"][:2]
        return {"in_channel": inputs, "channels": channels}

    def step(self, level: int, fused: Tensor) -> Tensor:
        """The flow that a level's features tell, (B, C, H, W, D) -> (B, 3, H, W, D)."""
        return integrate(self.get_submodule(f"defconv{level}")(fused))

    def flow_of(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Coarse to fine, with several passes over each level but the first."""
        moved, still = self.encoder_moving(moving), self.encoder_fixed(fixed)
        f, m = still.pop(), moved.pop()
        fused = self.cconv_4([f, m])
        flow = self.step(4, fused)
        fused = self.dconv4([f, warp(m, flow), fused])
        step = self.step(4, fused)
        for level, passes in PASSES.items():
            f, m = still.pop(), moved.pop()
            part = self.get_submodule
            flow = double(compose(flow, step))
            below = part(f"upconv{level}")(fused)
            for again in range(passes):
                if again:
                    flow = compose(flow, step)
                    below = done(part(f"dconv{level}")(fused))
                fused = part(f"cconv_{level}")([f, warp(m, flow), below])
                step = self.step(level, fused)
        return compose(flow, step)

"""Lean: a small network of this package's own, which finds the flow at half the size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..nn.layers import SLOPE, Block, ConvNormAct, FlowConv, done, double, near_zero, wide
from ..nn.pyramid import ConvAct
from ..ops import compose, correlate, integrate, pool, warp
from .network import Network, Shape

WIDTHS = (16, 32, 48, 64)  # channels at 1/2, 1/4, 1/8 and 1/16 of the size
RADIUS = 1  # of the correlation, in voxels of its level
SQUARINGS = 4  # of a level's velocity


class Encoder(Block):
    """Features of four levels, the first at half the size."""

    def __init__(self, inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.first = ConvAct(inputs, widths[0], SLOPE, stride=2)
        pairs = zip([widths[0], *widths], widths, strict=False)
        self.levels = nn.ModuleList(ConvNormAct(a, b, inplace=False) for a, b in pairs)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, inputs, H, W, D), sides multiples of 16 -> features, finest first."""
        x, found = self.first(x), []
        for level, conv in enumerate(self.levels):
            x = done(conv(pool(x, "mean")[0] if level else x))
            found.append(x)
        return found


class Level(Block):
    """The velocity of a level, from the correlation of both images' features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inputs = 2 * width + (2 * RADIUS + 1) ** 3 + 3
        self.convs = nn.ModuleList(
            [ConvNormAct(inputs, width, inplace=False), ConvNormAct(width, width, inplace=True)]
        )
        self.velocity = near_zero(FlowConv(width))

    def forward(self, fixed: Tensor, moved: Tensor, flow: Tensor) -> Tensor:
        """(B, C, H, W, D) twice and the flow so far -> (B, 3, H, W, D), a velocity in voxels."""
        similar = correlate(fixed, moved, RADIUS)
        x: Any = [torch.cat([similar, flow.to(similar)], 1), fixed, moved]
        for conv in self.convs:
            x = conv(x)
        return self.velocity(done(x))


class Lean(Network):
    """Coarse to fine on features of both images, with a diffeomorphism at each level.

    At 1/16, 1/8, 1/4 and 1/2 of the size the moving features are warped by the flow so far and
    correlated with the fixed ones in 3^3 voxels; three convolutions make a velocity of that, whose
    exponential is composed with the flow. The last flow is enlarged to the whole size. About a
    million parameters; nothing but the first convolution reads the whole size.

    size: (H, W, D) of the volumes, for information: any volume is padded with zeros, at the far
        ends, to multiples of 16, and the flow is cropped back.
    in_channel: channels of each image.
    widths: channels at the four sizes, finest first.
    checkpoint: None, or "blocks" to recompute encoder and levels in the backward.

    Raises InputError for invalid arguments.
    """

    name, title = "lean", "Lean"
    multiple, least = 16, 32
    voxel_bytes = 300

    def __init__(
        self,
        size: Sequence[int],
        in_channel: int = 1,
        widths: Sequence[int] = WIDTHS,
        checkpoint: str | None = None,
    ) -> None:
        if len(widths) != len(WIDTHS) or not all(isinstance(n, int) and n > 0 for n in widths):
            raise InputError(
                f"widths must be {len(WIDTHS)} whole numbers from 1 on, got {widths!r}"
            )
        super().__init__(size, in_channel=in_channel, widths=tuple(widths))
        self.encoder = Encoder(in_channel, widths)
        self.levels = nn.ModuleList(Level(width) for width in widths)
        self.finish(checkpoint)

    @classmethod
    def options_of(cls, shapes: Mapping[str, Shape], about: Mapping[str, Any]) -> dict[str, Any]:
        """Read the channels from the convolutions."""
        widths = [shapes[f"encoder.levels.{k}.main.weight"][0] for k in range(len(WIDTHS))]
        return {"in_channel": shapes["encoder.first.main.weight"][1], "widths": tuple(widths)}

    def of_fixed(self, fixed: Tensor) -> Sequence[Tensor]:
        """The image, then its features."""
        return [fixed, *self.encoder(fixed)]

    def flow_onto(self, moving: Tensor, *prepared: Tensor) -> Tensor:
        """See `flow_of`."""
        return self.flow_between(self.encoder(moving), prepared[1:])

    def flow_of(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Features of both images at once, then level by level."""
        halves = [features.chunk(2) for features in self.encoder(torch.cat([moving, fixed]))]
        moved, still = zip(*halves, strict=True)
        return self.flow_between(moved, still)

    def flow_between(self, moving: Sequence[Tensor], fixed: Sequence[Tensor]) -> Tensor:
        """The flow, from the features of both images, finest first."""
        flow: Tensor | None = None
        for k in reversed(range(len(fixed))):
            still, moved = fixed[k], moving[k]
            if flow is None:
                flow = still.new_zeros(still.shape[0], 3, *still.shape[2:]).to(wide(still.dtype))
            else:
                flow = double(flow)
                moved = warp(moved, flow)
            step = integrate(self.levels[k](still, moved, flow), SQUARINGS)
            flow = compose(flow, step)
        assert flow is not None
        return double(flow)

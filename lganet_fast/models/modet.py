"""ModeT: the motion of each voxel as the mean offset of attention over its neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..nn.layers import SLOPE, Block, Conv3, ConvNormAct, done, double, wide
from ..nn.lgam import tokens_of
from ..nn.pyramid import ConvAct
from ..ops import compose, neighbour_attention, pool, resize, warp
from .network import Network, Shape
from .sizes import Size, smallest_that_fits

HEADS = (1, 1, 2, 4, 8)  # of levels 1 to 5
HEAD = 6  # channels of a head


class Encoder(Block):
    """Features of five levels; level i has channels * 2^i at 1 / 2^(i-1) of the size."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        for level in range(5):
            width = channels << level
            first: nn.Module = nn.Identity()  # the pooling's place
            if level == 0:
                first = ConvAct(inputs, channels, SLOPE)
            convs = (
                ConvNormAct(width, 2 * width, inplace=False),
                ConvNormAct(2 * width, 2 * width, inplace=True),
            )
            self.add_module(f"conv{level}", nn.Sequential(first, *convs))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, inputs, H, W, D), sides multiples of 16 -> features of levels 1 to 5."""
        found: list[Tensor] = []
        for level in range(5):
            x = pool(x, "mean")[0] if level else x
            x = done(self.get_submodule(f"conv{level}")(x))
            found.append(x)
        return found


class Projection(nn.Module):
    """Queries or keys of all heads: a linear layer per voxel, then a norm over all its channels."""

    def __init__(self, inputs: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(HEAD * heads)
        self.proj = nn.Linear(inputs, HEAD * heads)
        nn.init.normal_(self.proj.weight, std=1e-5)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W, D) -> (B, 6 heads, H, W, D)."""
        tokens = self.norm(self.proj(tokens_of(x)))
        return torch.unflatten(tokens, 1, x.shape[2:]).permute(0, 4, 1, 2, 3)


class Decomposition(nn.Module):
    """The bias of the offsets of a level's attention, under the name that checkpoints have."""

    def __init__(self, heads: int, scale: float) -> None:
        super().__init__()
        self.rpb = nn.Parameter(torch.zeros(heads, 3, 3, 3))
        self.scale = scale

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """(B, 6 heads, H, W, D) each -> (B, 3 heads, H, W, D), offsets in (-1, 1) voxels."""
        return neighbour_attention(q, k, self.rpb, self.scale)


class Weighting(Block):
    """The heads' fields at twice the size, weighted into one flow of its own voxels (CWM)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            ConvNormAct(3 * heads, 6 * heads, inplace=False),
            ConvNormAct(6 * heads, 6 * heads, inplace=True),
            Conv3(6 * heads, heads),
        )

    def forward(self, fields: Tensor) -> Tensor:
        """(B, 3 heads, H, W, D) -> (B, 3, 2H, 2W, 2D)."""
        x = resize(fields, [2 * n for n in fields.shape[2:]])
        logits = self.conv(x.to(next(self.parameters()).dtype))
        weights = 2 * torch.softmax(logits.to(x.dtype), 1)
        out = weights[:, :1] * x[:, :3]
        for head in range(1, weights.shape[1]):
            share = (weights[:, head : head + 1], x[:, 3 * head : 3 * head + 3])
            out = torch.addcmul(out, *share) if torch.is_grad_enabled() else out.addcmul_(*share)
        return out


class ModeT(Network):
    """Wang, Ni and Wang (MICCAI 2023), ModeT: motion decomposition by attention, five levels.

    size: (H, W, D) of the volumes, for information: any volume is padded with zeros, at the far
        ends, to sides that are multiples of 16 (and at least 32 voxels along one axis).
    in_channel: channels of each image. channels: half the features of level 1.
    scale: of the attention's logits; None is 6^(-1/2). The authors train with 1.
    checkpoint: None, or "blocks" to recompute the inside of blocks in the backward.

    Levels 2 and 1 move a voxel by less than one voxel of theirs. Nothing is integrated.
    Published state dicts load strictly, their grids dropped. Raises InputError for invalid
    arguments.
    """

    name, title = "modet", "ModeT"
    multiple, least = 16, 16
    voxel_bytes = 400
    BUFFERS = r"(^|\.)(grid|mdt\d\.v)$"

    def __init__(
        self,
        size: Sequence[int],
        in_channel: int = 1,
        channels: int = 4,
        scale: float | None = 1.0,
        checkpoint: str | None = None,
    ) -> None:
        if channels < 1:
            raise InputError(f"channels must be at least 1, got {channels}")
        if scale is not None and not scale > 0:
            raise InputError(f"scale must be above 0 or None, got {scale}")
        super().__init__(size, in_channel=in_channel, channels=channels, scale=scale)
        factor = HEAD**-0.5 if scale is None else float(scale)
        self.encoder = Encoder(in_channel, channels)
        for level, heads in enumerate(HEADS, 1):
            self.add_module(f"projblock{level}", Projection(channels << level, heads))
            self.add_module(f"mdt{level}", Decomposition(heads, factor))
            if level > 2:
                self.add_module(f"cwm{level}", Weighting(heads))
        self.finish(checkpoint)

    def padded_size(self, size: Sequence[int]) -> Size:
        """As every network's; level 5 must have two voxels, for its norm."""
        return smallest_that_fits(size, self.multiple, self.least, lambda s: max(s) > self.least)

    @classmethod
    def options_of(cls, shapes: Mapping[str, Shape], about: Mapping[str, Any]) -> dict[str, Any]:
        """Read the channels from the first convolution."""
        channels, inputs = shapes["encoder.conv0.0.main.weight"][:2]
        return {"in_channel": inputs, "channels": channels}

    def motion(self, level: int, features: tuple[Tensor, Tensor], flow: Tensor | None) -> Tensor:
        """The heads' fields from the moving features, under the flow so far, to the fixed ones."""
        moving, fixed = features
        project = self.get_submodule(f"projblock{level}")
        moved = moving if flow is None else warp(moving, flow)
        return self.get_submodule(f"mdt{level}")(project(fixed), project(moved))

    def flow_of(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Coarse to fine; each level adds what it finds to twice the flow before."""
        pairs = []
        for features in self.encoder(torch.cat([fixed, moving])):
            still, moved = features.chunk(2)
            pairs.append((moved, still))
        del features, still, moved  # so that a level's memory is free when it is done
        flow: Tensor | None = None
        for level in (5, 4, 3):
            step = self.get_submodule(f"cwm{level}")(self.motion(level, pairs.pop(), flow))
            flow = step if flow is None else compose(double(flow), step)
        assert flow is not None
        flow = double(compose(flow, self.motion(2, pairs.pop(), flow)))
        step = self.motion(1, pairs.pop(), flow)
        return compose(flow, step.to(wide(step.dtype)))

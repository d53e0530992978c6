"""CorrMLP: gated MLPs over windows of correlated features, coarse to fine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..nn.gmlp import SLOPE, CorrelatedMLP
from ..nn.layers import Block, Conv3, FlowConv, double, near_zero
from ..nn.lgam import tokens_of, volume_of
from ..nn.pyramid import leaky
from ..ops import norm_act, pool
from .network import Network, Shape
from .sizes import Size, smallest_that_fits


class ConvBlock(Block):
    """Twice IN(LReLU(conv3)): the norm follows the activation."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.Conv_1 = Conv3(inputs, channels)
        self.Conv_2 = Conv3(channels, channels, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W, D) -> (B, channels, H, W, D)."""
        for conv in (self.Conv_1, self.Conv_2):
            x = norm_act(leaky(conv(x), SLOPE), inplace=True)
        return x


class Encoder(nn.Module):
    """Features of four levels; level i has channels * 2^(i-1) at 1 / 2^(i-1) of the size."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        for level in range(4):
            self.add_module(f"Convblock_{level + 1}", ConvBlock(inputs, channels << level))
            inputs = channels << level

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, inputs, H, W, D), sides multiples of 8 -> features of levels 1 to 4."""
        found: list[Tensor] = []
        for level in range(1, 5):
            x = pool(x, "mean")[0] if found else x
            x = self.get_submodule(f"Convblock_{level}")(x)
            found.append(x)
        return found


class Expand(nn.Module):
    """A transposed convolution that doubles the sides and halves the channels, and their norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up_conv = nn.ConvTranspose3d(channels, channels // 2, 2, stride=2)
        self.norm = nn.LayerNorm(channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W, D) -> (B, channels / 2, 2H, 2W, 2D)."""
        x = self.up_conv(x)
        return volume_of(self.norm(tokens_of(x)), x)


class Head(nn.Module):
    """A level's flow, under the name that checkpoints have."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reg_head = near_zero(FlowConv(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W, D) -> (B, 3, H, W, D), at least float32."""
        return self.reg_head(x)


class Decoder(nn.Module):
    """The flow from both images' features: each level adds to twice the flow of the one below."""

    def __init__(self, encoded: int, channels: int) -> None:
        super().__init__()
        for level in range(1, 5):
            width = channels << (level - 1)
            self.add_module(f"mlp_1{level}", CorrelatedMLP(encoded << (level - 1), width))
            if level < 4:
                self.add_module(f"mlp_2{level}", CorrelatedMLP(width, width))
                self.add_module(f"upsample_{level}", Expand(2 * width))
            self.add_module(f"reghead_{level}", Head(width))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Features of levels 1 to 4 of the fixed above the moving images, batch 2B. Emptied."""
        part = self.get_submodule
        x = part("mlp_14")(list(features.pop().chunk(2)))
        flow = part("reghead_4")(x)
        for level in (3, 2, 1):
            flow = double(flow)
            maps = [part(f"mlp_1{level}")(list(features.pop().chunk(2)), flow)]
            maps.append(part(f"upsample_{level}")(x))
            x = part(f"mlp_2{level}")(maps)
            flow = part(f"reghead_{level}")(x) + flow
        return flow


class CorrMLP(Network):
    """Meng, Feng, Bi and Kim (CVPR 2024), CorrMLP: correlation-aware coarse-to-fine MLPs.

    size: (H, W, D) of the volumes, for information: any volume is padded with zeros, at the far
        ends, to sides that are multiples of 8 (and at least 16 voxels along one axis).
    in_channel: channels of each image. enc_channels, dec_channels: features of level 1 in the
        encoder and in the decoder, the latter a multiple of 4.
    checkpoint: None, or "blocks" to recompute the inside of blocks in the backward.

    The published network takes (fixed, moving); this one takes (moving, fixed), as all here do.
    Its state dicts load strictly. A level's flow is added, not composed. Windows that reach over
    the far ends mix zeros in, as published, so that results near them depend on the padding.
    Raises InputError for invalid arguments.
    """

    name, title = "corrmlp", "CorrMLP"
    multiple, least = 8, 8
    voxel_bytes = 900

    def __init__(
        self,
        size: Sequence[int],
        in_channel: int = 1,
        enc_channels: int = 8,
        dec_channels: int = 16,
        checkpoint: str | None = None,
    ) -> None:
        if enc_channels < 1:
            raise InputError(f"enc_channels must be at least 1, got {enc_channels}")
        if dec_channels < 4 or dec_channels % 4:
            raise InputError(f"dec_channels must be a multiple of 4, got {dec_channels}")
        channels = {"enc_channels": enc_channels, "dec_channels": dec_channels}
        super().__init__(size, in_channel=in_channel, **channels)
        self.Encoder = Encoder(in_channel, enc_channels)
        self.Decoder = Decoder(enc_channels, dec_channels)
        self.finish(checkpoint)

    def padded_size(self, size: Sequence[int]) -> Size:
        """As every network's; level 4 must have two voxels, for its norm."""
        return smallest_that_fits(size, self.multiple, self.least, lambda s: max(s) > self.least)

    @classmethod
    def options_of(cls, shapes: Mapping[str, Shape], about: Mapping[str, Any]) -> dict[str, Any]:
        """Channels, off the first convolutions."""
        encoded, inputs = shapes["Encoder.Convblock_1.Conv_1.weight"][:2]
        decoded = shapes["Decoder.mlp_11.Conv.weight"][0]
        return {"in_channel": inputs, "enc_channels": encoded, "dec_channels": decoded}

    def flow_of(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """The decoder's flow from the features of both images."""
        return self.Decoder(self.Encoder(torch.cat([fixed, moving])))

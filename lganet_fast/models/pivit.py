"""PIViT: three flows by windowed attention at an eighth of the size, two by convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..nn.layers import SLOPE, Block, FlowConv, double
from ..nn.pyramid import ConvAct
from ..nn.swin import INDICES, SwinStage
from ..ops import compose, warp
from .network import Network, Shape

WIDTH = 32  # of all features


class Encoder(Block):
    """Features at 1/2, 1/4 and 1/8 of the size: convolutions of stride 2, without norm."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        for level in (1, 2, 3):
            conv = ConvAct(inputs if level == 1 else WIDTH, WIDTH, SLOPE, stride=2)
            self.add_module(f"block{level}", conv)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, inputs, H, W, D) -> three maps, fine to coarse."""
        found = []
        for conv in self.children():
            x = conv(x)
            found.append(x)
        return found


class ConvDecoder(Block):
    """A flow from two maps by two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv1 = ConvAct(2 * WIDTH, WIDTH, SLOPE)
        self.Conv2 = FlowConv(WIDTH)

    def forward(self, moved: Tensor, fixed: Tensor) -> Tensor:
        """Two (B, C, H, W, D) -> flow (B, 3, H, W, D)."""
        return self.Conv2(self.Conv1([moved, fixed]))


class SwinDecoder(Block):
    """A flow from two maps by a stage of windowed attention and two convolutions."""

    def __init__(self, index: str) -> None:
        super().__init__()
        self.Swin1 = SwinStage(2 * WIDTH, index)
        self.Conv2 = ConvAct(2 * WIDTH, WIDTH, SLOPE, inplace=True)
        self.Conv3 = FlowConv(WIDTH)

    def forward(self, moved: Tensor, fixed: Tensor) -> Tensor:
        """Two (B, C, H, W, D) -> flow (B, 3, H, W, D)."""
        return self.Conv3(self.Conv2(self.Swin1(torch.cat([moved, fixed], 1))))


class PIViT(Network):
    """Ma et al. (2023), pyramid-iterative vision transformer, of the published width 32.

    size: (H, W, D) of the volumes, for information: any volume is padded with zeros, at the far
        ends, to sides of multiples of 8, at least 16, and the flow is cropped back.
    in_channel: channels of each image.
    bias_index: "published" takes the position biases of windows smaller than 8^3 as the published
        code does, for other offsets than theirs; "correct" takes their own. Where no side of the
        volume is below 64, the two are the same.
    checkpoint: None, or "blocks" to keep in training only what enters each block.

    Published state dicts load as they are, strictly. Raises InputError for invalid
    arguments.
    """

    name, title = "pivit", "PIViT"
    BUFFERS = r"(^|\.)(grid|relative_position_index)$"

    def __init__(
        self,
        size: Sequence[int],
        in_channel: int = 1,
        bias_index: str = "published",
        checkpoint: str | None = None,
    ) -> None:
        if bias_index not in INDICES:
            raise InputError(f"bias_index must be one of {INDICES}, got {bias_index!r}")
        super().__init__(size, in_channel=in_channel, bias_index=bias_index)
        self.encoder = Encoder(in_channel)
        for k in (1, 2, 3):
            self.add_module(f"decoder3{k}", SwinDecoder(bias_index))
        self.decoder2, self.decoder1 = ConvDecoder(), ConvDecoder()
        self.finish(checkpoint)

    def flow_of(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Coarse to fine: three flows at 1/8, one at 1/4 and at 1/2, composed."""
        both = torch.cat([moving, fixed]).contiguous(memory_format=torch.channels_last_3d)
        features = self.encoder(both)
        moved, still = features.pop().chunk(2)
        flow = self.get_submodule("decoder31")(moved, still)
        for k in (2, 3):
            flow = self.refined(f"decoder3{k}", flow, moved, still)
        for level in (2, 1):
            moved, still = features.pop().chunk(2)
            flow = self.refined(f"decoder{level}", double(flow), moved, still)
        return double(flow)

    def refined(self, decoder: str, flow: Tensor, moving: Tensor, fixed: Tensor) -> Tensor:
        """The flow composed with what a decoder finds after it."""
        return compose(flow, self.get_submodule(decoder)(warp(moving, flow), fixed))

    @classmethod
    def options_of(cls, shapes: Mapping[str, Shape], about: Mapping[str, Any]) -> dict[str, Any]:
        """Read the channels from the first convolution."""
        return {"in_channel": shapes["encoder.block1.main.weight"][1]}

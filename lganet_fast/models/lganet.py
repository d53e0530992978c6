"""LGANet, the conference predecessor of LGANet++: five levels, image decomposition once a level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..nn.encoder import Encoder
from ..nn.fifm import CWAM, Decomposition
from ..nn.folded import local_global_attention, position_attention
from ..nn.layers import Conv3, ConvNormAct, FlowConv, Residual, done, double, fuses
from ..nn.lgam import LGAM, WINDOW, PositionAttention
from ..ops import compose, integrate, warp, warp_sum
from .network import SIMPLE_ITK, Network, Shape
from .sizes import Size, smallest_that_fits, windows_fit

FACTOR = 16  # between the finest and the coarsest level
LEVELS = (4, 3, 2, 1)


class Coarsest(nn.Module):
    """Level 5, `deblock5`: both images' features side by side, attention, conv3 to the flow."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        width = 2 * channels
        self.convs = ConvNormAct(width, width, inplace=False)
        self.pa = PositionAttention(width)
        self.resnets = Residual(width)
        self.swin = nn.Sequential(*(LGAM(width, "published", dropout) for _ in range(2)))
        self.flows = FlowConv(width)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Two (B, C, H, W, D) -> flow (B, 3, H, W, D)."""
        x = done(self.convs(maps))
        if fuses(x) and not self.training:
            parts: list[Any] = [part.attn for part in self.swin]
            found = self.resnets(position_attention(x, self.pa))
            return self.flows(local_global_attention(found, parts))
        return self.flows(self.swin(self.resnets(self.pa(x))))


class Level(nn.Module):
    """Levels 4 to 1, `deblock4` to `deblock1`: the level's flow before integration.

    decompose: (features, flow) = de of y and of x, then x + warp(features of each, flow of the
    other); the flows are added to the level's.
    """

    def __init__(self, channels: int, decompose: bool) -> None:
        super().__init__()
        if decompose:
            self.de = Decomposition(channels)
        self.decompose = decompose
        self.nff = CWAM(channels)
        self.resnet = Residual(3 * channels)
        self.flow = FlowConv(3 * channels)

    def forward(self, maps: list[Tensor], coarse: Tensor) -> Tensor:
        """Moving and fixed features (B, C, H, W, D) -> flow (B, 3, H, W, D).

        maps: emptied, so that the memory of each is free as soon as it has been used.
        coarse: the flow so far at this level's size, (B, 3, H, W, D), in its voxels.
        """
        unmoved, y = maps
        maps.clear()
        x, flows = warp(unmoved, coarse), None
        if self.decompose:
            (features_y, flow_y), (features_x, flow_x) = self.both(y, x)
            x = warp_sum((features_y, features_x), (flow_x, flow_y), x)
            flows = flow_x + flow_y
            del features_y, features_x, flow_y, flow_x
        side = [unmoved, x, y] if fuses(y) else torch.cat([unmoved, x, y], 1)
        del unmoved, x, y
        flow = self.flow(self.resnet(self.nff(side)))
        return flow if flows is None else flow + flows

    def both(self, y: Tensor, x: Tensor) -> Any:
        """`de` of two maps; as one batch where launches count."""
        if not fuses(y):
            return self.de(y), self.de(x)
        return zip(*(part.chunk(2) for part in self.de(torch.cat([y, x]))), strict=True)


class LGANet(Network):
    """LGANet as published beside LGANet++: what it computes, without its dead half.

    size: (H, W, D) of the volumes, for information: any volume is padded with zeros, at the far
        ends, to sides of multiples of 16, at least 96, whose windows split the coarsest level
        evenly, and the flow is cropped back.
    in_channel: channels of each image. filters: channels of level 1, a multiple of 4.
    dropout: of the attention and of its MLP, while training.
    checkpoint: None, or "blocks" to keep in training only what enters each block.

    The tokens of its attention are in the published order (see `nn.lgam`).
    Raises InputError for invalid arguments.
    """

    name, title = "lganet", "LGANet"
    published_card = SIMPLE_ITK

    def __init__(
        self,
        size: Sequence[int],
        in_channel: int = 1,
        filters: int = 8,
        dropout: float = 0.1,
        checkpoint: str | None = None,
    ) -> None:
        if filters < 4 or filters % 4:
            raise InputError(f"filters must be a multiple of 4, got {filters}")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout must be in [0, 1), got {dropout}")
        super().__init__(size, in_channel=in_channel, filters=filters, dropout=dropout)
        self.encoder = Encoder(in_channel, filters, levels=5)
        self.deblock5 = Coarsest(16 * filters, dropout)
        for level in LEVELS:
            self.add_module(f"deblock{level}", Level(filters << (level - 1), level > 1))
        self.finish(checkpoint)

    def padded_size(self, size: Sequence[int]) -> Size:
        """See the class."""
        return smallest_that_fits(
            size, FACTOR, FACTOR * WINDOW, lambda found: windows_fit(found, FACTOR)
        )

    def flow_of(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Coarse to fine: flow_l = compose(2 upsampled flow_{l+1}, integrate(level's flow))."""
        both = torch.cat([moving, fixed]).contiguous(memory_format=torch.channels_last_3d)
        features = [list(x.chunk(2)) for x in self.encoder(both)]
        del both
        flow = integrate(self.deblock5(features.pop()))
        for level in LEVELS:
            coarse = double(flow)
            step = integrate(self.get_submodule(f"deblock{level}")(features.pop(), coarse))
            flow = compose(coarse, step)
        return flow

    @classmethod
    def options_of(cls, shapes: Mapping[str, Shape], about: Mapping[str, Any]) -> dict[str, Any]:
        """Read the channels from the first convolution."""
        filters, in_channel = shapes["encoder.conv0.0.weight"][:2]
        return {"in_channel": in_channel, "filters": filters}

    def dead(self) -> Mapping[str, Shape]:
        """In the published network every decoder level owns the modules of both kinds."""
        found: dict[str, Shape] = {}
        with torch.device("meta"):
            for level in (*LEVELS, 5):
                c = self.config["filters"] << (level - 1)
                parts: dict[str, nn.Module] = {
                    "resnets": Residual(2 * c),
                    "pa": PositionAttention(2 * c),
                    "flows": Conv3(2 * c, 3),
                    "convs": ConvNormAct(2 * c, 2 * c, inplace=False),
                }
                if level == 5:
                    parts = {"resnet": Residual(3 * c), "nff": CWAM(c), "flow": Conv3(3 * c, 3)}
                for name, part in parts.items():
                    prefix = f"deblock{level}.{name}"
                    found |= {f"{prefix}.{n}": tuple(p.shape) for n, p in part.named_parameters()}
        return found

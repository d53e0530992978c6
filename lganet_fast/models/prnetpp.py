"""PRNet++: two streams of features, correlated over windows, and a flow at each level."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..nn.layers import Block, Conv3, FlowConv, double, near_zero
from ..nn.pyramid import ConvAct, conv_of_enlarged
from ..nn.slabs import beside_correlation, in_slabs
from ..ops import compose, correlate, warp
from ..ops.reference import box_sum
from .network import Network, Shape

COMPOSITIONS = ("published", "consistent")
SPACING = 2  # of the correlation's offsets, in voxels
REACH = SPACING + 1  # of the sums that are correlated, from a voxel
ENCODER = (1, 2, 2, 4, 4)  # widths, in first channels
DECODER = ((8, 4), (6, 4), (6, 2), (3, 2), (2, 1))  # in and out


class Joined(nn.Module):
    """ReLU(conv3) of a map at twice its size beside another, named as in checkpoints."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.Conv = ConvAct(inputs, outputs, 0.0)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(B, C, H/2, W/2, D/2) and (B, C', H, W, D) -> (B, outputs, H, W, D)."""
        return conv_of_enlarged(self.Conv, coarse, fine)


class Features(Block):
    """Five maps from an encoder to 1/16 of the size and a decoder back; the last two are whole."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        widths = [inputs, *(n * channels for n in ENCODER)]
        blocks = {
            f"block{level}": ConvAct(before, after, 0.0, stride=1 if level == 1 else 2)
            for level, (before, after) in enumerate(itertools.pairwise(widths), 1)
        }
        self.encoder = nn.Sequential(OrderedDict(blocks))
        for level, (before, after) in enumerate(DECODER[:4], 1):
            self.add_module(f"decoder{level}", Joined(before * channels, after * channels))
        before, after = DECODER[4]
        self.decoder5 = ConvAct(before * channels, after * channels, 0.0)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, inputs, H, W, D), sides multiples of 16 -> maps at 1/8, 1/4, 1/2 and 1."""
        found = []
        for block in self.encoder:
            x = block(x)
            found.append(x)
        x, maps = found.pop(), []
        for level in range(1, 5):
            x = self.get_submodule(f"decoder{level}")(x, found.pop())
            maps.append(x)
        return maps

    def last(self, x: Tensor) -> Tensor:
        """The fifth map, from the fourth."""
        return self.decoder5(x)


def windows_correlated(x: Tensor, y: Tensor) -> Tensor:
    """Products of sums over 3^3 voxels, summed over channels, over 27; 2 voxels between offsets.

    x, y: (B, C, H, W, D) -> (B, 27, H, W, D). The sums of y count outside the volume as well.
    """
    margin = [SPACING] * 6
    boxes = box_sum(F.pad(y, margin), 3)
    return correlate(box_sum(x, 3) * (x.shape[1] / 27), boxes, step=SPACING)


class Registration(Block):
    """The flow between two maps of one size, in their voxels, beyond one that is known."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c, wide = channels, 2 * channels + 27
        first = Conv3(wide, wide, inplace=True), Conv3(wide, c, relu=True)
        self.conv1 = nn.Sequential(*first)
        self.conv2 = nn.Sequential(Conv3(c, c), Conv3(c, c, inplace=True, relu=True))
        self.flow = near_zero(FlowConv(c))

    def forward(self, moving: Tensor, fixed: Tensor, flow: Tensor | None = None) -> Tensor:
        """Both maps (B, C, H, W, D), the known flow (B, 3, H, W, D) -> the latter's shape."""
        x = moving if flow is None else warp(moving, flow)
        a = in_slabs(self.joined, x, fixed, halo=REACH + 2)
        del x  # so that its memory is free
        return self.flow(a + self.conv2(a))

    def joined(self, x: Tensor, y: Tensor) -> Tensor:
        """The two convolutions of both maps and their correlation."""
        return self.conv1(beside_correlation(x, y, windows_correlated, REACH))


def read_coarse(coarse: Tensor, flow: Tensor) -> Tensor:
    """The coarse map, resized to the flow's grid with corners aligned, read where the flow points.

    Both in one interpolation: (B, C, h, w, d), (B, 3, H, W, D) -> (B, C, H, W, D).
    """
    parts = []
    for axis, (n, m) in enumerate(zip(flow.shape[2:], coarse.shape[2:], strict=True)):
        shape = [-1 if a == axis else 1 for a in range(3)]
        line = torch.arange(n, dtype=flow.dtype, device=flow.device).view(shape)
        factor = (m - 1) / (n - 1)
        parts.append(flow[:, axis] * factor + line * (factor - 1))
    return warp(coarse, torch.stack(parts, 1))


class PRNetPlusPlus(Network):
    """Kang et al. (Medical Image Analysis 78, 2022), PRNet++, as reimplemented for comparisons.

    size: (H, W, D) of the volumes, for information: any volume is padded with zeros, at the far
        ends, to sides that are multiples of 16.
    in_channel: channels of each image. first_channel: features of level 1.
    composition: "published": from level to level the flow so far is added undoubled, although
        features are warped by twice it; "consistent" composes twice the flow, as the warps do.
        The parameters are the same.
    checkpoint: None, or "blocks" to recompute the inside of blocks in the backward.

    Nothing is integrated. Published state dicts load strictly, their grids dropped. Raises
    InputError for invalid arguments.
    """

    name, title = "prnetpp", "PRNet++"
    multiple, least = 16, 16
    voxel_bytes = 900

    def __init__(
        self,
        size: Sequence[int],
        in_channel: int = 1,
        first_channel: int = 8,
        composition: str = "published",
        checkpoint: str | None = None,
    ) -> None:
        if first_channel < 1:
            raise InputError(f"first_channel must be at least 1, got {first_channel}")
        if composition not in COMPOSITIONS:
            raise InputError(f"composition must be one of {COMPOSITIONS}, got {composition!r}")
        options = {"first_channel": first_channel, "composition": composition}
        super().__init__(size, in_channel=in_channel, **options)
        self.net = Features(in_channel, first_channel)
        for level, (_, width) in enumerate(DECODER, 1):
            self.add_module(f"prblock{level}", Registration(width * first_channel))
        self.finish(checkpoint)

    @classmethod
    def options_of(cls, shapes: Mapping[str, Shape], about: Mapping[str, Any]) -> dict[str, Any]:
        """Read the channels from the first convolution."""
        channels, inputs = shapes["net.encoder.block1.main.weight"][:2]
        return {"in_channel": inputs, "first_channel": channels}

    def flow_of(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Coarse to fine, twice at full size."""
        maps = [self.net(image)[::-1] for image in (moving, fixed)]
        pair = [stream.pop() for stream in maps]
        flow = self.get_submodule("prblock1")(*pair)
        for level in range(2, 6):
            pair = [
                stream.pop() if stream else self.net.last(x)
                for stream, x in zip(maps, pair, strict=True)
            ]
            doubled = double(flow) if level < 5 else flow
            step = self.get_submodule(f"prblock{level}")(*pair, doubled)
            if level < 5 and self.config["composition"] == "published":
                flow = step + read_coarse(flow, step)
            else:
                flow = compose(doubled, step)
        return flow

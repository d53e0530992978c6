"""GroupMorph: flows of groups of channels with different reach, and contexts that join them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..nn.groups import SLOPE, ContextAttention, FreeConv3, GroupFlow, Split, by_group
from ..nn.layers import Block, double, flow_conv
from ..nn.slabs import in_slabs
from ..ops import compose, gradient_loss, norm_act, resize, warp
from .network import Network, Shape
from .sizes import Size, smallest_that_fits

GROUPS = ((4, 2, 2), (4, 4, 2), (4, 4, 4), (2, 2, 2))  # at 1/8, 1/4 and 1/2 of the size
WIDTHS = (8, 16, 16, 32, 32, 64, 64)  # of the features; halved in size where they grow
CORNERS = ("published", "aligned")


class Features(Block):
    """Maps of 8, 16, 32 and 64 channels at 1, 1/2, 1/4 and 1/8 of the size."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        for k, width in enumerate(WIDTHS):
            same = k == 0 or width == inputs
            conv = (
                FreeConv3(inputs, width)
                if same
                else nn.Conv3d(inputs, width, 3, stride=2, padding=1, bias=False)
            )
            self.add_module(f"conv{k}", nn.Sequential(conv))
            inputs = width

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, inputs, H, W, D), sides multiples of 8 -> the four maps, finest first."""
        found = []
        for k in range(len(WIDTHS)):
            x = norm_act(self.get_submodule(f"conv{k}")(x), SLOPE, inplace=True)
            if k % 2 == 0:
                found.append(x)
        return found


class Last(Block):
    """The flow of the finest level, from maps side by side."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.add_module("0", FreeConv3(inputs, 8))
        self.add_module("3", FreeConv3(8, 3))

    def forward(self, *maps: Tensor) -> Tensor:
        """(B, ..., H, W, D) -> (B, 3, H, W, D), at least float32."""
        conv = self.get_submodule("0")
        inner = norm_act(in_slabs(lambda *x: conv(x), *maps, halo=1), SLOPE, inplace=True)
        weight = self.get_parameter("3.weight")
        return flow_conv(inner, weight, weight.new_zeros(3))


def stretched(flow: Tensor) -> Tensor:
    """The flow that reads, with corners aligned, what the published one reads without.

    A position q there is read at q S / (S - 1) - 1/2, S being the side.
    """
    parts = []
    for axis, n in enumerate(flow.shape[2:]):
        shape = [-1 if a == axis else 1 for a in range(3)]
        line = torch.arange(n, dtype=flow.dtype, device=flow.device).view(shape)
        parts.append(flow[:, axis] * (n / (n - 1)) + (line / (n - 1) - 0.5))
    return torch.stack(parts, 1)


class GroupMorph(Network):
    """GroupMorph (IEEE TMI, 2024): grouping network with contextual fusion.

    size: (H, W, D) of the volumes. Learnt maps of positions have it, with sides that are multiples
        of 8 and at least 16; smaller volumes are padded to that, with zeros at the far ends.
    in_channel: channels of each image. groups: how many at 1/8, 1/4 and 1/2 of the size, one of
        (4, 2, 2), (4, 4, 2), (4, 4, 4), (2, 2, 2).
    corners: "published": warps read a position q at q S / (S - 1) - 1/2, S being the side, so that
        no flow moves a little, too; "aligned": they read it where it is. The parameters are the
        same.
    checkpoint: None, or "blocks" to recompute the inside of blocks in the backward.

    The flow is the one that `ops.warp` takes; with corners="published", `flow_and_steps` gives the
    published network's own. Published state dicts load strictly. Raises InputError for arguments
    that do not fit.
    """

    name, title = "groupmorph", "GroupMorph"
    multiple, least = 8, 16
    voxel_bytes = 500

    def __init__(
        self,
        size: Sequence[int],
        in_channel: int = 1,
        groups: tuple[int, int, int] = GROUPS[0],
        corners: str = "published",
        checkpoint: str | None = None,
    ) -> None:
        if tuple(groups) not in GROUPS:
            raise InputError(f"groups must be one of {GROUPS}, got {groups!r}")
        if corners not in CORNERS:
            raise InputError(f"corners must be one of {CORNERS}, got {corners!r}")
        super().__init__(size, in_channel=in_channel, groups=tuple(groups), corners=corners)
        self.mf = Features(in_channel)
        self.conv = Last(16 + 4 * groups[2])
        context, after = 0, [*groups[1:], 0]
        for place, (part, n) in enumerate(zip((8, 4, 2), groups, strict=True)):
            sides = [m // part for m in self.padded_size(size)]
            width = 4 * part  # of a context
            positions = torch.zeros(1, n * width, *sides)
            self.register_parameter(f"absolute_pos_embed{part}", nn.Parameter(positions))
            self.add_module(f"split{part}", Split(8 * part, n))
            inputs = 8 * part // n + 27 + context
            self.add_module(f"groupflow{part}", GroupFlow(inputs, 8 * part, n))
            attention = ContextAttention(width, both=after[place] == n)
            self.add_module(f"context_attention{part}", attention)
            context = width
        self.finish(checkpoint)

    def padded_size(self, size: Sequence[int]) -> Size:
        """The size of the position maps, for all that it holds; InputError for more."""
        own = smallest_that_fits(self.config["size"], self.multiple, self.least)
        if any(n > m for n, m in zip(smallest_that_fits(size, 1, 1), own, strict=True)):
            raise InputError(
                f"this GroupMorph has position maps for volumes of at most {own}, got "
                f"{tuple(size)}: make one of that size"
            )
        return own

    def dead(self) -> Mapping[str, Shape]:
        """The third and fourth stage, where there are two groups only."""
        found: dict[str, Shape] = {}
        for part, n in zip((8, 4, 2), self.config["groups"], strict=True):
            for stage in range(n + 1, 5):
                name = f"groupflow{part}.conv{stage}.2"
                found[f"{name}.weight"] = (8 * part, 8 * part, 3, 3, 3)
                found[f"{name}.bias"] = (8 * part,)
        return found

    @classmethod
    def options_of(cls, shapes: Mapping[str, Shape], about: Mapping[str, Any]) -> dict[str, Any]:
        """Read channels and groups from the convolutions."""
        groups = tuple(
            sum(name.startswith(f"split{part}.") and name.endswith("weight") for name in shapes)
            for part in (8, 4, 2)
        )
        return {"in_channel": shapes["mf.conv0.0.weight"][1], "groups": groups}

    @classmethod
    def size_of(cls, shapes: Mapping[str, Shape]) -> Size | None:
        """Eight times the coarsest position map."""
        height, width, depth = shapes["absolute_pos_embed8"][2:]
        return 8 * height, 8 * width, 8 * depth

    def warped(self, x: Tensor, flow: Tensor) -> Tensor:
        """The map read where the flow points, by this network's corners."""
        return warp(x, self.for_warp(flow))

    def composed(self, first: Tensor, second: Tensor) -> Tensor:
        """The flow `second` + `first` read where it points."""
        if self.config["corners"] == "aligned":
            return compose(first, second)
        return second + self.warped(first, second)

    def flow_of(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """The flow that `ops.warp` takes, from all levels."""
        return self.for_warp(self.flow_and_steps(moving, fixed)[0])

    def flow_and_roughness(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """The authors smooth what each level adds to the flow."""
        flow, steps = self.flow_and_steps(moving, fixed)
        return self.for_warp(flow), torch.stack([gradient_loss(step) for step in steps]).sum()

    def for_warp(self, flow: Tensor) -> Tensor:
        """The flow that `ops.warp` takes for this network's own."""
        return stretched(flow) if self.config["corners"] == "published" else flow

    def flow_and_steps(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The flow, and what each level added to it, coarsest first, in its own voxels.

        moving, fixed: (B, in_channel, H, W, D) of the padded size.
        """
        maps = self.mf(torch.cat([fixed, moving]))
        steps: list[Tensor] = []
        context: Tensor | None = None
        flow: Tensor | None = None
        for part, n in zip((8, 4, 2), self.config["groups"], strict=True):
            level = self.get_submodule
            still, moved = level(f"split{part}")(maps.pop()).chunk(2)
            if flow is not None:
                flow = double(flow)
                moved = self.warped(moved, flow)
            step, context = level(f"groupflow{part}")(
                by_group(moved, n), by_group(still, n), context
            )
            steps.append(step)
            flow = step if flow is None else self.composed(flow, step)
            positions = self.get_parameter(f"absolute_pos_embed{part}")
            context = level(f"context_attention{part}")(context, positions, n)
            context = resize(context, [2 * m for m in context.shape[2:]])
        assert flow is not None
        assert context is not None
        flow = double(flow)
        still, moved = maps.pop().chunk(2)
        contexts = torch.split(context, still.shape[0])
        step = self.conv(self.warped(moved, flow), still, *contexts)
        return self.composed(flow, step), [*steps, step]

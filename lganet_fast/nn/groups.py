"""The blocks of GroupMorph. Groups of channels lie behind each other in the batch, group by group:
n groups of w channels of a batch of B are (n B, w, H, W, D).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..ops import convolve, correlate, norm_act
from .layers import Block, Conv1, Conv3, FlowConv

SLOPE = 0.2  # of every leaky ReLU


def by_group(x: Tensor, groups: int) -> Tensor:
    """(B, groups w, H, W, D) -> (groups B, w, H, W, D)."""
    return torch.cat(x.chunk(groups, 1))


class FreeConv3(nn.Conv3d):
    """A 3^3 convolution without bias that keeps the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, input: Tensor | Sequence[Tensor]) -> Tensor:
        """(B, inputs, H, W, D), or maps side by side -> (B, outputs, H, W, D)."""
        return convolve(input, self.weight, self.weight.new_zeros(self.out_channels))


class Split(Block):
    """A convolution for each group of channels, of growing reach."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        width = channels // groups
        self.convs = nn.ModuleList()
        for side in range(1, 8, 2) if groups == 4 else (3, 5):
            small: dict[int, type[nn.Conv3d]] = {1: Conv1, 3: Conv3}
            self.convs.append(
                small[side](width, width)  # type: ignore[call-arg]
                if side in small
                else nn.Conv3d(width, width, side, padding=side // 2)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> the same shape."""
        parts = zip(self.convs, x.chunk(len(self.convs), 1), strict=True)
        return torch.cat([conv(part) for conv, part in parts], 1)


class Stage(nn.Module):
    """Convolutions named as in checkpoints, each after a norm and leaky ReLU but for number 0."""

    def __init__(self, widths: dict[str, tuple[int, int]]) -> None:
        super().__init__()
        for name, (inputs, outputs) in widths.items():
            self.add_module(name, Conv3(inputs, outputs, inplace=True))

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        """(B, inputs, H, W, D), or maps side by side -> (B, outputs, H, W, D)."""
        for name, conv in self.named_children():
            if name != "0":
                assert isinstance(x, Tensor)
                x = norm_act(x, SLOPE, inplace=True)
            x = conv(x)
        assert isinstance(x, Tensor)
        return x


class GroupFlow(Block):
    """The mean flow of the groups, and a context of each; group i passes i + 1 stages."""

    def __init__(self, inputs: int, channels: int, groups: int) -> None:
        super().__init__()
        same = (channels, channels)
        stages = [{"0": (inputs, channels), "3": same}, {"2": same, "5": same}]
        stages += [{"2": same}] * (groups - 2)
        self.stages = [f"conv{k}" for k in range(1, groups + 1)]
        for name, widths in zip(self.stages, stages, strict=True):
            self.add_module(name, Stage(widths))
        self.flowout = FlowConv(channels)
        self.context = nn.Sequential(FreeConv3(channels, channels // 2))

    def forward(
        self, moving: Tensor, fixed: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Groups of warped moving and fixed maps, and of a context if any.

        Returns the flow (B, 3, H, W, D) and the groups' contexts, half as wide as the stages.
        """
        count = len(self.stages)
        maps = [fixed, correlate(moving, fixed), *([] if context is None else [context])]
        x: Tensor = self.get_submodule(self.stages[0])(maps)
        del maps
        batch, found = x.shape[0] // count, []
        for name in self.stages[1:]:
            found.append(x[:batch])
            x = self.get_submodule(name)(x[batch:])
        ends = torch.cat([*found, x])
        mean = torch.unflatten(ends, 0, (count, batch)).mean(0)
        return self.flowout(mean), norm_act(self.context(ends), SLOPE, inplace=True)


class ContextAttention(Block):
    """Each pair of neighbouring groups' contexts, joined and weighted.

    both: the pairs in swapped order as well, so that there are as many afterwards.
    """

    def __init__(self, channels: int, both: bool) -> None:
        super().__init__()
        self.both = both
        self.conv1 = nn.Sequential(Conv3(2 * channels, channels))
        self.conv2 = Conv3(channels, 1)

    def forward(self, contexts: Tensor, positions: Tensor, groups: int) -> Tensor:
        """(groups B, C, H, W, D), positions (1, groups C, H, W, D) -> as many groups or half."""
        parts = torch.unflatten(contexts, 0, (groups, -1))
        placed = parts + torch.unflatten(positions[0], 0, (groups, 1, -1))
        weights = torch.unflatten(self.conv2(contexts), 0, (groups, -1))
        first, second = (placed[k::2].flatten(0, 1) for k in (0, 1))
        weight = (1 + weights[::2] + weights[1::2]).flatten(0, 1)
        pairs = [torch.cat([first, second], 1)]
        if self.both:
            pairs.append(torch.cat([second, first], 1))
            weight = torch.cat([weight, weight])
        joined = norm_act(self.conv1(torch.cat(pairs)), SLOPE, inplace=True)
        return joined * weight

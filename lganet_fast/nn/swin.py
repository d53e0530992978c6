"""Windowed attention with a bias by relative position, on tokens (B, H, W, D, C)."""

from __future__ import annotations

import itertools
import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import derived

Sides = tuple[int, int, int]
WINDOW = 8  # voxels: the side of a window where the map is longer
APART = -100.0  # added to the logits of tokens that only the roll brought together
INDICES = ("published", "correct")


def places_in(sides: Sides) -> Tensor:
    """The places of a box's tokens in their order, (N, 3)."""
    return torch.cartesian_prod(*(torch.arange(n) for n in sides))


@cache
def bias_index(window: Sides, index: str) -> Tensor:
    """Where the table of (2 * WINDOW - 1)^3 biases has that of each pair of a window's tokens.

    index: "correct", by the tokens' places in their window, or "published", which takes them for
    the first tokens of a window of 8^3, whatever their own window is.
    """
    sides = window if index == "correct" else (WINDOW, WINDOW, WINDOW)
    places = places_in(sides)[: math.prod(window)]
    offsets = places[:, None] - places[None] + WINDOW - 1
    return offsets @ torch.tensor([(2 * WINDOW - 1) ** 2, 2 * WINDOW - 1, 1])


@cache
def apart(window: Sides, cut: tuple[bool, bool, bool]) -> Tensor:
    """APART for each pair of a window's tokens that lie on two sides of a cut, else 0.

    cut: the axes along which the window is the last of a rolled map, whose halves do not belong
    together.
    """
    places = places_in(window).unbind(1)
    far = [x >= n // 2 for x, n, here in zip(places, window, cut, strict=True) if here]
    different = sum((x[:, None] != x[None] for x in far), torch.zeros(1, 1, dtype=torch.bool))
    return different * APART


class WindowAttention(nn.Module):
    """proj(softmax(q k^T / sqrt(C) + bias) v) inside windows, single head; q, k, v without bias."""

    def __init__(self, channels: int, index: str) -> None:
        super().__init__()
        self.index = index
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 3, 1))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02, a=-2.0, b=2.0)

    def bias(self, window: Sides) -> Tensor:
        """(N, N) for the N tokens of a window."""
        table = self.relative_position_bias_table
        if torch.is_grad_enabled():
            return looked_up(table, window=window, index=self.index)
        return derived(looked_up, table, window=window, index=self.index)

    def forward(self, x: Tensor, window: Sides, shifted: tuple[bool, bool, bool]) -> Tensor:
        """(B, H, W, D, C), sides multiples of the window's, rolled along shifted axes -> its shape.

        Windows that are cut alike share a mask: there are eight kinds at most.
        """
        bias = self.bias(window)
        counts = [n // w for n, w in zip(x.shape[1:4], window, strict=True)]
        q, k, v = (in_windows(part, window) for part in self.qkv(x).chunk(3, -1))
        out = torch.empty_like(q)
        ranges = [
            [(slice(0, n - 1), False), (slice(n - 1, n), True)] if cut else [(slice(None), False)]
            for n, cut in zip(counts, shifted, strict=True)
        ]
        for (i, a), (j, b), (h, c) in itertools.product(*ranges):
            group = (slice(None), i, j, h)
            if not out[group].numel():
                continue
            mask = bias
            if a or b or c:
                mask = bias + apart(window, (a, b, c)).to(bias)
            own, others, values = (part[group].flatten(0, 3).unsqueeze(1) for part in (q, k, v))
            mask = mask.to(own.dtype)
            found = F.scaled_dot_product_attention(own, others, values, attn_mask=mask)
            out[group] = found.view_as(out[group])
        return self.proj(out_of_windows(out, window))


def looked_up(table: Tensor, window: Sides, index: str) -> Tensor:
    """The biases of a window's pairs, (N, N)."""
    return table[:, 0][bias_index(window, index).to(table.device)]


def in_windows(x: Tensor, window: Sides) -> Tensor:
    """(B, H, W, D, C) -> (B, windows along each axis, N, C)."""
    for axis, side in zip((1, 3, 5), window, strict=True):
        x = torch.unflatten(x, axis, (-1, side))
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6)


def out_of_windows(x: Tensor, window: Sides) -> Tensor:
    """The inverse of `in_windows`."""
    x = torch.unflatten(x, 4, window).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return x.flatten(5, 6).flatten(3, 4).flatten(1, 2)


class MLP(nn.Module):
    """fc2(GELU(fc1(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)), in windows of at most 8^3 voxels.

    shifted: half a window is rolled away first along the axes with several windows. A map is padded
    with zeros behind the norm to whole windows; these take part as the published ones do.
    """

    def __init__(self, channels: int, shifted: bool, index: str) -> None:
        super().__init__()
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, index)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels)

    def attended(self, x: Tensor) -> Tensor:
        """The attention's part."""
        height, width, depth = size = x.shape[1:4]
        window = (min(height, WINDOW), min(width, WINDOW), min(depth, WINDOW))
        a, b, c = (self.shifted and n > WINDOW for n in size)
        shifted = (a, b, c)
        ends = [-n % w for n, w in zip(size, window, strict=True)]
        x = F.pad(self.norm1(x), [0, 0, 0, ends[2], 0, ends[1], 0, ends[0]])
        by, axes = [WINDOW // 2 if cut else 0 for cut in shifted], (1, 2, 3)
        if any(by):
            x = torch.roll(x, [-n for n in by], axes)
        x = self.attn(x, window, shifted)
        if any(by):
            x = torch.roll(x, by, axes)
        return x[:, :height, :width, :depth]

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, D, C) -> the same shape."""
        x = x + self.attended(x)
        return x + self.mlp(self.norm2(x))


class SwinStage(nn.Module):
    """Two blocks, the second shifted, on a map (B, C, H, W, D)."""

    def __init__(self, channels: int, index: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SwinBlock(channels, k == 1, index) for k in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D) -> the same shape, channels_last_3d."""
        x = x.permute(0, 2, 3, 4, 1)
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 4, 1, 2, 3).contiguous(memory_format=torch.channels_last_3d)

"""Multi-scale fusion of both images' features, MSFM (paper 2.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import resize
from .layers import Block, Conv3


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w, d) averaged down or interpolated (trilinear, corners aligned) up to `size`."""
    if x.shape[2] > size[0]:
        return F.adaptive_avg_pool3d(x, (size[0], size[1], size[2]))
    if x.shape[2] < size[0]:
        return resize(x, size)
    return x


def times(x: Tensor, y: Tensor) -> Tensor:
    """X * y, in the memory of x where no gradient needs it."""
    return x * y if torch.is_grad_enabled() else x.mul_(y)


class SDI(Block):
    """C_t, the product over k of conv3_k(map_k brought to the size of level t)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Conv3(channels, channels) for _ in range(8))

    def forward(self, size: Sequence[int], *maps: Tensor) -> Tensor:
        """Four (2B, f, ., ., .) maps, fixed above moving, one per level -> (B, f, *size)."""
        out = None
        for level, both in enumerate(maps):
            halves = resized(both, size).chunk(2)
            for conv, x in zip((self.convs[level], self.convs[4 + level]), halves, strict=True):
                out = conv(x) if out is None else times(out, conv(x))
        assert out is not None
        return out


class MSFM(nn.Module):
    """C_1..C_4: the SDI product at each level, brought to its channels by u_t for t = 2, 3, 4."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        for level in (1, 2, 3, 4):
            self.add_module(f"c{level}", Conv3(filters << (level - 1), filters))
            self.add_module(f"sdi_{level}", SDI(filters))
            if level > 1:
                self.add_module(f"u{level}", Conv3(filters, filters << (level - 1)))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features of levels 1 to 4, fixed above moving along the batch -> C_1..C_4."""
        part = self.get_submodule
        maps = [part(f"c{i + 1}")(x) for i, x in enumerate(features)]
        found = [part(f"sdi_{i + 1}")(x.shape[2:], *maps) for i, x in enumerate(features)]
        return [found[0], *(part(f"u{i + 1}")(found[i]) for i in (1, 2, 3))]

"""Multi-scale fusion of both images' features, MSFM (paper 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import convolve, resize
from .layers import Block, Conv3, times


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w, d) averaged down or interpolated (trilinear, corners aligned) up to `size`."""
    if x.shape[2] > size[0]:
        return F.adaptive_avg_pool3d(x, (size[0], size[1], size[2]))
    if x.shape[2] < size[0]:
        return resize(x, size)
    return x


class SDI(Block):
    """C_t, the product over k of conv3_k(map_k brought to the size of level t)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Conv3(channels, channels) for _ in range(8))

    def forward(self, size: Sequence[int], last: bool, *maps: Tensor) -> Tensor:
        """Eight maps (B, f, ., ., .), fixed before moving, fine before coarse -> (B, f, *size).

        last: nobody reads the maps later, so that the product may take the memory of one.
        """
        out = None
        for conv, x in zip(self.convs, maps, strict=True):
            out = (
                self.factor(conv, x, size, last)
                if out is None
                else times(out, self.factor(conv, x, size, last))
            )
        assert out is not None
        return out

    @staticmethod
    def factor(conv: Any, x: Tensor, size: Sequence[int], last: bool) -> Tensor:
        """conv3 of a map brought to `size`."""
        fitted = resized(x, size)
        return convolve(fitted, conv.weight, conv.bias, inplace=last or fitted is not x)


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
        halves = [x.chunk(2) for x in features]
        maps = [part(f"c{i + 1}")(x[half]) for half in (0, 1) for i, x in enumerate(halves)]
        found: list[Tensor] = []
        for i in (3, 2, 1, 0):  # the finest last: its product takes the memory of the widest map
            size = features[i].shape[2:]
            product = part(f"sdi_{i + 1}")(size, i == 0, *maps)
            found.insert(0, part(f"u{i + 1}")(product) if i else product)
        return found

"""Multi-scale fusion of both images' features, MSFM (paper 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import convolve, pool, resize
from .layers import Block, Conv3, fuses


class SDI(Block):
    """C_t, the product over k of conv3_k(map_k brought to the size of level t)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Conv3(channels, channels) for _ in range(8))

    def forward(
        self,
        size: Sequence[int],
        kept: Sequence[int],
        product: Tensor | None,
        *maps: Tensor,
    ) -> Tensor:
        """Eight maps (B, f, ., ., .), fixed before moving, fine before coarse -> (B, f, *size).

        maps: none larger than `size`; the smaller are interpolated (trilinear, corners aligned).
        kept: which of them somebody reads later; the product may take the memory of the others.
        product: None, or that of the fixed image's factors, where maps are the moving one's four;
        of the fixed one's four alone the result is that product.
        """
        first = 0 if product is None else 4
        for k, x in enumerate(maps):
            product = self.factor(self.convs[first + k], x, size, k not in kept, product)
        assert product is not None
        return product

    @staticmethod
    def factor(
        conv: Any, x: Tensor, size: Sequence[int], free: bool, product: Tensor | None
    ) -> Tensor:
        """conv3 of a map at a size, times the product so far; in the map's memory if free."""
        if x.shape[2] < size[0]:
            x, free = resize(x, size), True
        return convolve(x, conv.weight, conv.bias, inplace=free, times=product)


class MSFM(nn.Module):
    """C_1..C_4: the SDI product at each level, brought to its channels by u_t for t = 2, 3, 4."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        for level in (1, 2, 3, 4):
            self.add_module(f"c{level}", Conv3(filters << (level - 1), filters))
            self.add_module(f"sdi_{level}", SDI(filters))
            if level > 1:
                self.add_module(f"u{level}", Conv3(filters, filters << (level - 1)))

    def products(
        self, features: Sequence[Tensor], images: int, before: Sequence[Tensor | None]
    ) -> list[Tensor]:
        """The SDI products of levels 1 to 4.

        features: of levels 1 to 4; of two `images`, the fixed above the moving along the batch, or
        of one, which is the moving one where `before` has the products of the fixed one.
        """
        part = self.get_submodule
        sized = [[part(f"c{i + 1}")(x)] for i, x in enumerate(features)]
        for k, sizes in enumerate(sized[:3]):  # and at the sizes of all coarser levels
            for _ in range(2 - k):
                sizes.append(pool(sizes[-1], "mean")[0])
        third = [sizes[-1] for sizes in sized[:3]]
        if fuses(third[0]):  # so small that launches count
            fourth = pool(torch.cat(third), "mean")[0].chunk(3)
        else:
            fourth = tuple(pool(x, "mean")[0] for x in third)
        for sizes, x in zip(sized, fourth, strict=False):
            sizes.append(x)
        found: list[Tensor] = []
        for i in (3, 2, 1, 0):  # the finest last: its product takes the memory of the widest map
            size, kept = features[i].shape[2:], (i, i + 4) if i else ()
            fitted = [sizes[max(i - k, 0)] for k, sizes in enumerate(sized)]
            if fuses(fitted[0]):  # fewer launches, more memory: all images at once
                fitted = [x if x.shape[2] == size[0] else resize(x, size) for x in fitted]
            parts = [x.chunk(images) for x in fitted]
            fitted = [one[image] for image in range(images) for one in parts]
            found.insert(0, part(f"sdi_{i + 1}")(size, kept, before[i], *fitted))
        return found

    def forward(
        self,
        features: Sequence[Tensor],
        images: int = 2,
        before: Sequence[Tensor | None] = (None,) * 4,
    ) -> list[Tensor]:
        """See `products` -> C_1..C_4."""
        first, *others = self.products(features, images, before)
        return [first, *(self.get_submodule(f"u{i}")(x) for i, x in enumerate(others, 2))]

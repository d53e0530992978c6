"""The encoder (paper 2.1), shared by both images."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops import pool
from .layers import Block, Conv3, ConvNormAct, Map, Pending, done


def with_pooled(x: Map) -> tuple[Tensor, Tensor]:
    """A map, and its maxima over 2^3 voxels."""
    x, norm = (x.x, x.norm) if isinstance(x, Pending) else (x, None)
    smaller, whole = pool(x, "max", norm=norm, keep=True)
    return whole, smaller


class Encoder(Block):
    """Features of each level; level i has filters * 2^(i-1) channels at 1 / 2^(i-1) of the size.

    Level 1: conv3, then twice LReLU(IN(conv3)). Level i + 1: the same after a max-pooling by 2.
    """

    def __init__(self, inputs: int, filters: int, levels: int = 4) -> None:
        super().__init__()
        self.levels = levels
        for level in range(levels):
            width = filters * 2**level
            stage = [
                Conv3(inputs, width),
                *(ConvNormAct(width, width, inplace=True) for _ in range(2)),
            ]
            self.add_module(f"conv{level}", nn.Sequential(*stage))
            inputs = width

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, inputs, H, W, D), sides even at all levels but the last -> their features."""
        found: list[Tensor] = []
        for level in range(self.levels):
            stage = self.get_submodule(f"conv{level}")
            features = stage(x)
            if level < self.levels - 1:
                features, x = with_pooled(features)
            found.append(done(features))
        return tuple(found)

"""The encoder (paper 2.1), shared by both images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Block, Conv3, ConvNormAct, done


class Encoder(Block):
    """Features of four levels; level i has filters * 2^(i-1) channels at 1 / 2^(i-1) of the size.

    Level 1: conv3, then twice LReLU(IN(conv3)). Level i + 1: the same after a max-pooling by 2.
    """

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        for level in range(4):
            width = filters * 2**level
            stage = [Conv3(inputs, width), *(ConvNormAct(width, width, True) for _ in range(2))]
            self.add_module(f"conv{level}", nn.Sequential(*stage))
            inputs = width

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, inputs, H, W, D), sides multiples of 8 -> features of levels 1 to 4."""
        found: list[Tensor] = []
        for level in range(4):
            stage = self.get_submodule(f"conv{level}")
            found.append(done(stage(F.max_pool3d(found[-1], 2) if level else x)))
        return tuple(found)

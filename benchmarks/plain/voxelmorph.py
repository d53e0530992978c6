"""VoxelMorph with the published widths."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .parts import ConvAct, conv3, integrate, up

ENCODER, DECODER = (16, 32, 32, 32), (32, 32, 32, 32)
REMAINING = (32, 16, 16)
SLOPE = 0.2


class UNet(nn.Module):
    """One convolution per level down and up, three at full size."""

    def __init__(self) -> None:
        super().__init__()
        ends = zip((2, *ENCODER), ENCODER, strict=False)
        self.encoder = nn.ModuleList(nn.Sequential(ConvAct(a, b, SLOPE)) for a, b in ends)
        self.decoder = nn.ModuleList()
        last = ENCODER[-1]
        for width, skip in zip(DECODER, ENCODER[::-1], strict=True):
            self.decoder.append(nn.Sequential(ConvAct(last, width, SLOPE)))
            last = width + skip
        ends = zip((last, *REMAINING), REMAINING, strict=False)
        self.remaining = nn.ModuleList(ConvAct(a, b, SLOPE) for a, b in ends)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2, H, W, D) -> (B, 16, H, W, D)."""
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
            x = F.max_pool3d(x, 2)
        for stage in self.decoder:
            x = F.interpolate(stage(x), scale_factor=2, mode="nearest")
            x = torch.cat([x, skips.pop()], 1)
        for conv in self.remaining:
            x = conv(x)
        return x


class Plain(nn.Module):
    """The flow of two images (B, 1, H, W, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.unet_model = UNet()
        self.flow = conv3(REMAINING[-1], 3)

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Velocity at full size, integrated at half the size."""
        velocity = self.flow(self.unet_model(torch.cat([moving, fixed], 1)))
        return up(2 * integrate(up(velocity, 0.5) / 2))

"""PCNet; at each level gates combine the velocities of all coarser levels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lganet_fast.models.published import CWAM

from .parts import ResidualEncoder, UpConv, compose, conv3, integrate, two_convs, up, warp

C, WIDTH = 16, 16


def fusion(channels: int) -> CWAM:
    """The block of LGANet++ with a narrower inner layer."""
    block, wide, narrow = CWAM(channels), 3 * channels, 3 * channels // 8
    block.channel_attention.fc = nn.Sequential(
        nn.Linear(wide, narrow, bias=False), nn.ReLU(), nn.Linear(narrow, wide, bias=False)
    )
    return block


class FieldIntegration(nn.Module):
    """The integral of a gated sum of velocities."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.conv = two_convs(3 * count, WIDTH * count)
        self.weight_conv = nn.ModuleList(
            nn.Sequential(conv3(WIDTH * count, 3), nn.Sigmoid()) for _ in range(count)
        )

    def forward(self, velocities: list[Tensor]) -> Tensor:
        """(B, 3, ., ., .) each, coarsest first -> flow at twice the size of the last."""
        count = len(velocities)
        fields = [up(v, 2 ** (count - k)) for k, v in enumerate(velocities)]
        x = self.conv(torch.cat(fields, 1))
        total = torch.zeros_like(fields[0])
        for gate, field in zip(self.weight_conv, fields, strict=True):
            total = total + gate(x) * field
        return integrate(total)


class Plain(nn.Module):
    """The flow of two images (B, 1, H, W, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder_float, self.encoder_fixed = ResidualEncoder(C), ResidualEncoder(C)
        self.conv_bottleNeck = two_convs(16 * C, 8 * C)
        self.reg_conv3, self.reg_conv2 = conv3(8 * C, 3), conv3(12 * C, 3)
        self.reg_conv1 = conv3(6 * C, 3)
        self.reg_conv0 = nn.Sequential(conv3(3 * C, C), conv3(C, 3))
        for level, width in ((2, 8 * C), (1, 12 * C), (0, 6 * C)):
            self.add_module(f"upconv{level}", UpConv(width, C << level))
            self.add_module(f"dfi_{level}", FieldIntegration(3 - level))
            self.add_module(f"nff_{level}", fusion(C << level))

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Coarse to fine."""
        moved, still = self.encoder_float(moving), self.encoder_fixed(fixed)
        z = self.conv_bottleNeck(torch.cat([still[3], moved[3]], 1))
        velocities = [self.reg_conv3(z)]
        part = self.get_submodule
        for level in (2, 1, 0):
            wide = part(f"upconv{level}")(z)
            flow = part(f"dfi_{level}")(velocities)
            z = part(f"nff_{level}")(still[level], warp(moved[level], flow), wide)
            if level:
                velocities.append(part(f"reg_conv{level}")(z))
        return compose(flow, integrate(self.reg_conv0(z)))

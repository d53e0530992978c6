"""RDP, with several passes at each level."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .parts import (
    ConvNormAct,
    Head,
    ResidualEncoder,
    UpConv,
    compose,
    conv3,
    integrate,
    two_convs,
    up,
    warp,
)

C = 16
PASSES = {3: 2, 2: 3, 1: 1}


class Plain(nn.Module):
    """The flow of two images (B, 1, H, W, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder_moving, self.encoder_fixed = ResidualEncoder(C), ResidualEncoder(C)
        self.cconv_4, self.dconv4 = two_convs(16 * C, 8 * C), two_convs(24 * C, 8 * C)
        self.defconv4 = conv3(8 * C, 3)
        below = 8 * C
        for level in (3, 2, 1):
            width = C << level - 1
            self.add_module(f"upconv{level}", UpConv(below, width))
            below = 3 * width
            self.add_module(f"cconv_{level}", Head(conv=two_convs(below, below)))
            self.add_module(f"defconv{level}", conv3(below, 3))
            if PASSES[level] > 1:
                self.add_module(f"dconv{level}", ConvNormAct(below, width))

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Coarse to fine."""
        xs, ys = self.encoder_moving(moving), self.encoder_fixed(fixed)
        part = self.get_submodule
        x, y = xs[3], ys[3]
        fused = self.cconv_4(torch.cat([y, x], 1))
        flow = integrate(self.defconv4(fused))
        fused = self.dconv4(torch.cat([y, warp(x, flow), fused], 1))
        step = integrate(self.defconv4(fused))
        for level, passes in PASSES.items():
            x, y = xs[level - 1], ys[level - 1]
            below = part(f"upconv{level}")(fused)
            flow = up(2 * compose(flow, step))
            for again in range(passes):
                if again:
                    flow = compose(flow, step)
                    below = part(f"dconv{level}")(fused)
                fused = part(f"cconv_{level}")(torch.cat([y, warp(x, flow), below], 1))
                step = integrate(part(f"defconv{level}")(fused))
        return compose(flow, step)

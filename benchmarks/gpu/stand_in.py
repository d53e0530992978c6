"""The networks on a GPU; in a dry run a small substitute."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import networks
from ..case import Size

SMALL: Size = (16, 16, 16)


class StandIn(nn.Module):
    """A convolution that replaces the network in a dry run."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(2, 3, 3, padding=1)

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """A flow, (B, 3, H, W, D), float32 at least."""
        out: Tensor = self.conv(torch.cat([moving, fixed], 1))
        return out.to(torch.promote_types(out.dtype, torch.float32))


def lean(size: Size, device: str, checkpoint: str | None = None) -> nn.Module:
    """Our network."""
    return networks.lean(size, device, checkpoint) if device == "cuda" else StandIn()


def published(size: Size, device: str) -> nn.Module:
    """The published network."""
    return networks.published(size, device) if device == "cuda" else StandIn()

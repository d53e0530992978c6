"""The networks written with PyTorch's own operations, in the usual way.

Convolutions are `nn.Conv3d` on contiguous maps (B, C, H, W, D), warps `F.grid_sample` on a stored
grid, correlations shifted products, concatenations `torch.cat`. Nothing is split into parts, folded
or overwritten. Parameters have the names of published checkpoints.
"""

from __future__ import annotations

from importlib import import_module

from torch import nn

from lganet_fast.models import Network
from lganet_fast.models.published import PublishedLGANetPlusPlus

from ..case import Size


def plain(network: Network, size: Size) -> nn.Module:
    """The plain network with the same weights, for volumes of a size that needs no padding."""
    found: nn.Module
    if network.name == "lganetpp":
        found = PublishedLGANetPlusPlus(size, dropout=0.0)
    else:
        module = import_module(f".{network.name}", __name__)
        found = module.Plain(size) if network.name == "groupmorph" else module.Plain()
    state = {network.published_name(n): p.detach() for n, p in network.named_parameters()}
    missing, strange = found.load_state_dict(state, strict=False)
    dead = network.dead().keys()
    left = [name for name in missing if name not in dead and not name.endswith("grid")]
    if left or strange:
        raise RuntimeError(f"{network.name}: {left} missing, {strange} unknown")
    return found

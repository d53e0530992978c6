"""The published checkpoint format compared with the lean format: its tensors and their names.

Both use the same names, except for the MSFM's parameters, which the published network has at its
top level. It also has parameters that the forward does not use, and sampling grids.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .network import Shape
from .published import PublishedLGANetPlusPlus, Size


def published_name(name: str) -> str:
    """A lean parameter's name in the published format."""
    return name.removeprefix("msfm.")


def dead_parameters(lean: nn.Module) -> dict[str, Shape]:
    """Names and shapes of the unused parameters of a published network of the same widths."""
    first = lean.get_parameter("encoder.conv0.0.weight")
    with torch.device("meta"):
        network = PublishedLGANetPlusPlus((48, 48, 48), first.shape[1], first.shape[0])
    live = {published_name(name) for name, _ in lean.named_parameters()}
    return {n: tuple(p.shape) for n, p in network.named_parameters() if n not in live}


def with_dead(lean: nn.Module, size: Size) -> dict[str, Tensor]:
    """The state dict of a published network for volumes of `size` with the lean one's parameters.

    What takes no part in the forward pass is zero.
    """
    first = lean.get_parameter("encoder.conv0.0.weight")
    with torch.device("meta"):
        network = PublishedLGANetPlusPlus(size, first.shape[1], first.shape[0])
    state = {name: torch.zeros(p.shape) for name, p in network.named_parameters()}
    for name, p in lean.named_parameters():
        state[published_name(name)] = p.detach().float().cpu().contiguous()
    for name, buffer in network.named_buffers():
        lines = [torch.arange(n, dtype=torch.float32) for n in buffer.shape[2:]]
        state[name] = torch.stack(torch.meshgrid(lines, indexing="ij"))[None]
    return {name: state[name] for name in network.state_dict()}

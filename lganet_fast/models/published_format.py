"""The published checkpoint format beside the lean one: which tensors it holds, under which names.

Both name the parameters alike, but for the MSFM's, which the published network keeps at its top.
Beyond those it holds parameters that take no part in the forward pass, and sampling grids.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .published import PublishedLGANetPlusPlus, Size

Shape = tuple[int, ...]


def published_name(name: str) -> str:
    """What the published format calls a lean parameter."""
    return name.removeprefix("msfm.")


def published_parameters(in_channel: int, filters: int) -> dict[str, Shape]:
    """Names and shapes of all its parameters, live and dead."""
    with torch.device("meta"):
        network = PublishedLGANetPlusPlus((48, 48, 48), in_channel, filters)
    return {name: tuple(p.shape) for name, p in network.named_parameters()}


def is_grid(name: str) -> bool:
    """Whether a published entry is a sampling grid, which depends on the volume's size alone."""
    return name.endswith(".grid")


def without_dead(state: Mapping[str, Tensor], lean: nn.Module) -> dict[str, Tensor]:
    """A published state dict under lean names: dead parameters and grids dropped, no other entry.

    lean: the LGANetPlusPlus to load it into.
    """
    live = {published_name(name): name for name, _ in lean.named_parameters()}
    first = lean.get_parameter("encoder.conv0.0.weight")
    dead = published_parameters(first.shape[1], first.shape[0]).keys() - live.keys()
    return {
        live.get(name, name): value
        for name, value in state.items()
        if name not in dead and not is_grid(name)
    }


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

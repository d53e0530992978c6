"""The network of a training step as two CUDA graphs, forward and backward.

The loss and its gradient with respect to the flow are outside the graphs, and so are gradient
scaling, averaging over processes and the optimiser.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..nn.layers import Block
from ..ops.derived import computed_anew

DEVICES = ("cuda",)


class Stage(nn.Module):
    """The network with its precision."""

    def __init__(self, network: nn.Module, autocast: torch.autocast) -> None:
        super().__init__()
        self.network, self.autocast = network, autocast

    def forward(self, moving: Tensor, fixed: Tensor) -> Any:
        """What the network gives."""
        with self.autocast:
            return self.network(moving, fixed)


class Graphed(nn.Module):
    """A network in training mode whose forward and backward are graphs for batches of one shape.

    Batches of another shape run operator by operator. The next backward overwrites the gradients of
    the last one, so they are added to every parameter's `.grad`, which must be kept:
    `zero_grad(set_to_none=False)`. Uses no random numbers.

    shape: of moving and fixed images, (B, C, H, W, D). autocast: the network's precision, without
    a cache, because a weight cast before a capture is no longer there at a replay.
    Raises InputError for a device other than CUDA.
    """

    def __init__(
        self,
        network: nn.Module,
        autocast: torch.autocast,
        shape: tuple[int, ...],
        device: torch.device,
    ) -> None:
        super().__init__()
        if device.type not in DEVICES:
            raise InputError(f"train.graph needs a CUDA device, this run is on {device.type}")
        self.shape, self.stage = shape, Stage(network, autocast)
        keep_random_blocks(network)
        with torch.random.fork_rng([device] if device.type == "cuda" else []), computed_anew():
            sample = tuple(torch.rand(shape, device=device) for _ in range(2))
            torch.cuda.make_graphed_callables(self.stage, sample)
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def forward(self, moving: Tensor, fixed: Tensor) -> Any:
        """What the network gives."""
        if moving.shape == self.shape:
            return self.stage(moving, fixed)
        return Stage.forward(self.stage, moving, fixed)


def keep_random_blocks(network: nn.Module) -> None:
    """Keep the activations of blocks with dropout.

    If the backward's graph recomputed them, it would draw another dropout mask.
    """
    for block in network.modules():
        if isinstance(block, Block) and any(
            isinstance(m, nn.Dropout) and m.p > 0 for m in block.modules()
        ):
            block.recompute = False

"""The flow of a network at each of its levels, coarse to fine."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..models.checkpoint import Checkpoint
from ..models.inference import backwards, network_flow, turned_back
from ..nn.layers import double
from ..ops import compose, integrate

LEVELS = (4, 3, 2, 1)


@torch.no_grad()
def level_flows(checkpoint: Checkpoint, moving: Tensor, fixed: Tensor) -> list[Tensor]:
    """flow_4 to flow_1 (paper 2.5), each enlarged to the images' size, in their voxels.

    moving, fixed: (1, 1, H, W, D). Returns four of (1, 3, H, W, D); the last is the network's own.
    """
    found: dict[int, Tensor] = {}

    def keep(level: int, *call: Any) -> None:
        found[level] = call[-1].detach()

    hooks = [
        checkpoint.model.get_submodule(f"deblock{level}").register_forward_hook(
            partial(keep, level)
        )
        for level in LEVELS
    ]
    try:
        network_flow(checkpoint, moving, fixed)
    finally:
        for hook in hooks:
            hook.remove()
    flow = integrate(found[4])
    flows = [flow]
    for level in LEVELS[1:]:
        flow = compose(double(flow), integrate(found[level]))
        flows.append(flow)
    size = fixed.shape[2:]
    out = []
    for level, coarse in zip(LEVELS, flows, strict=True):
        whole = coarse
        for _ in range(level - 1):
            whole = double(whole)
        if backwards(checkpoint):
            whole = turned_back(whole)
        out.append(whole[:, :, : size[0], : size[1], : size[2]])
    return out

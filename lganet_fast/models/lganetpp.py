"""LGANet++: a pair of volumes in, the flow that aligns them out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..nn.decoder import CoarsestLevel, Level
from ..nn.encoder import Encoder
from ..nn.layers import Block, double
from ..nn.lgam import TOKEN_ORDERS
from ..nn.msfm import MSFM
from ..ops import check, compose, integrate
from .graphed import Graphs
from .published_format import published_name, without_dead
from .sizes import padded_size

VOXEL_BYTES = 75  # times filters: the most that the forward was found to need, in float32


class LGANetPlusPlus(nn.Module):
    """Huang et al. (2025), LGANet++: computes what the published network does, in less.

    size: (H, W, D) of the volumes, for information: any volume is padded with zeros, at the far
        ends, to a size that the network takes, and the flow is cropped back.
    in_channel: channels of each image. filters: channels of level 1, a multiple of 8.
    token_order: "published", as the published checkpoints were trained, or "spatial", as the paper
        describes; the parameters are the same, the result is not.
    lgam, fifm, msfm: False leaves a module out, for ablations (paper, table of Models 1 to 4).
    dropout: of the attention and of its MLP, while training.
    checkpoint: None, or "blocks" to keep in training only what enters each block and compute the
        inside again in the backward: less memory, one more forward.

    A published checkpoint's state dict loads as it is, strictly; see `models.checkpoint` for files.
    On CUDA, forwards in evaluation mode without gradients run as one CUDA graph from the third of a
    kind on (see `models.graphed`). Raises InputError for arguments that do not fit.
    """

    def __init__(
        self,
        size: tuple[int, int, int],
        in_channel: int = 1,
        filters: int = 8,
        token_order: str = "published",
        lgam: bool = True,
        fifm: bool = True,
        msfm: bool = True,
        dropout: float = 0.1,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        if token_order not in TOKEN_ORDERS:
            raise InputError(f"token_order must be one of {TOKEN_ORDERS}, got {token_order!r}")
        if filters < 8 or filters % 8:
            raise InputError(f"filters must be a multiple of 8, got {filters}")
        if in_channel < 1:
            raise InputError(f"in_channel must be at least 1, got {in_channel}")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout must be in [0, 1), got {dropout}")
        if checkpoint not in (None, "blocks"):
            raise InputError(f'checkpoint must be None or "blocks", got {checkpoint!r}')
        padded_size(size, token_order)
        self.config: dict[str, Any] = {
            "size": tuple(size),
            "in_channel": in_channel,
            "filters": filters,
            "token_order": token_order,
            "lgam": lgam,
            "fifm": fifm,
            "msfm": msfm,
            "dropout": dropout,
        }
        self.encoder = Encoder(in_channel, filters)
        self.msfm = MSFM(filters) if msfm else None
        maps = 3 if msfm else 2
        self.deblock4 = CoarsestLevel(8 * filters, maps, token_order, dropout, lgam)
        self.deblock3 = Level(4 * filters, maps, decompose=True, fifm=fifm)
        self.deblock2 = Level(2 * filters, maps, decompose=True, fifm=fifm)
        self.deblock1 = Level(filters, maps, decompose=False, fifm=fifm)
        for module in self.modules():
            if isinstance(module, Block):
                module.recompute = checkpoint == "blocks"
        self.to(memory_format=torch.channels_last_3d)
        self.graphs = Graphs(VOXEL_BYTES * filters)
        self.register_load_state_dict_pre_hook(accept_published)  # type: ignore[no-untyped-call]

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """The flow u, in voxels, with which warp(moving, u) resembles fixed.

        moving, fixed: (B, in_channel, H, W, D) of one shape and float type, intensities as in
        training (published checkpoints: [0, 1], background 0).
        Returns (B, 3, H, W, D), channels in the order of the axes, float32 at least.
        Raises ValueError or TypeError naming the argument that does not fit.
        """
        check.shape("moving", moving, ("B", self.config["in_channel"], "H", "W", "D"))
        check.floating("moving", moving)
        check.shape("fixed", fixed, moving.shape)
        check.floating("fixed", fixed, (moving.dtype,))
        check.together("fixed", fixed, "moving", moving)
        return self.graphs(self, self.flow, moving, fixed)

    def flow(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """The forward for arguments that have been checked, operator by operator."""
        size = moving.shape[2:]
        padded = padded_size(size, self.config["token_order"])
        both = torch.cat([fixed, moving])
        if padded != tuple(size):
            ends = [n - m for n, m in zip(padded, size, strict=True)]
            both = F.pad(both, [0, ends[2], 0, ends[1], 0, ends[0]])
        features = list(self.encoder(both.contiguous(memory_format=torch.channels_last_3d)))
        del both  # its memory is free for the levels
        flow = self.flow_of(features)
        return flow[:, :, : size[0], : size[1], : size[2]]

    def flow_of(self, features: list[Tensor]) -> Tensor:
        """Coarse to fine (paper 2.5): flow_i = compose(2 upsampled flow_{i+1}, f_i), to flow_1.

        features: the encoder's of the fixed above the moving images, batch 2B. Emptied, so that
        the memory of each level is free when it has been used.
        """
        fused = self.msfm(features) if self.msfm is not None else []

        def taken() -> list[Tensor]:
            still, moved = features.pop().chunk(2)
            return [moved, still, *([fused.pop()] if fused else [])]

        flow = integrate(self.deblock4(taken()))
        for level in (3, 2, 1):
            coarse = double(flow)
            step = integrate(self.get_submodule(f"deblock{level}")(taken(), coarse))
            flow = compose(coarse, step)
        return flow


def accept_published(model: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before a state dict is loaded: bring a published one to this network's names."""
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if any(published_name(name) != name for name in own) or "c1.weight" not in own:
        return
    for name in own:
        del state[prefix + name]
    state.update({prefix + name: x for name, x in without_dead(own, model).items()})

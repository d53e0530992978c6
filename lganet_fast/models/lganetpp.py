"""LGANet++: computes the flow that aligns a pair of volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..nn.decoder import CoarsestLevel, Level
from ..nn.encoder import Encoder
from ..nn.layers import double
from ..nn.lgam import TOKEN_ORDERS
from ..nn.msfm import MSFM
from ..ops import compose, integrate
from .network import SIMPLE_ITK, Network, Shape
from .published_format import dead_parameters, published_name
from .sizes import Size, padded_size

DECOMPOSED = (3, 2)  # levels whose features IDM decomposes
VOXEL_BYTES = 75  # times filters: measured peak memory of the forward, in float32


class LGANetPlusPlus(Network):
    """Huang et al. (2025), LGANet++: the published network's results, in less time and memory.

    size: (H, W, D) of the volumes, for information: any volume is padded with zeros, at the far
        ends, to a size that the network takes, and the flow is cropped back.
    in_channel: channels of each image. filters: channels of level 1, a multiple of 8.
    token_order: "published", as the published checkpoints were trained, or "spatial", as the paper
        describes; the parameters are the same, the result is not.
    lgam, fifm, msfm: False leaves a module out, for ablations (paper, table of Models 1 to 4).
    dropout: of the attention and of its MLP, while training.
    checkpoint: None, or "blocks" to keep in training only the inputs of each block and recompute
        the inside in the backward: less memory, one more forward.

    Published state dicts load unchanged and strictly; see `models.checkpoint` for files. On CUDA,
    forwards in evaluation mode without gradients run as one CUDA graph from the third call of a
    kind on (see `models.graphed`). Raises InputError for invalid arguments.
    """

    name, title = "lganetpp", "LGANet++"
    published_card = SIMPLE_ITK

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
        if token_order not in TOKEN_ORDERS:
            raise InputError(f"token_order must be one of {TOKEN_ORDERS}, got {token_order!r}")
        if filters < 8 or filters % 8:
            raise InputError(f"filters must be a multiple of 8, got {filters}")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout must be in [0, 1), got {dropout}")
        super().__init__(
            size,
            in_channel=in_channel,
            filters=filters,
            token_order=token_order,
            lgam=lgam,
            fifm=fifm,
            msfm=msfm,
            dropout=dropout,
        )
        self.encoder = Encoder(in_channel, filters)
        self.msfm = MSFM(filters) if msfm else None
        maps = 3 if msfm else 2
        self.deblock4 = CoarsestLevel(8 * filters, maps, token_order, dropout, lgam)
        self.deblock3 = Level(4 * filters, maps, decompose=True, fifm=fifm)
        self.deblock2 = Level(2 * filters, maps, decompose=True, fifm=fifm)
        self.deblock1 = Level(filters, maps, decompose=False, fifm=fifm)
        self.voxel_bytes = VOXEL_BYTES * filters
        self.finish(checkpoint)

    def padded_size(self, size: Sequence[int]) -> Size:
        """See `models.sizes`."""
        return padded_size(size, self.config["token_order"])

    def flow_of(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """The flow between images of a padded size."""
        both = torch.cat([fixed, moving])
        features = list(self.encoder(both.contiguous(memory_format=torch.channels_last_3d)))
        del both, moving, fixed  # their memory is free for the levels
        fused = self.msfm(features) if self.msfm is not None else []
        pairs = [tuple(x.chunk(2)) for x in features]
        del features
        return self.coarse_to_fine(pairs, fused)

    def of_fixed(self, fixed: Tensor) -> list[Tensor]:
        """The fixed image's features, its part of the MSFM's products, and IDM's trunk of it."""
        features = list(self.encoder(fixed))
        found = list(features)
        if self.msfm is not None:
            found += self.msfm.products(features, 1, (None,) * 4)
        for level in DECOMPOSED if self.config["fifm"] else ():
            block: Any = self.get_submodule(f"deblock{level}")
            found += block.idm.idm(features[level - 1])
        return found

    def flow_onto(self, moving: Tensor, *prepared: Tensor) -> Tensor:
        """The flow onto a fixed image, from the results of `of_fixed`."""
        features = list(self.encoder(moving))
        rest, fused, trunks = list(prepared[4:]), [], {}
        if self.msfm is not None:
            fused, rest = self.msfm(features, 1, rest[:4]), rest[4:]
        if rest:
            trunks = {level: rest[2 * k : 2 * k + 2] for k, level in enumerate(DECOMPOSED)}
        pairs: list[tuple[Tensor, ...]] = list(zip(prepared[:4], features, strict=True))
        del features, moving
        return self.coarse_to_fine(pairs, fused, trunks)

    def coarse_to_fine(
        self,
        features: list[tuple[Tensor, ...]],
        fused: list[Tensor],
        trunks: Mapping[int, Sequence[Tensor]] | None = None,
    ) -> Tensor:
        """Coarse to fine (paper 2.5): flow_i = compose(2 upsampled flow_{i+1}, f_i), to flow_1.

        features: of the fixed and the moving image, levels 1 to 4. fused: C_1..C_4 or none. Both
        are emptied, so that the memory of each level is free when it has been used.
        trunks: for a level, the output of IDM's trunk on its fixed features, if known.
        """

        def taken() -> list[Tensor]:
            still, moved = features.pop()
            return [moved, still, *([fused.pop()] if fused else [])]

        flow = integrate(self.deblock4(taken()))
        for level in (3, 2, 1):
            coarse = double(flow)
            block, trunk = self.get_submodule(f"deblock{level}"), (trunks or {}).get(level)
            flow = compose(coarse, integrate(block(taken(), coarse, trunk)))
        return flow

    @classmethod
    def options_of(cls, shapes: Mapping[str, Shape], about: Mapping[str, Any]) -> dict[str, Any]:
        """Read the channels from the first convolution."""
        filters, in_channel = shapes["encoder.conv0.0.weight"][:2]
        return {"in_channel": in_channel, "filters": filters}

    def published_name(self, name: str) -> str:
        """Without the MSFM's prefix."""
        return published_name(name)

    def dead(self) -> Mapping[str, Shape]:
        """Every decoder level owns the modules of all levels there."""
        return dead_parameters(self)

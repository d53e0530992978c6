"""The compiled 3^3 convolution for CUDA: what it is called with, and which tiles it may use."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import native
from .convolve_packs import DTYPES, kind, pack

__all__ = ["configs", "forward", "pack"]

PRECISIONS = {
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float32: "float32",
}
# KiB of shared memory that a block may have, by compute capability
SHARED = {(8, 0): 163, (8, 7): 163, (9, 0): 227, (10, 0): 227, (10, 3): 227}
LEAST_SHARED = 99  # of all others from 8.0 on


def configs(
    inputs: int,
    outputs: int,
    precision: str,
    size: Sequence[int],
    capability: tuple[int, int] = (8, 9),
) -> list[int]:
    """Values of `config` worth a try for volumes of `size` (H, W, D), the best by a model first.

    precision: one of convolve_packs.DTYPES. capability: the device's. A value stands for a tile,
    and is good for other sizes too. Raises RuntimeError for what cannot be computed.
    """
    limit = SHARED.get(capability, LEAST_SHARED) * 1024
    number_bytes, exact = DTYPES[precision].itemsize, precision == "float32"
    return list(
        torch.ops.lganet_fast.convolve_configs(
            inputs, outputs, number_bytes, exact, list(size), limit
        )
    )


def packed_size(inputs: int, outputs: int, precision: str) -> int:
    """How many numbers `pack` makes of a weight."""
    per_plane, planes, columns, exact = kind(inputs, outputs, precision)
    products = 9 if planes == 2 else 5
    blocks, chunks = -(-outputs // columns), -(-inputs // (planes * per_plane))
    return blocks * chunks * products * columns * 3 * 2 * per_plane * (2 if exact else 1)


def check(name: str, x: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    """Raise ValueError if a tensor has another shape, TypeError where it has another type."""
    if tuple(x.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(x.shape)}")
    if x.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, got {x.dtype}")


def forward(
    maps: Sequence[Tensor],
    packed: Tensor,
    bias: Tensor,
    *,
    outputs: int,
    precision: str,
    norm: Tensor | None = None,
    slope: float = 1.0,
    relu: bool = False,
    add: Tensor | None = None,
    times: Tensor | None = None,
    mask: Tensor | None = None,
    moments: bool = False,
    out: Tensor | None = None,
    config: int = 0,
) -> tuple[Tensor, Tensor]:
    """The convolution of the maps' channels, one after the other; returns it and its moments.

    maps: 1 to 3 tensors (B, Ck, H, W, D), channels_last_3d or channels of such a tensor. packed:
    pack(weight, precision). bias: (outputs,) float32. norm: (2, B, C) float32, shift and scale:
    leaky((x - shift) * scale, slope) is convolved, and is 0 where `mask` (B, C, H, W, D) is given
    and not > 0. The result (B, outputs, H, W, D) is + bias, then rectified if `relu`, then + add,
    then * times; it goes to `out` where that is given, channels of a wider tensor perhaps. moments:
    float32 (2, B, outputs), mean and 1 / sqrt(variance + 1e-5) of the result as stored; empty
    unless asked for; they repeat bit for bit. config: 0, or one of `configs`.
    Raises ValueError for shapes and TypeError for types that do not fit, RuntimeError for layouts.
    """
    if not 1 <= len(maps) <= 3:
        raise ValueError(f"expected 1 to 3 maps, got {len(maps)}")
    dtype = DTYPES[precision]
    batch, _, *size = maps[0].shape
    for x in maps:
        check("x", x, (batch, x.shape[1], *size), dtype)
    inputs = sum(x.shape[1] for x in maps)
    check("packed", packed, (packed_size(inputs, outputs, precision),), dtype)
    check("bias", bias, (outputs,), torch.float32)
    if norm is not None:
        check("norm", norm, (2, batch, inputs), torch.float32)
    if mask is not None:
        check("mask", mask, (batch, inputs, *size), dtype)
    for name, like in (("add", add), ("times", times), ("out", out)):
        if like is not None:
            check(name, like, (batch, outputs, *size), dtype)
    options = (list(maps), packed, bias, norm, slope, relu, add, times, mask, moments)
    exact = precision == "float32"
    if out is None:
        made = torch.ops.lganet_fast.convolve_maps(*options, outputs, exact, config)
        return made[0], made[1]
    return out, torch.ops.lganet_fast.convolve_maps_out(out, *options, exact, config)


def fake_moments(x: Tensor, outputs: int, wanted: bool) -> Tensor:
    """Of the moments' shape."""
    size = (2, x.shape[0], outputs) if wanted else (0,)
    return x.new_empty(size, dtype=torch.float32)


if native.LOADED:

    @torch.library.register_fake("lganet_fast::convolve_maps")
    def _(
        maps: list[Tensor],
        packed: Tensor,
        bias: Tensor,
        norm: Tensor | None,
        slope: float,
        relu: bool,
        add: Tensor | None,
        times: Tensor | None,
        mask: Tensor | None,
        moments: bool,
        outputs: int,
        exact: bool,
        config: int,
    ) -> tuple[Tensor, Tensor]:
        x = maps[0]
        y = torch.empty(
            (x.shape[0], outputs, *x.shape[2:]),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last_3d,
        )
        return y, fake_moments(x, outputs, moments)

    @torch.library.register_fake("lganet_fast::convolve_maps_out")
    def _(
        out: Tensor,
        maps: list[Tensor],
        packed: Tensor,
        bias: Tensor,
        norm: Tensor | None,
        slope: float,
        relu: bool,
        add: Tensor | None,
        times: Tensor | None,
        mask: Tensor | None,
        moments: bool,
        exact: bool,
        config: int,
    ) -> Tensor:
        return fake_moments(out, out.shape[1], moments)

"""Adaptive weighting: maps weighted at each voxel, and a gate for each channel of the result."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from . import check, reference, triton
from .dispatch import choose_backend


def weigh(
    maps: Sequence[Tensor],
    logits: Tensor,
    first: Tensor,
    second: Tensor,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Z = [a_0 x_0, a_1 x_1, ...] with a = softmax of the logits at each voxel, and its gate.

    gate = sigmoid(f(mean z) + f(max z)), mean and max over voxels, f(v) = second relu(first v)
    (paper 2.4, adaptive weighting).
    maps: two or three (B, C, H, W, D), one float type. logits: (B, n, H, W, D), one channel for
    each map, the same type. first: (hidden, n C), second: (n C, hidden), any float type.
    Returns z, (B, n C, H, W, D), channels_last_3d, and (2, B, n C) in at least float32: zero and
    the gate, so that `norm=(that, 1.0)` of the operation that reads z multiplies by it.
    Raises ValueError or TypeError naming the invalid argument.
    """
    check.several("maps", maps, (2, 3))
    check.shape("maps[0]", maps[0], ("B", "C", "H", "W", "D"))
    check.floating("maps[0]", maps[0])
    batch, channels, *size = maps[0].shape
    for k, x in enumerate(maps):
        check.shape(f"maps[{k}]", x, maps[0].shape)
    check.shape("logits", logits, (batch, len(maps), *size))
    for name, x in [*((f"maps[{k}]", x) for k, x in enumerate(maps)), ("logits", logits)]:
        check.floating(name, x, (maps[0].dtype,))
        check.together(name, x, "maps[0]", maps[0])
    if 0 in size:
        raise ValueError(f"maps must hold voxels, got shape {tuple(maps[0].shape)}")
    width = len(maps) * channels
    check.shape("first", first, ("hidden", width))
    check.shape("second", second, (width, first.shape[0]))
    for name, x in (("first", first), ("second", second)):
        check.floating(name, x)
        check.together(name, x, "maps[0]", maps[0])
    call = {
        "gradient": triton.gradient_asked(*maps, logits, first, second),
        "channels": channels,
        "voxels": math.prod(size),
    }
    choice = choose_backend("weigh", logits.device.type, backend, **call).backend
    if choice == "triton":
        return fused(maps, logits, first, second)
    z = (plain if choice == "native" else reference.weigh)(maps, logits)
    gate = reference.gate(z, first, second)
    return z, torch.stack([torch.zeros_like(gate), gate])


def plain(maps: Sequence[Tensor], logits: Tensor) -> Tensor:
    """The weighted maps in their own type."""
    weights = torch.softmax(logits, 1)
    return torch.cat([x * weights[:, k : k + 1] for k, x in enumerate(maps)], 1)


@torch.library.custom_op("lganet_fast_triton::weigh", mutates_args=())
def fused(
    maps: Sequence[Tensor], logits: Tensor, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor]:
    """The operation by the Triton kernels."""
    z, norm = results_like(maps, logits, first, second)
    if z.numel():
        triton.kernels("weigh").forward(maps, logits, first, second, z, norm)
    return z, norm


@fused.register_fake
def results_like(
    maps: Sequence[Tensor], logits: Tensor, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor]:
    """Empty tensors of the results' shapes."""
    batch, channels, *size = maps[0].shape
    width = len(maps) * channels
    z = torch.empty(
        (batch, width, *size),
        dtype=logits.dtype,
        device=logits.device,
        memory_format=torch.channels_last_3d,
    )
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return z, logits.new_empty((2, batch, width), dtype=dtype)

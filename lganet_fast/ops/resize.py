"""Resize: a volume on another grid over the same extent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import check, native, reference, triton
from .dispatch import choose_backend
from .memory_format import empty_in_format_of


def resize(
    x: Tensor, size: Sequence[int], backend: str | None = None, *, factor: float = 1.0
) -> Tensor:
    """Trilinear interpolation with corners aligned: the ends of each axis keep their places.

    x: (B, C, h, w, d), any float type. size: the new H, W, D, each at least 1. Returns
    (B, C, H, W, D) in the type of x, times `factor`: a flow in voxels must be multiplied by what
    its axes have grown by. `upsample` of paper 2.4 and 2.5 is this at twice the size. Raises
    ValueError or TypeError naming the invalid argument.
    """
    check.shape("x", x, ("B", "C", "h", "w", "d"))
    check.floating("x", x)
    if isinstance(size, torch.Size):
        size = tuple(size)
    check.several("size", size, (3,))
    for length in size:
        check.at_least("size", length, 1)
    check.number("factor", factor)
    if 0 in x.shape[2:]:
        raise ValueError(f"x must hold voxels, got shape {tuple(x.shape)}")
    call = {
        "gradient": triton.gradient_asked(x),
        "longest": max(*x.shape[2:], *size),
        "voxels": math.prod(size),
    }
    choice = choose_backend("resize", x.device.type, backend, **call).backend
    if choice == "reference":
        return reference.resize(x, size, factor)
    if choice == "triton":
        return fused(x, size, factor)
    out: Tensor = run(x if factor == 1 else factor * x, *size)
    return out


@torch.library.custom_op("lganet_fast_triton::resize", mutates_args=())
def fused(x: Tensor, size: Sequence[int], factor: float) -> Tensor:
    """The operation by the Triton kernel."""
    out = resized_like(x, size, factor)
    if out.numel():
        triton.kernels("resize").forward(x, out, factor)
    return out


@fused.register_fake
def resized_like(x: Tensor, size: Sequence[int], factor: float) -> Tensor:
    """An empty tensor of the result's shape, in the memory format of x."""
    return empty_in_format_of(x, *x.shape[:2], *size)


def dense(x: Tensor) -> Tensor:
    """The tensor itself where it is contiguous or channels_last_3d, else a contiguous copy."""
    return x if x.is_contiguous(memory_format=torch.channels_last_3d) else x.contiguous()


if native.LOADED:

    @torch.library.register_fake("lganet_fast::resize")
    def _(x: Tensor, height: int, width: int, depth: int) -> Tensor:
        return empty_in_format_of(x, *x.shape[:2], height, width, depth)

    @torch.library.register_fake("lganet_fast::resize_backward")
    def _(grad: Tensor, height: int, width: int, depth: int) -> Tensor:
        return empty_in_format_of(grad, *grad.shape[:2], height, width, depth)

    def remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the size."""
        ctx.size = inputs[0].shape[2:]

    def gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient to x."""
        return run_backward(grad, *ctx.size), None, None, None

    def of_any_layout(x: Tensor, *size: int) -> Tensor:
        """The operator needs tensors without gaps."""
        return torch.ops.lganet_fast.resize(dense(x), *size)

    def gradient_of_any_layout(grad: Tensor, *size: int) -> Tensor:
        """Its gradient, linear too."""
        return torch.ops.lganet_fast.resize_backward(dense(grad), *size)

    run = native.operator("resize", gradients, remember, of_any_layout)
    run_backward = native.operator("resize_backward", run=gradient_of_any_layout)

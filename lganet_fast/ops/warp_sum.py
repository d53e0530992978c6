"""Warp and add: the sum of warped maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import check, triton
from .dispatch import choose_backend
from .memory_format import empty_in_format_of
from .torch_func import transforming
from .warp import warp


def warp_sum(
    images: Sequence[Tensor],
    flows: Sequence[Tensor],
    base: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """base(p) + sum_k images[k](p + flows[k](p)), zeros outside (paper 2.4, interaction).

    images: one or two (B, C, H, W, D), one float type. flows: as many (B, 3, H, W, D), float32 or
    float64, in voxels. base: shaped as an image, of any float type, or None for zero.
    Returns the shape of an image, in the type of base, else of the images.
    `warp_sum([first], [second], second)` is what `compose` computes.
    Raises ValueError or TypeError naming the invalid argument.
    """
    check.several("images", images, (1, 2))
    check.several("flows", flows, (len(images),))
    check.flow("flows[0]", flows[0])
    shape = (flows[0].shape[0], "C", *flows[0].shape[2:])
    check.shape("images[0]", images[0], shape)
    check.floating("images[0]", images[0])
    others = [(f"images[{k}]", x) for k, x in enumerate(images)]
    for name, x in [*others, *([] if base is None else [("base", base)])]:
        check.shape(name, x, images[0].shape)
        check.floating(name, x, check.FLOATS if name == "base" else (images[0].dtype,))
        check.together(name, x, "flows[0]", flows[0])
    for k, flow in enumerate(flows):
        check.shape(f"flows[{k}]", flow, flows[0].shape)
        check.floating(f"flows[{k}]", flow, (flows[0].dtype,))
        check.together(f"flows[{k}]", flow, "flows[0]", flows[0])
    call = {
        "gradient": triton.gradient_asked(*images, *flows, base),
        "channels": images[0].shape[1],
        "voxels": flows[0].shape[2:].numel(),
    }
    if choose_backend("warp_sum", flows[0].device.type, backend, **call).backend == "triton":
        return fused(images, flows, base)
    out = base
    for image, flow in zip(images, flows, strict=True):
        moved = warp(image, flow, backend=backend)
        fresh = out is base or torch.is_grad_enabled() or transforming()
        out = moved if out is None else (out + moved if fresh else out.add_(moved))
    assert out is not None
    return out if base is None else out.to(base.dtype)


@torch.library.custom_op("lganet_fast_triton::warp_sum", mutates_args=())
def fused(images: Sequence[Tensor], flows: Sequence[Tensor], base: Tensor | None) -> Tensor:
    """The operation by the Triton kernel."""
    out = result_like(images, flows, base)
    if out.numel():
        triton.kernels("warp_sum").forward(images, flows, base, out)
    return out


@fused.register_fake
def result_like(images: Sequence[Tensor], flows: Sequence[Tensor], base: Tensor | None) -> Tensor:
    """An empty tensor of the result's shape and type, in the memory format of the base."""
    return empty_in_format_of(images[0] if base is None else base, *images[0].shape)

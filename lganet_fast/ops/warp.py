"""Warp: sample an image at the positions of a flow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import check, native, reference
from .dispatch import choose_backend
from .memory_format import empty_in_format_of, gradient_shapes


def warp(
    image: Tensor,
    flow: Tensor,
    mode: str = "trilinear",
    padding: str = "zeros",
    backend: str | None = None,
) -> Tensor:
    """image(p + flow(p)) at every voxel p of the flow's grid (paper 2.5, spatial transformer).

    image: (B, C, h, w, d), any float type. Usually of the flow's size, but need not be.
    flow: (B, 3, H, W, D), float32 or float64, in voxels, channels in the order of the axes.
    mode: "trilinear" or "nearest". padding: "zeros" (a corner outside contributes 0) or "border".
    Returns (B, C, H, W, D) in the image's type. Voxel centres lie at integer coordinates.
    Raises ValueError or TypeError naming the invalid argument.
    """
    check.flow("flow", flow)
    check.shape("image", image, (flow.shape[0], "C", "h", "w", "d"))
    check.floating("image", image)
    check.together("flow", flow, "image", image)
    check.choice("mode", mode, ("trilinear", "nearest"))
    check.choice("padding", padding, ("zeros", "border"))
    if choose_backend("warp", image.device.type, backend).backend == "reference":
        return reference.warp(image, flow, mode, padding)
    wide = torch.promote_types(torch.promote_types(image.dtype, torch.float32), flow.dtype)
    read = image.double() if wide == torch.float64 else image
    out: Tensor = run(read, flow.to(wide), mode == "nearest", padding == "border")
    return out.to(image.dtype)


if native.LOADED:

    @torch.library.register_fake("lganet_fast::warp")
    def _(image: Tensor, flow: Tensor, nearest: bool, border: bool) -> Tensor:
        return empty_in_format_of(image, *image.shape[:2], *flow.shape[2:])

    @torch.library.register_fake("lganet_fast::warp_backward")
    def _(
        grad: Tensor,
        image: Tensor,
        flow: Tensor,
        nearest: bool,
        border: bool,
        need_image: bool,
        need_flow: bool,
        deterministic: bool = False,
    ) -> tuple[Tensor, ...]:
        return gradient_shapes((image, need_image), (flow, need_flow))

    def remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the gradients read."""
        image, flow, ctx.nearest, ctx.border = inputs
        ctx.save_for_backward(image, flow)

    def gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The requested gradients."""
        need_image, need_flow = ctx.needs_input_grad[:2]
        how = (ctx.nearest, ctx.border, need_image, need_flow, native.deterministic())
        found = run_backward(grad, *ctx.saved_tensors, *how)
        return (found[0] if need_image else None, found[1] if need_flow else None, None, None)

    run = native.operator("warp", gradients, remember)
    run_backward = native.operator("warp_backward")

"""Compose two flows into one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import check, native, reference
from .dispatch import choose_backend
from .memory_format import empty_in_format_of, gradient_shapes


def compose(first: Tensor, second: Tensor, backend: str | None = None) -> Tensor:
    """The flow second + warp(first, second): warps like `first` and then `second`.

    first, second: (B, 3, H, W, D), float32 or float64, in voxels. Returns the same shape.
    `first` counts as zero outside the volume. Paper 2.5.
    Raises ValueError or TypeError naming the invalid argument.
    """
    check.flow("second", second)
    check.flow("first", first)
    check.shape("first", first, second.shape)
    check.together("first", first, "second", second)
    if choose_backend("compose", second.device.type, backend).backend == "reference":
        return reference.compose(first, second)
    wide = torch.promote_types(first.dtype, second.dtype)
    out: Tensor = run(first.to(wide), second.to(wide))
    return out


if native.LOADED:

    @torch.library.register_fake("lganet_fast::compose")
    def _(first: Tensor, second: Tensor) -> Tensor:
        return empty_in_format_of(first, *first.shape)

    @torch.library.register_fake("lganet_fast::compose_backward")
    def _(
        grad: Tensor,
        first: Tensor,
        second: Tensor,
        need_first: bool,
        need_second: bool,
        deterministic: bool = False,
    ) -> tuple[Tensor, ...]:
        return gradient_shapes((first, need_first), (second, need_second))

    def remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep both flows."""
        ctx.save_for_backward(*inputs)

    def gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The requested gradients."""
        need = ctx.needs_input_grad
        how = (*need, native.deterministic())
        found = run_backward(grad, *ctx.saved_tensors, *how)
        return tuple(g if asked else None for g, asked in zip(found, need, strict=True))

    run = native.operator("compose", gradients, remember)
    run_backward = native.operator("compose_backward")

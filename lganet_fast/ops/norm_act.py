"""Instance norm and leaky ReLU in one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import check, native, reference
from .dispatch import choose_backend
from .warp import result_in_format_of


def norm_act(
    x: Tensor, slope: float = 1.0, inplace: bool = False, backend: str | None = None
) -> Tensor:
    """LReLU(IN(x)): each channel of each volume to mean 0 and variance 1, then the leaky ReLU.

    x: (B, C, H, W, D), any float type; statistics in float32 at least; eps 1e-5, no affine
    parameters. slope: of the leaky ReLU, in (0, 1]; 1 is none.
    inplace: let the result take x's memory where no gradient is asked for; x must not be read then.
    Returns the shape and type of x (paper 2.1). Raises ValueError or TypeError naming the argument
    that does not fit.
    """
    check.shape("x", x, ("B", "C", "H", "W", "D"))
    check.floating("x", x)
    if not 0 < slope <= 1:
        raise ValueError(f"slope must be in (0, 1], got {slope}")
    if choose_backend("norm_act", x.device.type, backend).backend != "native":
        return reference.norm_act(x, slope)
    x = x.contiguous(memory_format=layout_of(x))
    if inplace and not (torch.is_grad_enabled() and x.requires_grad):
        torch.ops.lganet_fast.norm_act_(x, slope)
        return x
    return torch.ops.lganet_fast.norm_act(x, slope)[0]


def layout_of(x: Tensor) -> torch.memory_format:
    """The memory format that x has, or is nearest to."""
    last = x.stride(1) == 1 and x.shape[1] > 1
    return torch.channels_last_3d if last else torch.contiguous_format


if native.LOADED:

    def scale_like(x: Tensor) -> Tensor:
        """An empty (B, C) tensor of the type that statistics have."""
        return x.new_empty(x.shape[:2], dtype=torch.promote_types(x.dtype, torch.float32))

    @torch.library.register_fake("lganet_fast::norm_act")
    def _(x: Tensor, slope: float) -> tuple[Tensor, Tensor]:
        return result_in_format_of(x, *x.shape), scale_like(x)

    @torch.library.register_fake("lganet_fast::norm_act_")
    def _(x: Tensor, slope: float) -> None:
        return None

    @torch.library.register_fake("lganet_fast::norm_act_backward")
    def _(grad: Tensor, out: Tensor, scale: Tensor, slope: float) -> Tensor:
        return result_in_format_of(out, *out.shape)

    def remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep the result, which tells the normalised values: what came in need not stay."""
        ctx.slope = inputs[1]
        ctx.save_for_backward(*output)
        ctx.mark_non_differentiable(output[1])

    def gradients(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, None]:
        """The gradient to x."""
        out, scale = ctx.saved_tensors
        grad = grad.contiguous(memory_format=layout_of(out))
        return torch.ops.lganet_fast.norm_act_backward(grad, out, scale, ctx.slope), None

    torch.library.register_autograd("lganet_fast::norm_act", gradients, setup_context=remember)
    native.forbid_double_backward("norm_act_backward")

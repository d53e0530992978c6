"""Local 3D correlation of two feature maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import check, native, reference
from .dispatch import choose_backend


def correlate(x: Tensor, y: Tensor, radius: int = 1, backend: str | None = None) -> Tensor:
    """Mean over channels of x(p) y(p + o) for each offset o (paper 2.3 and 2.4).

    x, y: (B, C, H, W, D), one float type; y counts as zero outside the volume.
    Returns (B, (2 radius + 1)^3, H, W, D), offsets in lexicographic order, first axis slowest.
    Raises ValueError or TypeError naming the argument that does not fit.
    """
    check.shape("x", x, ("B", "C", "H", "W", "D"))
    check.floating("x", x)
    check.shape("y", y, x.shape)
    check.floating("y", y, (x.dtype,))
    check.together("y", y, "x", x)
    check.at_least("radius", radius, 1)
    if choose_backend("correlate", x.device.type, backend).backend != "native":
        return reference.correlate(x, y, radius)
    return torch.ops.lganet_fast.correlate(x, y, radius)


def result_like(x: Tensor, y: Tensor, radius: int) -> Tensor:
    """An empty tensor of the result's shape, in the memory format of x."""
    channels_last = x.shape[1] > 1 and x.stride(1) == 1
    return torch.empty(
        (x.shape[0], (2 * radius + 1) ** 3, *x.shape[2:]),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last_3d if channels_last else torch.contiguous_format,
    )


def gradients_like(
    grad: Tensor, x: Tensor, y: Tensor, radius: int, need_x: bool, need_y: bool
) -> tuple[Tensor, Tensor]:
    """Empty tensors of the gradients' shapes."""
    return (
        torch.empty_like(x) if need_x else x.new_empty(0),
        torch.empty_like(y) if need_y else y.new_empty(0),
    )


def save(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    """Keep the inputs."""
    x, y, ctx.radius = inputs
    ctx.save_for_backward(x, y)


def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    """The gradients asked for."""
    need_x, need_y, _ = ctx.needs_input_grad
    grad_x, grad_y = torch.ops.lganet_fast.correlate_backward(
        grad, *ctx.saved_tensors, ctx.radius, need_x, need_y
    )
    return grad_x if need_x else None, grad_y if need_y else None, None


if native.LOADED:
    torch.library.register_fake("lganet_fast::correlate", result_like)
    torch.library.register_fake("lganet_fast::correlate_backward", gradients_like)
    torch.library.register_autograd("lganet_fast::correlate", backward, setup_context=save)
    native.forbid_double_backward("correlate_backward")

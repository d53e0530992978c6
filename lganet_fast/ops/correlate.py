"""Local 3D correlation of two feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import check, native, reference, triton
from .dispatch import choose_backend
from .memory_format import empty_in_format_of, gradient_shapes
from .torch_func import no_double_backward


def correlate(
    x: Tensor,
    y: Tensor,
    radius: int = 1,
    backend: str | None = None,
    *,
    width: int | None = None,
    step: int = 1,
) -> Tensor:
    """Mean over channels of x(p) y(p + o) for each offset o (paper 2.3 and 2.4).

    x: (B, C, H, W, D). y: of the same shape, or with `m` voxels more at both ends of every axis, so
        that y's voxel m + p lies at p; one float type. y counts as zero outside.
    step: between offsets of one axis, which are -radius step, ..., radius step.
    width: how many channels the result has, if more than offsets: zeros behind them, so that what
        reads it can read voxels whose places are multiples of more bytes.
    Returns (B, (2 radius + 1)^3, H, W, D), offsets in lexicographic order, first axis slowest.
    Raises ValueError or TypeError naming the invalid argument.
    """
    check.shape("x", x, ("B", "C", "H", "W", "D"))
    check.floating("x", x)
    margin = max(y.shape[2] - x.shape[2], 0) // 2 if isinstance(y, Tensor) and y.dim() == 5 else 0
    check.shape("y", y, (*x.shape[:2], *(n + 2 * margin for n in x.shape[2:])))
    check.floating("y", y, (x.dtype,))
    check.together("y", y, "x", x)
    check.at_least("radius", radius, 1)
    check.at_least("step", step, 1)
    count = (2 * radius + 1) ** 3
    width = count if width is None else width
    check.at_least("width", width, count)
    size = {"channels": x.shape[1], "voxels": x.shape[2:].numel()}
    choice = choose_backend("correlate", x.device.type, backend, radius=radius, **size)
    if choice.backend == "reference":
        out = reference.correlate(x, y, radius, step)
    elif margin or step > 1:
        out = on_lattices(x, y, radius, step, margin, choice.backend)
    elif choice.backend == "triton":
        return fused(x, y, radius, width)
    else:
        out = run(x, y, radius)
    return out if width == count else F.pad(out, [0] * 7 + [width - count])


def on_lattices(x: Tensor, y: Tensor, radius: int, step: int, margin: int, backend: str) -> Tensor:
    """The same through kernels that know no step and no margin: every `step`-th voxel is a volume.

    x gets y's margin, zeros, and the result loses it.
    """
    size = x.shape[2:]
    ends = [-(n + 2 * margin) % step for n in size]
    after = [n + margin for n in ends]
    x = F.pad(x, [margin, after[2], margin, after[1], margin, after[0]])
    y = F.pad(y, [0, ends[2], 0, ends[1], 0, ends[0]]) if any(ends) else y
    batch, whole, offsets = x.shape[0], x.shape[2:], (2 * radius + 1) ** 3
    counts = [n // step for n in whole]
    x, y = split(x, counts, step), split(y, counts, step)
    out = correlate(x, y, radius, backend).permute(0, 2, 3, 4, 1)
    out = out.reshape(batch, step, step, step, *counts, offsets)
    out = out.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(batch, *whole, offsets)
    out = out.permute(0, 4, 1, 2, 3)
    for axis, length in enumerate(size, 2):
        out = out.narrow(axis, margin, length)
    return out


def split(x: Tensor, counts: Sequence[int], step: int) -> Tensor:
    """(B, C, n1 step, n2 step, n3 step) -> (B step^3, C, n1, n2, n3), channels_last_3d."""
    batch, channels, (height, width, depth) = *x.shape[:2], counts
    rows = x.permute(0, 2, 3, 4, 1)
    rows = rows.reshape(batch, height, step, width, step, depth, step, channels)
    rows = rows.permute(0, 2, 4, 6, 1, 3, 5, 7)
    return rows.reshape(batch * step**3, *counts, channels).permute(0, 4, 1, 2, 3)


def result_like(x: Tensor, y: Tensor, radius: int, width: int = 0) -> Tensor:
    """An empty tensor of the result's shape, in the memory format of x."""
    return empty_in_format_of(x, x.shape[0], width or (2 * radius + 1) ** 3, *x.shape[2:])


def gradients_like(
    grad: Tensor, x: Tensor, y: Tensor, radius: int, need_x: bool, need_y: bool
) -> tuple[Tensor, ...]:
    """Empty tensors of the gradients' shapes, without gaps."""
    return gradient_shapes((x, need_x), (y, need_y))


def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep the inputs."""
    x, y, ctx.radius, *ctx.width = inputs
    ctx.save_for_backward(x, y)


def backward(operator: Any) -> Any:
    """What asks `operator` for the gradients that are needed."""

    def gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        need_x, need_y = ctx.needs_input_grad[:2]
        grad = grad[:, : (2 * ctx.radius + 1) ** 3]
        grad_x, grad_y = operator(grad, *ctx.saved_tensors, ctx.radius, need_x, need_y)
        none = [None] * (1 + len(ctx.width))
        return grad_x if need_x else None, grad_y if need_y else None, *none

    return gradients


if native.LOADED:
    torch.library.register_fake("lganet_fast::correlate", result_like)
    torch.library.register_fake("lganet_fast::correlate_backward", gradients_like)
    run = native.operator("correlate", backward(native.operator("correlate_backward")), save)


@torch.library.custom_op("lganet_fast_triton::correlate", mutates_args=())
def fused(x: Tensor, y: Tensor, radius: int, width: int) -> Tensor:
    """The operation by the Triton kernels."""
    out = result_like(x, y, radius, width)
    if out.numel():
        triton.kernels("correlate").forward(x, y, out, radius)
    return out


@torch.library.custom_op("lganet_fast_triton::correlate_backward", mutates_args=())
def fused_backward(
    grad: Tensor, x: Tensor, y: Tensor, radius: int, need_x: bool, need_y: bool
) -> tuple[Tensor, Tensor]:
    """The gradients to x and y; an empty tensor for one that is not needed."""
    grad_x, grad_y = gradients_like(grad, x, y, radius, need_x, need_y)
    for own, other, mirrored in ((grad_x, y, False), (grad_y, x, True)):
        if own.numel():
            triton.kernels("correlate").gradient(grad, other, own, radius, mirrored)
    return grad_x, grad_y


fused.register_fake(result_like)
fused.register_autograd(backward(fused_backward), setup_context=save)
fused_backward.register_fake(gradients_like)
fused_backward.register_autograd(no_double_backward)

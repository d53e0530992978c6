"""Instance norm and leaky ReLU in one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import check, native, reference, triton
from .dispatch import choose_backend
from .memory_format import empty_in_format_of, format_of
from .torch_func import no_double_backward, transforming


def norm_act(
    x: Tensor, slope: float = 1.0, inplace: bool = False, backend: str | None = None
) -> Tensor:
    """LReLU(IN(x)): each channel of each volume to mean 0 and variance 1, then the leaky ReLU.

    x: (B, C, H, W, D), any float type; statistics in at least float32; eps 1e-5, no affine
    parameters. slope: of the leaky ReLU, in (0, 1]; 1 is none.
    inplace: let the result take x's memory where no gradient is requested; x must not be read then.
    Returns the shape and type of x (paper 2.1). Raises ValueError or TypeError naming the invalid
    argument.
    """
    check.shape("x", x, ("B", "C", "H", "W", "D"))
    check.floating("x", x)
    check.number("slope", slope, 0, 1)
    if slope == 0:
        raise ValueError("slope must be above 0, got 0")
    check.flag("inplace", inplace)
    choice = choose_backend("norm_act", x.device.type, backend, dtype=x.dtype)
    if choice.backend == "reference":
        return reference.norm_act(x, slope)
    compiled = choice.backend == "native"
    if inplace and not transforming() and not (torch.is_grad_enabled() and x.requires_grad):
        x = without_gaps(x)
        (torch.ops.lganet_fast.norm_act_ if compiled else fused_)(x, slope)
        return x
    return (run if compiled else fused_of_any_layout)(x, slope)[0]


def without_gaps(x: Tensor) -> Tensor:
    """The map without gaps, in the memory format that it has or is nearest to."""
    return x.contiguous(memory_format=format_of(x))


def scale_like(x: Tensor) -> Tensor:
    """An empty (B, C) tensor of the type that statistics have."""
    return x.new_empty(x.shape[:2], dtype=torch.promote_types(x.dtype, torch.float32))


def results_like(x: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """Empty tensors of the shapes of the result and of the channels' scales."""
    return empty_in_format_of(x, *x.shape), scale_like(x)


def gradient_like(grad: Tensor, out: Tensor, scale: Tensor, slope: float) -> Tensor:
    """An empty tensor of the gradient's shape."""
    return empty_in_format_of(out, *out.shape)


def nothing(x: Tensor, slope: float) -> None:
    """What an operator in place returns."""


def remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep the result, which tells the normalised values: what came in need not stay."""
    ctx.slope = inputs[1]
    ctx.save_for_backward(*output)
    ctx.mark_non_differentiable(output[1])


def backward(operator: Any) -> Any:
    """What asks `operator` for the gradient to x."""

    def gradients(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, None]:
        return operator(grad, *ctx.saved_tensors, ctx.slope), None

    return gradients


if native.LOADED:
    torch.library.register_fake("lganet_fast::norm_act", results_like)
    torch.library.register_fake("lganet_fast::norm_act_", nothing)
    torch.library.register_fake("lganet_fast::norm_act_backward", gradient_like)

    def of_any_layout(x: Tensor, slope: float) -> tuple[Tensor, Tensor]:
        """The operator needs tensors without gaps."""
        return torch.ops.lganet_fast.norm_act(without_gaps(x), slope)

    def gradient_of_any_layout(grad: Tensor, out: Tensor, scale: Tensor, slope: float) -> Tensor:
        """Its gradient takes what comes in as the result lies."""
        grad = grad.contiguous(memory_format=format_of(out))
        return torch.ops.lganet_fast.norm_act_backward(grad, out, scale, slope)

    run_backward = native.operator("norm_act_backward", run=gradient_of_any_layout)
    run = native.operator("norm_act", backward(run_backward), remember, of_any_layout)


@torch.library.custom_op("lganet_fast_triton::norm_act", mutates_args=())
def fused(x: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """The operation by the Triton kernels."""
    kernels = triton.kernels("norm_act")
    moments, out = kernels.moments(x), empty_in_format_of(x, *x.shape)
    kernels.apply(x, moments, slope, out)
    return out, moments[1].clone()


@torch.library.custom_op("lganet_fast_triton::norm_act_", mutates_args=("x",))
def fused_(x: Tensor, slope: float) -> None:
    """The same in place."""
    kernels = triton.kernels("norm_act")
    kernels.apply(x, kernels.moments(x), slope, x)


@torch.library.custom_op("lganet_fast_triton::norm_act_backward", mutates_args=())
def fused_backward(grad: Tensor, out: Tensor, scale: Tensor, slope: float) -> Tensor:
    """The gradient to x."""
    to = empty_in_format_of(out, *out.shape)
    triton.kernels("norm_act").backward(grad, out, scale, slope, to)
    return to


def fused_of_any_layout(x: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """The same of a map with gaps too."""
    return fused(without_gaps(x), slope)


def fused_gradient(grad: Tensor, out: Tensor, scale: Tensor, slope: float) -> Tensor:
    """The gradient to x, of a gradient that lies otherwise too."""
    return fused_backward(grad.contiguous(memory_format=format_of(out)), out, scale, slope)


fused.register_fake(results_like)
fused.register_autograd(backward(fused_gradient), setup_context=remember)
fused_.register_fake(nothing)
fused_backward.register_fake(gradient_like)
fused_backward.register_autograd(no_double_backward)

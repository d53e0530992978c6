"""The convolution on CUDA with gradients: forward and both gradients, each by its own path.

Where all three are cuDNN's, PyTorch's own operator does it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import convolve_gradients, triton
from .convolve_on_cuda import (
    CUDNN,
    Work,
    by_cudnn,
    by_triton,
    fused,
    in_rows,
    natively,
    pack_for_triton,
    path,
    precision,
)
from .torch_func import no_double_backward, transforming

DIRECTIONS = ("convolve", "convolve_input_gradient", "convolve_weight_gradient")


def differentiable(
    x: Tensor, weight: Tensor, bias: Tensor, relu: bool, backend: str | None
) -> Tensor:
    """The convolution of one map, and its ReLU; all in the map's type, outside autocast."""
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    if transforming() or all(path(d, weight, x, backend) == CUDNN for d in DIRECTIONS):
        out = F.conv3d(x, weight, bias, padding=1)
        return out.relu_() if relu else out
    return convolve(x, weight, bias, relu, backend)


@torch.library.custom_op("lganet_fast_cuda::convolve", mutates_args=())
def convolve(x: Tensor, weight: Tensor, bias: Tensor, relu: bool, backend: str | None) -> Tensor:
    """The convolution by the path that is the fastest, or by the backend named."""
    entry, work, x = path("convolve", weight, x, backend), Work(weight, bias, relu), in_rows(x)
    if entry.path == "cudnn":
        return by_cudnn([x], work, entry.config == 1)[0]
    return (by_triton if entry.path == "triton" else natively)([x], work, entry.config)[0]


@convolve.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, relu: bool, backend: str | None) -> Tensor:
    size = (x.shape[0], weight.shape[0], *x.shape[2:])
    order = torch.channels_last_3d
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=order)


@torch.library.custom_op("lganet_fast_cuda::convolve_backward", mutates_args=())
def convolve_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    out: Tensor | None,
    backend: str | None,
    need_x: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients to x, weight and bias, empty where they are not needed.

    out: the ReLU's result, where there was one: the gradient counts where it is above zero.
    """
    empty = x.new_empty(0)
    to_x = input_gradient(grad, x, weight, out, backend) if need_x else empty
    if not need_weight and not need_bias:
        return to_x, empty, empty.clone()
    to_weight, to_bias = weight_gradient(grad, x, weight, out, backend)
    return to_x, to_weight, to_bias


@convolve_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    out: Tensor | None,
    backend: str | None,
    need_x: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    both = need_weight or need_bias
    return (
        torch.empty_like(x, memory_format=torch.channels_last_3d) if need_x else x.new_empty(0),
        weight.new_empty(weight.shape if both else (0,)),
        weight.new_empty(weight.shape[:1] if both else (0,)),
    )


def remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep what the gradients read."""
    x, weight, _, relu, ctx.backend = inputs
    ctx.save_for_backward(x, weight, output if relu else None)


def gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The requested gradients."""
    grad = grad.contiguous(memory_format=torch.channels_last_3d)
    needed = ctx.needs_input_grad[:3]
    found = convolve_backward(grad, *ctx.saved_tensors, ctx.backend, *needed)
    return *(g if need else None for g, need in zip(found, needed, strict=True)), None, None


convolve.register_autograd(gradients, setup_context=remember)
convolve_backward.register_autograd(no_double_backward)


def masked(grad: Tensor, out: Tensor | None) -> Tensor:
    """The gradient where the ReLU's result is above zero."""
    return grad if out is None else torch.ops.aten.threshold_backward(grad, out, 0)


def by_pytorch(
    grad: Tensor, x: Tensor, weight: Tensor, out: Tensor | None, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by cuDNN."""
    sizes, ones = [weight.shape[0]], [1, 1, 1]
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        masked(grad, out), x, weight, sizes, ones, ones, ones, False, [0, 0, 0], 1, wanted
    )
    return found


def input_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, out: Tensor | None, backend: str | None
) -> Tensor:
    """The gradient to x: the convolution of the gradient with the mirrored weights."""
    mirrored = weight.transpose(0, 1).flip(2, 3, 4)
    entry = path("convolve_input_gradient", mirrored, grad, backend)
    if entry.path == "cudnn":
        return by_pytorch(grad, x, weight, out, [True, False, False])[0]
    if entry.path == "native":
        return natively([grad], Work(mirrored, None), entry.config, out)[0]
    how = precision(x.dtype)
    packed = pack_for_triton(mirrored, x.dtype, how)
    return fused(
        [grad], packed, None, None, 1.0, False, None, None, out, False, x.shape[1], how,
        entry.config,
    )[0]  # fmt: skip


def weight_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, out: Tensor | None, backend: str | None
) -> tuple[Tensor, Tensor]:
    """The gradients to weight and bias, in the weight's type."""
    entry = path("convolve_weight_gradient", weight, x, backend)
    if entry.path == "cudnn":
        return by_pytorch(grad, x, weight, out, [False, True, True])[1:]
    how, x = precision(x.dtype), in_rows(x)
    if entry.path == "native":
        run = convolve_gradients.weight_gradient
        found = run([x], grad, precision=how, mask=out, config=entry.config)
    else:
        to_weight = triton.kernels("convolve").weight_gradient(
            [x], grad, out, config=entry.config, kind=how
        )
        found = to_weight, triton.kernels("epilogue").bias_gradient(grad, out)
    return found[0].to(weight), found[1].to(weight)

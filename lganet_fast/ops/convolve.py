"""3^3 convolution with padding, as all of the network's are."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native
from .dispatch import choose_backend


def slow_halves() -> frozenset[torch.dtype]:
    """Half types that PyTorch convolves here by plain loops, at a hundredth of the speed."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return frozenset((torch.bfloat16, torch.float16))
    fast = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported(),
    }
    return frozenset(dtype for dtype, there in fast.items() if not there)


SLOW_HALVES = slow_halves()


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    inplace: bool = False,
    relu: bool = False,
    backend: str | None = None,
) -> Tensor:
    """The convolution with bias that pads by one zero and so keeps the size.

    x: (B, inputs, H, W, D). weight: (outputs, inputs, 3, 3, 3). bias: (outputs,). Any float type,
    one for all but under autocast. Returns (B, outputs, H, W, D).
    relu: the ReLU of it.
    inplace: let the result take x's memory where no gradient is asked for; x must not be read then.
    Compiled for float32 alone, then channels_last_3d; half types are computed so, and rounded once,
    on processors without instructions for them. Every other type is PyTorch's own. Raises
    RuntimeError for shapes that do not fit.
    """
    here = choose_backend("convolve", x.device.type, backend).backend
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    if here == "native" and dtype in SLOW_HALVES:
        with torch.autocast("cpu", enabled=False):
            fresh = inplace or x.dtype != torch.float32
            x, weight, bias = (t.to(torch.float32) for t in (x, weight, bias))
            return convolve(x, weight, bias, fresh, relu).to(dtype)
    if here != "native" or not x.dtype == weight.dtype == dtype == torch.float32:
        out = F.conv3d(x, weight, bias, padding=1)
        return out.relu_() if relu else out
    x = x.contiguous(memory_format=torch.channels_last_3d)
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, bias))
    if inplace and not wanted and x.shape[1] == weight.shape[0]:
        torch.ops.lganet_fast.convolve_(x, weight, bias, relu)
        return x
    return torch.ops.lganet_fast.convolve(x, weight, bias, relu)


if native.LOADED:

    @torch.library.register_fake("lganet_fast::convolve")
    def _(x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        size = (x.shape[0], weight.shape[0], *x.shape[2:])
        return torch.empty(
            size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d
        )

    @torch.library.register_fake("lganet_fast::convolve_")
    def _(x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> None:
        return None

    @torch.library.register_fake("lganet_fast::convolve_weight_gradient")
    def _(grad: Tensor, x: Tensor) -> Tensor:
        return x.new_empty(grad.shape[1], x.shape[1], 3, 3, 3)

    def remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the gradients read."""
        ctx.relu = inputs[3]
        ctx.save_for_backward(*inputs[:2], *([output] if ctx.relu else []))

    def gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients that are asked for; that to x is a convolution with the mirrored kernel."""
        x, weight, *out = ctx.saved_tensors
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        if ctx.relu:
            grad = torch.ops.aten.threshold_backward(grad, out[0], 0)
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        to_weight = torch.ops.lganet_fast.convolve_weight_gradient(grad, x) if need_weight else None
        to_bias = grad.sum((0, 2, 3, 4)) if need_bias else None
        if not need_x:
            return None, to_weight, to_bias, None
        mirrored = weight.transpose(0, 1).flip(2, 3, 4)
        zeros = grad.new_zeros(x.shape[1])
        return (
            torch.ops.lganet_fast.convolve(grad, mirrored, zeros, False),
            to_weight,
            to_bias,
            None,
        )

    torch.library.register_autograd("lganet_fast::convolve", gradients, setup_context=remember)
    native.forbid_double_backward("convolve_weight_gradient")

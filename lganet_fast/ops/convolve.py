"""3^3 convolution with padding, as all of the network's are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native, reference
from .convolve_on_cuda import Norm, Work, convolve_on_cuda, number_type
from .convolve_training import differentiable
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
    x: Tensor | Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    inplace: bool = False,
    relu: bool = False,
    backend: str | None = None,
    *,
    norm: Norm | None = None,
    add: Tensor | None = None,
    times: Tensor | None = None,
) -> Tensor:
    """The convolution with bias that pads by one zero and so keeps the size.

    x: (B, inputs, H, W, D), or up to three maps whose channels are taken side by side. weight:
    (outputs, inputs, 3, 3, 3). bias: (outputs,). Any float type, one for all but under autocast.
    Returns (B, outputs, H, W, D).
    norm: what x is read through; the zeros around it are not.
    relu: the ReLU of it. add, times: (B, outputs, H, W, D), added to that, multiplied with that.
    inplace: let the result take x's memory where no gradient is asked for; x must not be read then.

    On the CPU compiled for float32 alone, then channels_last_3d; half types are computed so, and
    rounded once, on processors without instructions for them. On CUDA cuDNN's, or a kernel of ours
    where one was measured to be faster (`ops.tuned`). Every other type is PyTorch's own. Raises
    RuntimeError for shapes that do not fit.
    """
    maps = [x] if isinstance(x, Tensor) else list(x)
    if maps[0].is_cuda and not gradient_wanted(
        [*maps, weight, bias, *(norm or ())[:1], add, times]
    ):
        work = Work(weight, bias, relu, norm, add, times)
        return convolve_on_cuda(maps, work, backend)[0]
    x = maps[0] if len(maps) == 1 else torch.cat(maps, 1)
    if norm is not None:
        x, inplace = reference.normalised(x, *norm), True
    out = alone(x, weight, bias, inplace or len(maps) > 1, relu, backend)
    return changed(out, add, times)


@torch.no_grad()
def convolve_moments(
    x: Tensor | Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    norm: Norm | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """`convolve`, and the moments (2, B, outputs) by which its result is normalised as it is read.

    They are mean and 1 / sqrt(variance + 1e-5) of each channel of each volume, float32 at least.
    Without gradients.
    """
    maps = [x] if isinstance(x, Tensor) else list(x)
    if maps[0].is_cuda:
        work = Work(weight, bias, norm=norm, moments=True)
        out, found = convolve_on_cuda(maps, work, backend)
        assert found is not None
        return out, found
    out = convolve(maps, weight, bias, backend=backend, norm=norm)
    return out, reference.moments(out)


def gradient_wanted(tensors: Sequence[Tensor | None]) -> bool:
    """Whether a gradient to any of them is asked for."""
    given = (t for t in tensors if t is not None)
    return torch.is_grad_enabled() and any(t.requires_grad for t in given)


def changed(out: Tensor, add: Tensor | None, times: Tensor | None) -> Tensor:
    """(out + add) * times, in the memory of `out` where no gradient needs it."""
    fresh = torch.is_grad_enabled()
    if add is not None:
        out = out + add if fresh else out.add_(add)
    if times is not None:
        out = out * times if fresh else out.mul_(times)
    return out


def alone(
    x: Tensor, weight: Tensor, bias: Tensor, inplace: bool, relu: bool, backend: str | None
) -> Tensor:
    """The convolution of one map, and its ReLU: on the CPU, or with gradients."""
    if x.is_cuda:
        x = x.to(number_type([x]))
        with torch.autocast("cuda", enabled=False):
            return differentiable(x, weight, bias, relu, backend)
    here = choose_backend("convolve", x.device.type, backend).backend
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    if here == "native" and dtype in SLOW_HALVES:
        with torch.autocast("cpu", enabled=False):
            fresh = inplace or x.dtype != torch.float32
            x, weight, bias = (t.to(torch.float32) for t in (x, weight, bias))
            return alone(x, weight, bias, fresh, relu, backend).to(dtype)
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

"""3^3 convolution with padding, like all convolutions of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import check, native, reference
from .convolve_on_cuda import Norm, Work, convolve_on_cuda, number_type
from .convolve_training import differentiable
from .dispatch import choose_backend
from .torch_func import transforming


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
    (outputs, inputs, 3, 3, 3). bias: (outputs,). Maps of one float type, which is computed in
    unless it is narrower than float64 under autocast; all else of any float type.
    Returns (B, outputs, H, W, D) in the type computed in. Only the batch may be empty.
    norm: applied to x when it is read; not to the zeros around it.
    relu: the ReLU of it. add, times: (B, outputs, H, W, D), added to that, multiplied with that.
    inplace: let the result reuse x's memory if no gradient is requested; x must not be read then.

    On the CPU compiled for float32 alone, then channels_last_3d; half types are computed so, and
    rounded once, on processors without instructions for them. On CUDA cuDNN's, or a kernel of ours
    where one was measured to be faster (`ops.tuned`). Every other type is PyTorch's own. On the
    CPU and in float32 a number that is not finite spoils results up to 5 voxels from it: they are
    computed in tiles. Raises ValueError or TypeError naming the invalid argument.
    """
    maps = several(x)
    check_arguments(maps, weight, bias, norm, add, times)
    check.flag("inplace", inplace)
    check.flag("relu", relu)
    if maps[0].is_cuda and not gradient_wanted(
        [*maps, weight, bias, *(norm or ())[:1], add, times]
    ):
        work = Work(weight, bias, relu, norm, add, times)
        return convolve_on_cuda(maps, work, backend)[0]
    x = maps[0] if len(maps) == 1 else torch.cat(list(maps), 1)
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

    They are mean and 1 / sqrt(variance + 1e-5) of each channel of each volume, at least float32.
    Without gradients. Raises as `convolve` does.
    """
    maps = several(x)
    check_arguments(maps, weight, bias, norm)
    if maps[0].is_cuda and not transforming():
        work = Work(weight, bias, norm=norm, moments=True)
        out, found = convolve_on_cuda(maps, work, backend)
        assert found is not None
        return out, found
    out = convolve(maps, weight, bias, backend=backend, norm=norm)
    return out, reference.moments(out)


def several(x: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    """The maps, one perhaps; what is no map is refused later."""
    return x if isinstance(x, list | tuple) else [x]  # type: ignore[list-item]


def check_arguments(
    maps: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    norm: Norm | None,
    add: Tensor | None = None,
    times: Tensor | None = None,
) -> None:
    """Check the arguments of `convolve`."""
    check.several("x", maps, (1, 2, 3))
    first = maps[0]
    names = ("x",) if len(maps) == 1 else ("x[0]", "x[1]", "x[2]")
    check.shape(names[0], first, ("B", "inputs", "H", "W", "D"))
    check.floating(names[0], first)
    batch, inputs, *size = first.shape
    for k in range(1, len(maps)):
        check.shape(names[k], maps[k], (batch, "inputs", *size))
        check.floating(names[k], maps[k], (first.dtype,))
        check.together(names[k], maps[k], names[0], first)
        inputs += maps[k].shape[1]
    check.shape("weight", weight, ("outputs", inputs, 3, 3, 3))
    outputs = weight.shape[0]
    check.shape("bias", bias, (outputs,))
    for name, like in (("add", add), ("times", times)):
        if like is not None:
            check.shape(name, like, (batch, outputs, *size))
            beside(name, like, names[0], first)
    if not weight.device == bias.device == first.device or weight.dtype != bias.dtype:
        beside("weight", weight, names[0], first)
        beside("bias", bias, names[0], first)
    elif weight.dtype != first.dtype:
        check.floating("weight", weight)
    if 0 in (inputs, outputs, *size):
        raise ValueError(
            f"only the batch may be empty, got {inputs} inputs, {outputs} outputs, size {size}"
        )
    if norm is not None:
        check.norm("norm", norm, (batch, inputs), first)


def beside(name: str, x: Tensor, first_name: str, first: Tensor) -> None:
    """Require any float type, and the device of the first map."""
    if x.dtype != first.dtype:
        check.floating(name, x)
    check.together(name, x, first_name, first)


def gradient_wanted(tensors: Sequence[Tensor | None]) -> bool:
    """Whether a gradient to any of them is asked for, or may be."""
    given = (t for t in tensors if t is not None)
    return transforming() or (torch.is_grad_enabled() and any(t.requires_grad for t in given))


def changed(out: Tensor, add: Tensor | None, times: Tensor | None) -> Tensor:
    """(out + add) * times, in the memory of `out` where no gradient needs it."""
    fresh = torch.is_grad_enabled() or transforming()
    if add is not None:
        out = out + add.to(out.dtype) if fresh else out.add_(add)
    if times is not None:
        out = out * times.to(out.dtype) if fresh else out.mul_(times)
    return out


def alone(
    x: Tensor, weight: Tensor, bias: Tensor, inplace: bool, relu: bool, backend: str | None
) -> Tensor:
    """The convolution of one map, and its ReLU: on the CPU, or with gradients."""
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        dtype = number_type([x])
        with torch.autocast(device, enabled=False):
            return computed_in(dtype, device, x, weight, bias, inplace, relu, backend)
    return computed_in(x.dtype, device, x, weight, bias, inplace, relu, backend)


def computed_in(
    dtype: torch.dtype,
    device: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    inplace: bool,
    relu: bool,
    backend: str | None,
) -> Tensor:
    """The same in a type, outside autocast."""
    if device == "cuda":
        return differentiable(x.to(dtype), weight, bias, relu, backend)
    compiled = choose_backend("convolve", device, backend).backend == "native"
    wide = torch.float32 if compiled and dtype in SLOW_HALVES else dtype
    if dtype == torch.bfloat16 and x.shape[2] == 2:
        wide = torch.float32  # oneDNN's gradient to weights holds what nobody has written there
    if not x.dtype == weight.dtype == bias.dtype == wide:
        inplace = inplace or x.dtype != wide
        x, weight, bias = x.to(wide), weight.to(wide), bias.to(wide)
    if not compiled or wide != torch.float32:
        out = F.conv3d(x, weight, bias, padding=1)
        out = out.relu_() if relu else out
    elif inplace and x.shape[1] == weight.shape[0] and not gradient_wanted([x, weight, bias]):
        out = x.contiguous(memory_format=torch.channels_last_3d)
        torch.ops.lganet_fast.convolve_(out, weight, bias.contiguous(), relu)
    else:
        out = run(x, weight, bias, relu)
    return out if wide == dtype else out.to(dtype)


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
        """The requested gradients; that to x is a convolution with the mirrored kernel."""
        x, weight, *out = ctx.saved_tensors
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        if ctx.relu:
            grad = torch.ops.aten.threshold_backward(grad, out[0], 0)
        to_x = None
        if need_x:
            mirrored = weight.transpose(0, 1).flip(2, 3, 4)
            to_x = run(grad, mirrored, grad.new_zeros(x.shape[1]), False)
        to_weight = run_weight_gradient(grad, x) if need_weight else None
        return to_x, to_weight, grad.sum((0, 2, 3, 4)) if need_bias else None, None

    run = native.operator("convolve", gradients, remember)
    run_weight_gradient = native.operator("convolve_weight_gradient")

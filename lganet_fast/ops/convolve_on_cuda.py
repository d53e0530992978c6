"""The convolution on CUDA: by which path, and what comes before and after it in as few passes.

Three paths compute the same: cuDNN's convolution with one Triton pass before it (several maps side
by side, the norm they are read through) and one after it (bias, ReLU, sum, product, moments), the
Triton kernel and the compiled one, which do all of that as they read and write. "auto" takes what
was measured to be the fastest (`ops.tuned`), and cuDNN where nothing was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from . import convolve_maps, reference, triton, tuned
from .derived import derived
from .dispatch import choose_backend, refusals, requested_backend

CUDNN = tuned.Entry("cudnn", 0, 0.0)
PATHS = {"reference": "cudnn", "native": "native", "triton": "triton"}


class Norm(NamedTuple):
    """How a map is to be read: leaky((x - shift) * scale), channel by channel.

    moments: (2, B, C) at least float32, the shift above the scale; of an instance norm these are
    mean and 1 / sqrt(variance + 1e-5). slope: of the leaky ReLU, in (0, 1]; 1 is none.
    """

    moments: Tensor
    slope: float = 1.0


@dataclass(frozen=True)
class Work:
    """What one convolution is asked for, beside the maps; see `ops.convolve`."""

    weight: Tensor
    bias: Tensor | None
    relu: bool = False
    norm: Norm | None = None
    add: Tensor | None = None
    times: Tensor | None = None
    moments: bool = False


def number_type(maps: Sequence[Tensor]) -> torch.dtype:
    """The type to compute in: the maps', or autocast's, which leaves float64 as it is."""
    dtype, device = maps[0].dtype, maps[0].device.type
    if dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return dtype


def precision(dtype: torch.dtype) -> str:
    """How numbers are multiplied, as `ops.tuned` names it: float32 in TF32 where PyTorch may."""
    if dtype == torch.float32 and torch.backends.cudnn.conv.fp32_precision == "tf32":  # type: ignore[attr-defined]
        return "tf32"
    return str(dtype).removeprefix("torch.")


def path(operation: str, weight: Tensor, x: Tensor, backend: str | None = None) -> tuned.Entry:
    """The path of one of `tuned.OPERATIONS`, and its configuration.

    x: a map in the type to compute in. Raises RuntimeError if a backend that is asked for by
    name cannot run it.
    """
    asked = requested_backend(backend)
    if asked != "auto":
        choice = choose_backend("convolve", "cuda", asked, dtype=x.dtype)
        return tuned.Entry(PATHS[choice.backend], 0, 0.0)
    voxels = x.shape[0] * x.shape[2:].numel()
    if not voxels or x.dtype == torch.float64 or torch.compiler.is_compiling():
        return CUDNN
    device = capability(x.device.index)
    if device is None:
        return CUDNN
    outputs, inputs = weight.shape[:2]
    found = tuned.winner(operation, inputs, outputs, precision(x.dtype), voxels, device)
    return found if found is not None and runs(found, x.dtype) else CUDNN


@cache
def capability(index: int | None) -> tuple[int, int] | None:
    """The compute capability of a device; None if there is none, and calls are only traced."""
    return torch.cuda.get_device_capability(index) if torch.cuda.is_available() else None


def runs(entry: tuned.Entry, dtype: torch.dtype) -> bool:
    """Whether the path is there: Triton may be missing, or the compiled kernels."""
    names = [name for name, path in PATHS.items() if path == entry.path]
    return names[0] == "reference" or names[0] not in refusals("convolve", "cuda", dtype=dtype)


def convolve_on_cuda(
    maps: Sequence[Tensor], work: Work, backend: str | None
) -> tuple[Tensor, Tensor | None]:
    """The convolution of maps side by side, and its moments where they are asked for.

    Without gradients.
    """
    dtype = number_type(maps)
    with torch.autocast("cuda", enabled=False):
        maps = [x.to(dtype) for x in maps]
        entry = path("convolve", work.weight, maps[0], backend)
        if entry.path == "cudnn":
            return by_cudnn(maps, work, entry.config == 1)
        maps = [in_rows(x) for x in maps]
        work = replace(work, add=in_rows(work.add), times=in_rows(work.times))
        found = (by_triton if entry.path == "triton" else natively)(maps, work, entry.config)
        return found[0], (found[1] if work.moments else None)


@overload
def in_rows(x: Tensor) -> Tensor: ...
@overload
def in_rows(x: None) -> None: ...
def in_rows(x: Tensor | None) -> Tensor | None:
    """A map as our kernels read it, copied only where it lies otherwise.

    Channels lie innermost and voxels one after another: channels_last_3d, or some of its channels.
    """
    if x is None or x.numel() == 0:
        return x
    step, fits = x.stride(4), x.shape[1] == 1 or x.stride(1) == 1
    for axis in (4, 3, 2, 0):
        fits = fits and (x.shape[axis] == 1 or x.stride(axis) == step)
        step *= x.shape[axis]
    return x if fits else x.contiguous(memory_format=torch.channels_last_3d)


def cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in another type, as cuDNN reads it."""
    return weight.to(dtype, memory_format=torch.channels_last_3d)


def by_cudnn(maps: Sequence[Tensor], work: Work, measure: bool) -> tuple[Tensor, Tensor | None]:
    """By cuDNN, with a pass before and one after it; `measure`: it may try its algorithms first."""
    x = maps[0] if len(maps) == 1 else torch.cat(list(maps), 1)
    if work.norm is not None:
        x = through(x, work.norm, x is not maps[0])
    weight = work.weight
    if weight.dtype != x.dtype:
        weight = derived(cast, weight, dtype=x.dtype)
    if measure:
        repeat = torch.are_deterministic_algorithms_enabled()
        tf32 = precision(x.dtype) == "tf32"
        ones = [1, 1, 1]
        out = torch.ops.aten.cudnn_convolution(x, weight, ones, ones, ones, 1, True, repeat, tf32)
    else:
        out = F.conv3d(x, weight, padding=1)
    if swept(out):  # of contiguous maps and weights, or without cuDNN, it lies otherwise
        out, work = in_rows(out), replace(work, add=in_rows(work.add), times=in_rows(work.times))
    return finished(out, work)


def swept(x: Tensor) -> bool:
    """Whether Triton's passes over a map run here: in float64 they do not."""
    return triton.refusal("norm_act", x.device.type, dtype=x.dtype) is None


def through(x: Tensor, norm: Norm, inplace: bool = False) -> Tensor:
    """A map as it is read through a norm, in its own memory where that is free."""
    if not swept(x):
        return reference.normalised(x, *norm)
    rows = in_rows(x)
    out = rows if inplace or rows is not x else torch.empty_like(x)
    normalise(rows, norm.moments, norm.slope, out)
    return out


def finished(out: Tensor, work: Work) -> tuple[Tensor, Tensor | None]:
    """What comes after a convolution without bias, in its result's memory; and the moments."""
    if swept(out):
        found = finish(out, work.bias, work.relu, work.add, work.times, work.moments)
        return out, (found if work.moments else None)
    if work.bias is not None:
        out += work.bias.to(out.dtype)[:, None, None, None]
    out = out.relu_() if work.relu else out
    out = out if work.add is None else out.add_(work.add)
    out = out if work.times is None else out.mul_(work.times)
    return out, (reference.moments(out) if work.moments else None)


@torch.library.custom_op("lganet_fast_triton::finish", mutates_args=("y",))
def finish(
    y: Tensor,
    bias: Tensor | None,
    relu: bool,
    add: Tensor | None,
    times: Tensor | None,
    moments: bool,
) -> Tensor:
    """(relu(y + bias) + add) * times in place; its moments, empty where they are not asked for."""
    found = triton.kernels("epilogue").epilogue(y, bias, relu, add, times, moments)
    return y.new_empty(0, dtype=torch.float32) if found is None else found


@finish.register_fake
def _(
    y: Tensor,
    bias: Tensor | None,
    relu: bool,
    add: Tensor | None,
    times: Tensor | None,
    moments: bool,
) -> Tensor:
    return y.new_empty((2, *y.shape[:2]) if moments else (0,), dtype=torch.float32)


@torch.library.custom_op("lganet_fast_triton::normalise", mutates_args=("out",))
def normalise(x: Tensor, moments: Tensor, slope: float, out: Tensor) -> None:
    """Fill `out`, which may be x, with leaky((x - shift) * scale, slope)."""
    triton.kernels("norm_act").apply(x, moments, slope, out)


@normalise.register_fake
def _(x: Tensor, moments: Tensor, slope: float, out: Tensor) -> None:
    return None


def by_triton(maps: Sequence[Tensor], work: Work, config: int) -> tuple[Tensor, Tensor]:
    """By the Triton kernel."""
    x, how = maps[0], precision(maps[0].dtype)
    packed = derived(pack_for_triton, work.weight, dtype=x.dtype, precision=how)
    moments, slope = work.norm or (None, 1.0)
    return fused(
        maps, packed, work.bias, moments, slope, work.relu, work.add, work.times, None,
        work.moments, work.weight.shape[0], how, config,
    )  # fmt: skip


def pack_for_triton(weight: Tensor, dtype: torch.dtype, precision: str) -> Tensor:
    """The weights in the order in which the Triton kernel reads them."""
    packed: Tensor = triton.kernels("convolve").pack(weight, dtype, precision)
    return packed


@torch.library.custom_op("lganet_fast_triton::convolve", mutates_args=())
def fused(
    maps: Sequence[Tensor],
    packed: Tensor,
    bias: Tensor | None,
    norm: Tensor | None,
    slope: float,
    relu: bool,
    add: Tensor | None,
    times: Tensor | None,
    mask: Tensor | None,
    moments: bool,
    outputs: int,
    precision: str,
    config: int,
    wide: bool = False,
) -> tuple[Tensor, Tensor]:
    """The convolution by the Triton kernel, and its moments, empty where they are not asked for.

    wide: the result is stored in float32, whatever the maps' type.
    """
    room = {"out": result_of(maps[0], outputs, torch.float32)} if wide else {}
    out, found = triton.kernels("convolve").forward(
        maps, packed, bias, norm, slope, relu, add, times, moments, outputs, config,
        mask=mask, kind=precision, **room,
    )  # fmt: skip
    return out, (out.new_empty(0, dtype=torch.float32) if found is None else found)


@fused.register_fake
def result_like(
    maps: Sequence[Tensor],
    packed: Tensor,
    bias: Tensor | None,
    norm: Tensor | None,
    slope: float,
    relu: bool,
    add: Tensor | None,
    times: Tensor | None,
    mask: Tensor | None,
    moments: bool,
    outputs: int,
    precision: str,
    config: int,
    wide: bool = False,
) -> tuple[Tensor, Tensor]:
    """Empty tensors of the results' shapes."""
    out = result_of(maps[0], outputs, torch.float32 if wide else maps[0].dtype)
    shape = (2, len(out), outputs) if moments else (0,)
    return out, out.new_empty(shape, dtype=torch.float32)


def result_of(x: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
    """An empty map of a type and so many channels, as large as x."""
    size = (len(x), outputs, *x.shape[2:])
    order = torch.channels_last_3d
    return torch.empty(size, dtype=dtype, device=x.device, memory_format=order)


def natively(
    maps: Sequence[Tensor], work: Work, config: int, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """By the compiled kernel; mask: x counts where it is above zero."""
    how, outputs = precision(maps[0].dtype), work.weight.shape[0]
    moments, slope = work.norm or (None, 1.0)
    if work.bias is None:
        bias = work.weight.new_zeros(outputs, dtype=torch.float32)
    else:
        bias = work.bias.float()
    return convolve_maps.forward(
        maps,
        derived(convolve_maps.pack, work.weight, precision=how),
        bias,
        outputs=outputs,
        precision=how,
        norm=moments,
        slope=slope,
        relu=work.relu,
        add=work.add,
        times=work.times,
        mask=mask,
        moments=work.moments,
        config=config,
    )

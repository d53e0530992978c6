"""Launches the convolution: its maps, its packed weights, its configurations.

A launch gets its configuration as an index into `configs` or `weight_configs` and times nothing, so
it can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .convolve_configs import Config, WeightConfig, configs, weight_configs
from .convolve_kernels import convolve_kernel, weight_kernel
from .launch import pitch, run, wide
from .moments import join

__all__ = [
    "Config",
    "WeightConfig",
    "configs",
    "forward",
    "kind_of",
    "mirrored",
    "pack",
    "weight_configs",
    "weight_gradient",
]


def kind_of(dtype: torch.dtype) -> str:
    """The kind of products for a type: "float16", "bfloat16", "tf32" or "float32".

    float32 is "tf32" where torch.backends.cudnn allows it for convolutions, else "float32": three
    TF32 products or full float32. Raises TypeError for other types.
    """
    if dtype in (torch.float16, torch.bfloat16):
        return str(dtype).removeprefix("torch.")
    if dtype != torch.float32:
        raise TypeError(f"a convolution takes float16, bfloat16 or float32, got {dtype}")
    return "tf32" if torch.backends.cudnn.conv.fp32_precision == "tf32" else "float32"


def pack(weight: Tensor, dtype: torch.dtype, precision: str | None = None) -> Tensor:
    """(9, outputs, 3, inputs) of the type, from (outputs, inputs, 3, 3, 3): (dh, dw), o, dd, c.

    precision: "tf32" rounds float32 to nearest TF32, which the device would truncate; by default
    that of `kind_of`.
    """
    outputs, inputs = weight.shape[:2]
    packed = weight.detach().permute(2, 3, 0, 4, 1).reshape(9, outputs, 3, inputs)
    packed = packed.to(dtype).clone(memory_format=torch.contiguous_format)
    if dtype == torch.float32 and (precision or kind_of(dtype)) == "tf32":
        packed.view(torch.int32).add_(0x1000).bitwise_and_(~0x1FFF)
    return packed


def mirrored(weight: Tensor) -> Tensor:
    """The weight whose convolution with a result's gradient is the gradient to the input."""
    return weight.detach().transpose(0, 1).flip(2, 3, 4)


def chosen(found: Sequence[Any], config: Any) -> Any:
    """The configuration itself, or the one at an index of the list."""
    return found[config] if isinstance(config, int) else config


def capability(x: Tensor) -> tuple[int, int]:
    """The compute capability of a tensor's device; the oldest one, (8, 0), for a CPU tensor."""
    return torch.cuda.get_device_capability(x.device) if x.is_cuda else (8, 0)


def forward(
    maps: Sequence[Tensor],
    packed: Tensor,
    bias: Tensor | None = None,
    norm: Tensor | None = None,
    slope: float = 1.0,
    relu: bool = False,
    add: Tensor | None = None,
    times: Tensor | None = None,
    moments: bool = False,
    outputs: int | None = None,
    config: int | Config = 0,
    *,
    mask: Tensor | None = None,
    kind: str | None = None,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return y = (relu(conv3(cat of f(maps)) + bias) + add) * times, and the moments of y.

    maps: 1 to 3 of (B, C, H, W, D), one of float16, bfloat16 and float32; these, mask, add, times
    and out are channels_last_3d or some channels of such a map. packed: from `pack`, for all their
    channels. bias: (outputs,), any of these types. norm: (2, B, inputs) in float32, shift and
    scale: f(x) = leaky((x - shift) * scale, slope), and zero outside the volume. mask: of the shape
    of the map, with one map only: f(x) = x where mask > 0, else 0. kind: of products, by default
    `kind_of` the type. config: an index into `configs`, or one of them.
    Returns y (B, outputs, H, W, D) in the maps' type, in `out` if given, and (2, B, outputs) in
    float32, mean and 1 / sqrt(var + 1e-5) of the stored values, or None. Raises TypeError or
    ValueError for invalid maps.
    """
    x = maps[0]
    kind = kind or kind_of(x.dtype)
    outputs = packed.shape[1] if outputs is None else outputs
    shape = (x.shape[0], outputs, *x.shape[2:])
    if out is None:
        order = torch.channels_last_3d
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=order)
    check(maps, packed, mask, add, times, out, shape)
    channels = [m.shape[1] for m in maps]
    if not out.numel():
        empty = x.new_zeros((2, *shape[:2]), dtype=torch.float32) if moments else None
        return out, empty
    inputs = sum(channels)
    how = chosen(configs(inputs, outputs, kind, capability(x)), config)
    depth = x.shape[4]
    rows = x.shape[2] * x.shape[3] * -(-depth // how.group)
    tiles = -(-rows // how.rows)
    parts = None
    if moments:
        parts = torch.empty(x.shape[0], tiles, 3, outputs, dtype=torch.float32, device=x.device)
    others = [out if other is None else other for other in (mask, add, times)]
    run(
        convolve_kernel,
        (tiles * -(-outputs // how.outputs), x.shape[0]),
        packed=packed,
        maps=tuple(maps),
        mask=mask,
        norm=norm,
        bias=bias,
        add=add,
        times=times,
        out=out,
        parts=parts,
        sizes=tuple(x.shape[2:]),
        slope=slope,
        SOURCES=len(maps),
        C=tuple(channels),
        FIRST=tuple(sum(channels[:i]) for i in range(len(maps))),
        CHANNELS=inputs,
        OUTPUTS=outputs,
        PITCHES=tuple(pitch(m) for m in maps),
        OTHERS=tuple(pitch(other) for other in (*others, out)),
        RELU=relu,
        WIDE=wide(*maps, *others, out, batch=True),
        **how.arguments(),
    )
    return out, None if parts is None else join(parts)


def check(
    maps: Sequence[Tensor],
    packed: Tensor,
    mask: Tensor | None,
    add: Tensor | None,
    times: Tensor | None,
    out: Tensor,
    shape: tuple[int, ...],
) -> None:
    """Raise TypeError or ValueError for invalid maps."""
    first = maps[0]
    if not 1 <= len(maps) <= 3:
        raise ValueError(f"a convolution takes 1 to 3 maps, got {len(maps)}")
    for x in maps:
        if x.dtype != first.dtype or (x.shape[0], *x.shape[2:]) != (shape[0], *shape[2:]):
            raise ValueError("all maps must have one type, one batch and one size")
    wanted = (9, shape[1], 3, sum(x.shape[1] for x in maps))
    if tuple(packed.shape) != wanted:
        raise ValueError(f"packed weights must be {wanted}, got {tuple(packed.shape)}")
    if packed.dtype != first.dtype:
        raise TypeError(f"weights must be of the maps' type {first.dtype}, got {packed.dtype}")
    if mask is not None and (len(maps) > 1 or mask.shape != first.shape):
        raise ValueError("a mask must have the shape of the one map")
    for name, x in (("add", add), ("times", times), ("out", out)):
        if x is not None and tuple(x.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(x.shape)}")


def weight_gradient(
    maps: Sequence[Tensor],
    grad: Tensor,
    mask: Tensor | None = None,
    norm: Tensor | None = None,
    slope: float = 1.0,
    config: int | WeightConfig = 0,
    *,
    kind: str | None = None,
) -> Tensor:
    """The gradient to the weight, (outputs, inputs, 3, 3, 3) in float32.

    maps, norm, slope, kind: as in `forward`. grad: (B, outputs, H, W, D) of their type. mask: of
    the shape of grad, which counts only where mask > 0. Parts of the voxels are summed in a fixed
    order. Raises ValueError for maps whose memory format `forward` does not accept. The gradient to
    the bias is `epilogue.bias_gradient`.
    """
    inputs, outputs = sum(x.shape[1] for x in maps), grad.shape[1]
    kind = kind or kind_of(grad.dtype)
    how = chosen(weight_configs(inputs, outputs, kind, capability(grad)), config)
    other = grad if mask is None else mask
    voxels, first, found = grad.shape[2:].numel(), 0, []
    for x in maps:
        channels = x.shape[1]
        splits = how.splits(channels, outputs, grad.shape[0], voxels)
        span = -(-voxels // (splits * how.voxels)) * how.voxels
        splits = -(-voxels // span) if voxels else 0
        shape = (grad.shape[0] * splits, 27, channels, outputs)
        parts = torch.empty(shape, dtype=torch.float32, device=grad.device)
        if parts.numel():
            run(
                weight_kernel,
                (how.programs(channels, outputs), grad.shape[0] * splits),
                x=x,
                grad=grad,
                mask=mask,
                norm=norm,
                parts=parts,
                sizes=tuple(grad.shape[2:]),
                slope=slope,
                span=span,
                splits=splits,
                C=channels,
                FIRST=first,
                CHANNELS=inputs,
                OUTPUTS=outputs,
                PITCHES=(pitch(x), pitch(grad), pitch(other)),
                WIDE=wide(x, grad, other, batch=True),
                **how.arguments(),
            )
        total = parts.sum(0).view(3, 3, 3, channels, outputs)
        found.append(total.permute(4, 3, 0, 1, 2))
        first += channels
    return torch.cat(found, 1).contiguous()

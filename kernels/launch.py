"""Launching kernels: the choice of a configuration, and the width of offsets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import triton
from torch import Tensor

from lganet_fast.runtime.capture import ALONE

OFFSETS_32 = 2**31  # from this many numbers on, offsets take 64 bits


def launch(kernel: Any, programs: Any, **arguments: Any) -> None:
    """Run an autotuned kernel on the device of its tensors.

    programs(meta): the number of programs of a configuration. Only one thread at a time: a kernel
    stores its arguments while it times, and must not time during a capture.

    The configuration affects the order of sums, so with deterministic algorithms the first one that
    fits is used.
    """

    def grid(meta: Mapping[str, Any]) -> tuple[int]:
        return (programs(meta),)

    first = next(x for x in arguments.values() if isinstance(x, Tensor))
    with ALONE, torch.cuda.device_of(first):
        if torch.are_deterministic_algorithms_enabled():
            config = kernel.early_config_prune(kernel.configs, {}, **arguments)[0]
            kernel.fn[grid](**arguments, **config.all_kwargs())
        else:
            kernel[grid](**arguments)


def run(kernel: Any, grid: tuple[int, ...], **arguments: Any) -> None:
    """Run a kernel without tuning on the device of its tensors."""
    with torch.cuda.device_of(next(x for x in arguments.values() if isinstance(x, Tensor))):
        kernel[grid](**arguments)


def pitch(x: Tensor, name: str = "a map") -> int:
    """The stride between voxels of x (B, C, H, W, D).

    Raises ValueError unless the map is channels_last_3d, or some channels of such a map.
    """
    channels, (height, width, depth) = x.shape[1], x.shape[2:]
    voxels = (height * width * depth, width * depth, depth, 1)
    sides = (x.shape[0], height, width, depth)
    steps = [x.stride(axis) for axis in (0, 2, 3, 4)]
    known = [(n, step) for n, side, step in zip(voxels, sides, steps, strict=True) if side > 1]
    n, step = known[-1] if known else (1, channels)
    pitch = step // n
    inner = channels == 1 or x.stride(1) == 1
    if not inner or pitch < channels or any(step != n * pitch for n, step in known):
        raise ValueError(f"{name} must be channels_last_3d, got strides {x.stride()}")
    return pitch


def wide(*tensors: Tensor, batch: bool = False) -> bool:
    """Whether offsets inside one item of (B, ...), or inside the whole batch, can reach 2^31.

    For the tensor with its strides, and without gaps, as results are.
    """
    first = 0 if batch else 1

    def last(x: Tensor) -> int:
        steps = zip(x.shape[first:], x.stride()[first:], strict=True)
        return max(sum((n - 1) * step for n, step in steps), x.shape[first:].numel())

    return any(last(x) >= OFFSETS_32 for x in tensors)


def padded(width: int, least: int = 1) -> int:
    """The length of a block that holds `width` numbers: a power of two."""
    return max(triton.next_power_of_2(width), least)

"""The memory format of results: compiled operators and kernels return that of their input."""

from __future__ import annotations

import torch
from torch import Tensor


def format_of(x: Tensor) -> torch.memory_format:
    """The memory format of a map (B, C, H, W, D), or the nearest."""
    last = x.stride(1) == 1 and x.shape[1] > 1
    return torch.channels_last_3d if last else torch.contiguous_format


def empty_in_format_of(x: Tensor, *size: int) -> Tensor:
    """An empty map without gaps of a size, of the type and on the device of x."""
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=format_of(x))


def gradient_shapes(*wanted: tuple[Tensor, bool]) -> tuple[Tensor, ...]:
    """Results of a compiled backward: a gradient like each tensor, empty if not requested."""
    return tuple(
        empty_in_format_of(x, *x.shape) if asked else x.new_empty(0) for x, asked in wanted
    )

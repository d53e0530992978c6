"""Compose two flows into one."""

from __future__ import annotations

from torch import Tensor

from . import check, reference
from .dispatch import choose_backend


def compose(first: Tensor, second: Tensor, backend: str | None = None) -> Tensor:
    """The flow second + warp(first, second): it warps as `first` and then `second` do.

    first, second: (B, 3, H, W, D), float32 or float64, in voxels. Returns the same shape.
    `first` counts as zero outside the volume. Paper 2.5.
    Raises ValueError or TypeError naming the argument that does not fit.
    """
    check.flow("second", second)
    check.flow("first", first)
    check.shape("first", first, second.shape)
    check.together("first", first, "second", second)
    choose_backend("compose", second.device.type, backend)
    return reference.compose(first, second)

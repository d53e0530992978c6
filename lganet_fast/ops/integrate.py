"""Integrate a stationary velocity field by scaling and squaring."""

from __future__ import annotations

from torch import Tensor

from . import check, reference
from .dispatch import choose_backend


def integrate(velocity: Tensor, steps: int = 7, backend: str | None = None) -> Tensor:
    """exp(velocity): u = velocity / 2^steps, then `steps` times u <- u + warp(u, u).

    velocity: (B, 3, H, W, D), float32 or float64, in voxels. Returns the flow, the same shape.
    Source: the diffeomorphic layers of paper 2.5 (Arsigny et al., 2006).
    Raises ValueError or TypeError naming the argument that does not fit.
    """
    check.flow("velocity", velocity)
    check.at_least("steps", steps, 0)
    choose_backend("integrate", velocity.device.type, backend)
    return reference.integrate(velocity, steps)

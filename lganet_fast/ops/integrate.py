"""Integrate a stationary velocity field by scaling and squaring."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import check, native, reference
from .dispatch import choose_backend
from .memory_format import empty_in_format_of


def integrate(velocity: Tensor, steps: int = 7, backend: str | None = None) -> Tensor:
    """exp(velocity): u = velocity / 2^steps, then `steps` times u <- u + warp(u, u).

    velocity: (B, 3, H, W, D), float32 or float64, in voxels. Returns the flow, the same shape.
    Source: the diffeomorphic layers of paper 2.5 (Arsigny et al., 2006).
    Raises ValueError or TypeError naming the invalid argument.
    """
    check.flow("velocity", velocity)
    check.at_least("steps", steps, 0)
    if choose_backend("integrate", velocity.device.type, backend).backend == "reference":
        return reference.integrate(velocity, steps)
    out: Tensor = run(velocity, steps)
    return out


if native.LOADED:

    @torch.library.register_fake("lganet_fast::integrate")
    def _(velocity: Tensor, steps: int) -> Tensor:
        return empty_in_format_of(velocity, *velocity.shape)

    @torch.library.register_fake("lganet_fast::integrate_backward")
    def _(grad: Tensor, velocity: Tensor, steps: int, deterministic: bool = False) -> Tensor:
        return empty_in_format_of(velocity, *velocity.shape)

    def remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the velocity alone: the backward computes the fields in between again."""
        velocity, ctx.steps = inputs
        ctx.save_for_backward(velocity)

    def gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient to the velocity."""
        (velocity,) = ctx.saved_tensors
        how = (ctx.steps, native.deterministic())
        return run_backward(grad, velocity, *how), None

    run = native.operator("integrate", gradients, remember)
    run_backward = native.operator("integrate_backward")

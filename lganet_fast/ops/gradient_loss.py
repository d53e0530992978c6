"""The roughness of a flow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import check, native, reference
from .dispatch import choose_backend
from .memory_format import empty_in_format_of
from .resize import dense


def gradient_loss(flow: Tensor, backend: str | None = None) -> Tensor:
    """Mean squared forward difference of a flow, averaged over the three axes (paper 2.6).

    flow: (B, 3, H, W, D), float32 or float64, in voxels. Returns a scalar without unit, of the
    flow's type. An axis of one voxel adds 0. Raises ValueError or TypeError naming the invalid
    argument.
    """
    check.flow("flow", flow)
    if choose_backend("gradient_loss", flow.device.type, backend).backend == "reference":
        return reference.gradient_loss(flow)
    out: Tensor = run(flow)
    return out


if native.LOADED:

    @torch.library.register_fake("lganet_fast::gradient_loss")
    def _(flow: Tensor) -> Tensor:
        return flow.new_empty(())

    @torch.library.register_fake("lganet_fast::gradient_loss_backward")
    def _(grad: Tensor, flow: Tensor) -> Tensor:
        return empty_in_format_of(flow, *flow.shape)

    def remember(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep the flow."""
        ctx.save_for_backward(*inputs)

    def gradients(ctx: Any, grad: Tensor) -> Tensor:
        """The gradient to the flow."""
        found: Tensor = run_backward(grad, *ctx.saved_tensors)
        return found

    def of_any_layout(flow: Tensor) -> Tensor:
        """The operator needs tensors without gaps."""
        return torch.ops.lganet_fast.gradient_loss(dense(flow))

    def gradient_of_any_layout(grad: Tensor, flow: Tensor) -> Tensor:
        """Its gradient."""
        return torch.ops.lganet_fast.gradient_loss_backward(grad, dense(flow))

    run = native.operator("gradient_loss", gradients, remember, of_any_layout)
    run_backward = native.operator("gradient_loss_backward", run=gradient_of_any_layout)

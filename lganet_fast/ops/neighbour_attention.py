"""Attention of each voxel over its neighbours, the values being the offsets to them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import check, native, reference
from .dispatch import choose_backend
from .memory_format import format_of, gradient_shapes


def neighbour_attention(
    q: Tensor, k: Tensor, bias: Tensor, scale: float = 1.0, backend: str | None = None
) -> Tensor:
    """The mean offset o under softmax_o(scale q_a(p) . k_a(p + o) + bias[a, o]), for each head a.

    q, k: (B, heads c, H, W, D), one float type, channels of a head side by side; k counts as zero
    outside the volume, where an offset keeps its place in the softmax. bias: (heads, 3, 3, 3), any
    float type, for the offsets in {-1, 0, 1}^3.
    Returns (B, 3 heads, H, W, D), each head's offset in the order of the axes, in voxels, float32
    at least. Source: ModeT (Wang, Ni, Wang, MICCAI 2023, motion decomposition).
    Raises ValueError or TypeError naming the invalid argument.
    """
    check.shape("q", q, ("B", "C", "H", "W", "D"))
    check.floating("q", q)
    check.shape("k", k, q.shape)
    check.floating("k", k, (q.dtype,))
    check.together("k", k, "q", q)
    check.shape("bias", bias, ("heads", 3, 3, 3))
    check.floating("bias", bias)
    check.together("bias", bias, "q", q)
    check.number("scale", scale)
    heads = bias.shape[0]
    if heads < 1 or q.shape[1] % heads or not q.shape[1]:
        raise ValueError(
            f"bias must have as many heads as divide q's {q.shape[1]} channels, got {heads}"
        )
    if choose_backend("neighbour_attention", q.device.type, backend).backend == "reference":
        return reference.neighbour_attention(q, k, bias, scale)
    out: Tensor = run(q, k, bias, scale)[0]
    return out


def results_like(q: Tensor, k: Tensor, bias: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Empty tensors of the result's shape and of what the weights were normalised by."""
    like = q.new_empty(0, dtype=reference.working(q).dtype)
    heads, (batch, _, *size) = bias.shape[0], q.shape
    out, norms = (
        like.new_empty((batch, n * heads, *size)).contiguous(memory_format=format_of(q))
        for n in (3, 2)
    )
    return out, norms


def gradients_like(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    bias: Tensor,
    out: Tensor,
    norms: Tensor,
    scale: float,
    need_query: bool,
    need_key: bool,
) -> tuple[Tensor, ...]:
    """Empty tensors of the gradients' shapes."""
    return (
        *gradient_shapes((q, need_query), (k, need_key)),
        bias.new_empty(bias.shape, dtype=out.dtype),
    )


def remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep the inputs and the result: the weights are computed again."""
    *kept, ctx.scale = inputs
    ctx.save_for_backward(*kept, *output)
    ctx.mark_non_differentiable(output[1])


def gradients(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    """The requested gradients; that to the bias comes with that to q."""
    q, k, bias, out, norms = ctx.saved_tensors
    need_q, need_k, need_bias, _ = ctx.needs_input_grad
    how = (ctx.scale, need_q or need_bias, need_k)
    found = run_backward(grad, q, k, bias, out, norms, *how)
    to_q, to_k, to_bias = found
    return (
        to_q if need_q else None,
        to_k if need_k else None,
        to_bias.to(bias.dtype) if need_bias else None,
        None,
    )


if native.LOADED:
    torch.library.register_fake("lganet_fast::neighbour_attention", results_like)
    torch.library.register_fake("lganet_fast::neighbour_attention_backward", gradients_like)
    run = native.operator("neighbour_attention", gradients, remember)
    run_backward = native.operator("neighbour_attention_backward")

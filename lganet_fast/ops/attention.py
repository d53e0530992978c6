"""Attention inside windows of tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import check, reference, triton
from .dispatch import choose_backend
from .torch_func import no_double_backward, transforming


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    windows: int | tuple[int, int, int] = 1,
    dropout_p: float = 0.0,
    volume: tuple[int, int, int] | None = None,
    backend: str | None = None,
) -> Tensor:
    """softmax(q k^T * scale) v inside each window (paper 2.3, local-global attention).

    q, k: (B, N, c) and v: (B, N, d), one float type; c and d may differ.
    windows: without `volume`, a count that divides N: window j is the j-th run of N / windows
        tokens. With `volume=(H, W, D)`, H W D = N, a triple of counts: boxes of
        ceil(H / counts[0]) x ... voxels, the last along each axis cut short by the border.
    dropout_p: probability in [0, 1) of dropping an attention weight.
    Returns (B, N, d). Raises ValueError or TypeError naming the invalid argument.
    """
    check.shape("q", q, ("B", "N", "c"))
    check.floating("q", q)
    check.shape("k", k, q.shape)
    check.shape("v", v, (*q.shape[:2], "d"))
    for name, x in (("k", k), ("v", v)):
        check.floating(name, x, (q.dtype,))
        check.together(name, x, "q", q)
    check.number("scale", scale)
    check.number("dropout_p", dropout_p)
    if not 0 <= dropout_p < 1:
        raise ValueError(f"dropout_p must be in [0, 1), got {dropout_p}")
    check_windows(q.shape[1], windows, volume)
    count = math.prod(windows) if isinstance(windows, tuple) else windows
    size = {"width": max(q.shape[2], v.shape[2]), "voxels": q.shape[1], "windows": count}
    choice = choose_backend("attention", q.device.type, backend, dtype=q.dtype, **size)
    if choice.backend != "triton":
        fast = choice.backend == "native" and q.numel() and v.numel() and not transforming()
        attend = fused_attend if fast else reference.attend
        return reference.attention(q, k, v, scale, windows, dropout_p, volume, attend)
    if volume is None:  # a run of tokens is a box of one line
        assert isinstance(windows, int)
        volume, windows = (windows, 1, q.shape[1] // windows), (windows, 1, 1)
    seed = torch.randint(2**63 - 1, (1,), device=q.device) if dropout_p else None
    return fused(q, k, v, seed, scale, windows, dropout_p, volume)[0]


def check_windows(
    tokens: int, windows: int | tuple[int, int, int], volume: tuple[int, int, int] | None
) -> None:
    """Require windows to split the tokens as `attention` says."""
    if volume is None:
        check.at_least("windows", windows, 1)
        assert isinstance(windows, int)
        if tokens % windows:
            raise ValueError(f"windows must divide the {tokens} tokens, got {windows}")
        return
    check.several("volume", volume, (3,))
    check.several("windows", windows, (3,))
    assert not isinstance(windows, int)
    for size, count in zip(volume, windows, strict=True):
        check.at_least("volume", size, 1)
        check.at_least("windows", count, 0)
        if not 1 <= count <= size:
            raise ValueError(f"windows must be from 1 to the axis length {size}, got {count}")
    if volume[0] * volume[1] * volume[2] != tokens:
        raise ValueError(f"volume must be a triple that holds the {tokens} tokens, got {volume}")


def fused_attend(q: Tensor, k: Tensor, v: Tensor, scale: float, dropout_p: float) -> Tensor:
    """`reference.attend` by PyTorch's kernel that never stores the weights; on the CPU unless any
    are dropped.

    That kernel takes q, k and v of one width, (batch, heads, tokens, width). Half types stay what
    they are on CUDA, whose kernels add up in float32.
    """
    width = max(q.shape[-1], v.shape[-1])
    shape = (-1, 1, q.shape[-2], width)
    given = [t if t.is_cuda else reference.working(t) for t in (q, k, v)]
    # what has the width already would be copied by a padding of none
    q, k, padded = (
        (t if t.shape[-1] == width else F.pad(t, [0, width - t.shape[-1]])).reshape(shape)
        for t in given
    )
    out = F.scaled_dot_product_attention(q, k, padded, dropout_p=dropout_p, scale=scale)
    return out.reshape(*v.shape[:-1], width)[..., : v.shape[-1]].to(v.dtype)


@torch.library.custom_op("lganet_fast_triton::attention", mutates_args=())
def fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seed: Tensor | None,
    scale: float,
    counts: Sequence[int],
    dropout_p: float,
    volume: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Attention inside `counts` boxes of the volume, and log2 of each query's sum (B, N).

    seed: one int64 that decides which weights are dropped; None where none is.
    """
    run = triton.kernels("attention").forward
    out, lse = run(q, k, v, seed, scale, counts, dropout_p, volume)
    return out, lse


@torch.library.custom_op("lganet_fast_triton::attention_backward", mutates_args=())
def fused_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    seed: Tensor | None,
    scale: float,
    counts: Sequence[int],
    dropout_p: float,
    volume: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients to q, k and v."""
    run = triton.kernels("attention").backward
    grad_q, grad_k, grad_v = run(grad, q, k, v, out, lse, seed, scale, counts, dropout_p, volume)
    return grad_q, grad_k, grad_v


def results_like(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    """Empty tensors of the results' shapes."""
    return v.new_empty(v.shape), q.new_empty(q.shape[:2], dtype=torch.float32)


def gradients_like(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Empty tensors of the gradients' shapes."""
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep the inputs and the result."""
    q, k, v, seed, *ctx.cut = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, *output, seed)


def backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients; the second result is for this function alone and has none."""
    if grad is None:
        return (None,) * 8
    return (*fused_backward(grad, *ctx.saved_tensors, *ctx.cut), *[None] * 5)


fused.register_fake(results_like)
fused.register_autograd(backward, setup_context=save)
fused_backward.register_fake(gradients_like)
fused_backward.register_autograd(no_double_backward)

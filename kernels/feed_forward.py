"""Linear layers with ReLU between them, a residual connection and a layer norm after them.

A program computes BLOCK tokens: out = x + W2 relu(W1 t + b1) + b2, with a few hidden units at a
time. t are the tokens or, with a third layer, relu(W0 tokens + b0). Intermediate results are never
stored in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import padded, run, wide


@triton.jit
def matrix(base, row, column, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A weight (ROWS, COLUMNS) at some rows and columns, transposed: a tile (columns, rows)."""
    mask = (column < COLUMNS)[:, None] & (row < ROWS)[None, :]
    return tl.load(base + row[None, :] * COLUMNS + column[:, None], mask, 0.0)


@triton.jit
def layer(
    tokens,
    weight,
    bias,
    row,
    column,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """relu(W t + b) for some rows of W, as a tile (tokens, rows)."""
    part = matrix(weight, row, column, ROWS, COLUMNS)
    offset = tl.load(bias + row, row < ROWS, 0.0).to(tl.float32)
    out = tl.dot(tokens, part, input_precision=PRECISION) + offset[None, :]
    return tl.maximum(out, 0.0).to(tokens.dtype)


@triton.jit
def feed_forward_kernel(
    x,
    tokens,
    weight_0,
    bias_0,
    weight_1,
    bias_1,
    weight_2,
    bias_2,
    scale,
    shift,
    out,
    normed,
    count,
    steps,
    eps,
    LAYERS: tl.constexpr,
    NORM: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    C: tl.constexpr,
    NARROW: tl.constexpr,
    HIDDEN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_NARROW: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    STEPS: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK tokens of an item. steps, STEPS: strides of x and tokens between items and rows."""
    blocks = tl.cdiv(count, BLOCK)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    token = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, BLOCK_C)
    some = channel < C
    mask = (token < count)[:, None] & some[None, :]
    if WIDE:
        token, channel = token.to(tl.int64), channel.to(tl.int64)
    at = x + batch * steps[0] + (token * STEPS[0])[:, None] + channel[None, :]
    sums = tl.load(at, mask, 0.0).to(tl.float32)
    own = batch * count * C
    if LAYERS:
        at = tokens + batch * steps[1] + (token * STEPS[1])[:, None] + channel[None, :]
        t = tl.load(at, mask, 0.0)
        if LAYERS == 3:
            column = tl.arange(0, BLOCK_NARROW)
            t = layer(t, weight_0, bias_0, column, channel, NARROW, C, PRECISION)
        else:
            column = channel
        for first in range(0, HIDDEN, BLOCK_HIDDEN):
            unit = first + tl.arange(0, BLOCK_HIDDEN)
            inner = layer(t, weight_1, bias_1, unit, column, HIDDEN, NARROW, PRECISION)
            last = matrix(weight_2, channel, unit, C, HIDDEN)
            sums = tl.dot(inner, last, sums, input_precision=PRECISION)
        sums += tl.load(bias_2 + channel, some, 0.0).to(tl.float32)[None, :]
        done = sums.to(out.dtype.element_ty)
        tl.store(out + own + (token * C)[:, None] + channel[None, :], done, mask)
        sums = done.to(tl.float32)
    if NORM:
        centred = tl.where(some[None, :], sums - (tl.sum(sums, 1) / C)[:, None], 0.0)
        deviation = tl.sqrt(tl.sum(centred * centred, 1) / C + eps)
        gain = tl.load(scale + channel, some, 0.0).to(tl.float32)
        offset = tl.load(shift + channel, some, 0.0).to(tl.float32)
        y = centred / deviation[:, None] * gain[None, :] + offset[None, :]
        if TRANSPOSED:
            at = normed + own + token[:, None] + channel[None, :] * count
        else:
            at = normed + own + (token * C)[:, None] + channel[None, :]
        tl.store(at, y.to(normed.dtype.element_ty), mask)


def rows(x: Tensor) -> Tensor:
    """Tokens (B, N, C) with adjacent channels, copied if needed."""
    return x if x.stride(2) == 1 else x.contiguous()


def forward(
    x: Tensor,
    tokens: Tensor,
    weights: Sequence[Tensor],
    norm: Sequence[Tensor],
    eps: float,
    transposed: bool,
    out: Tensor,
    normed: Tensor,
) -> None:
    """Fill `out`, if there are layers, and `normed`, if there is a norm.

    weights: weight and bias of two or three layers, or none. norm: weight and bias, or none.
    """
    x, tokens = rows(x), rows(tokens)
    batch, count, channels = x.shape
    layers, weights = len(weights) // 2, [w.contiguous() for w in weights]
    padding = [x] * (6 - len(weights))
    names = [f"{kind}_{n}" for n in range(3) for kind in ("weight", "bias")]
    narrow = weights[-4].shape[1] if layers else channels
    block = 32 if layers else max(2048 // padded(channels), 1)
    tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    run(
        feed_forward_kernel,
        (batch * -(-count // block),),
        num_warps=4 if channels <= 64 else 8,  # fewer would spill registers in float32
        x=x,
        tokens=tokens,
        **dict(zip(names, [*padding, *weights], strict=True)),
        scale=norm[0] if norm else x,
        shift=norm[1] if norm else x,
        out=out,
        normed=normed,
        count=count,
        steps=(x.stride(0), tokens.stride(0)),
        eps=eps,
        LAYERS=layers,
        NORM=bool(norm),
        TRANSPOSED=transposed,
        C=channels,
        NARROW=narrow,
        HIDDEN=weights[-2].shape[1] if layers else 1,
        BLOCK_C=padded(channels, 16),
        BLOCK_NARROW=padded(narrow, 16),
        BLOCK_HIDDEN=32 if channels <= 64 else 16,
        STEPS=(x.stride(1), tokens.stride(1)),
        WIDE=wide(x, tokens, out),
        PRECISION="tf32" if tf32 else "ieee",
        BLOCK=block,
    )

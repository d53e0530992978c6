"""Attention inside windows with a running softmax: no weight of any token pair is ever stored.

For a query i and the keys j of its window, s_ij = scale q_i.k_j, the kernels keep the largest
s so far and the sum of exp(s - largest), and rescale what they have when a larger one comes. All
exponentials are to base 2. The backward recomputes p_ij = exp(s_ij - lse_i) from lse, the
logarithm of each query's sum:
    delta_i = o_i.do_i;  dv_j = sum_i m_ij p_ij do_i;  ds_ij = p_ij (m_ij do_i.v_j - delta_i);
    dq_i = scale sum_j ds_ij k_j;  dk_j = scale sum_i ds_ij q_i
with m_ij = 0 where dropout drops the weight and 1 / (1 - dropout_p) elsewhere.

Tokens are read where they stand. A window is a box of the volume that the tokens fill; a run of
tokens is a box of one line. `batch`, `token` and `channel` in names are strides.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch, padded, wide

LOG2_E = math.log2(math.e)


@triton.jit
def tile_of(place, BLOCK: tl.constexpr, BOXES: tl.constexpr):
    """Which tile to do: its first token in its window, the window, the batch, the window as a box.

    A box: its first token, its lengths along the last two axes, the tokens it has, and the
    volume's lengths along the last two axes.
    """
    windows, height, width, depth, box_h, box_w, box_d = place
    tiles = tl.cdiv(box_h * box_w * box_d, BLOCK)
    start = tl.program_id(0) % tiles * BLOCK
    window = tl.program_id(0) // tiles
    inside = window % windows
    batch = (window // windows).to(tl.int64)
    if BOXES:
        across, deep = tl.cdiv(width, box_w), tl.cdiv(depth, box_d)
        h = inside // (across * deep) * box_h
        w = inside // deep % across * box_w
        d = inside % deep * box_d
        lines, line = tl.minimum(box_w, width - w), tl.minimum(box_d, depth - d)
        count = tl.minimum(box_h, height - h) * lines * line
        first = (h * width + w) * depth + d
    else:
        h = inside * box_h
        lines, line = width, depth
        count = tl.minimum(box_h, height - h) * lines * line
        first = h * width * depth
    box = (first, lines, line, count, width, depth)
    return start, window, batch, box


@triton.jit
def token_at(i, box, BOXES: tl.constexpr, WIDE: tl.constexpr):
    """Number of the i-th token of a box, and whether it has one."""
    first, lines, line, count, width, depth = box
    there = i < count
    if BOXES:
        i = (i // (lines * line) * width + i // line % lines) * depth + i % line
    token = first + i
    if WIDE:
        token = token.to(tl.int64)
    return token, there


@triton.jit
def rows_at(
    base, at, there, token: tl.constexpr, channel, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    """Where tokens `at` stand, as a tile (tokens, BLOCK), and which of it exists."""
    c = tl.arange(0, BLOCK)
    mask = there[:, None]
    if WIDTH != BLOCK:
        mask = mask & (c < WIDTH)[None, :]
    return base + (at * token)[:, None] + (c.to(at.dtype) * channel)[None, :], mask


@triton.jit
def load_rows(
    base, at, there, token: tl.constexpr, channel, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    """Tokens `at` as a tile (tokens, BLOCK), zero where there is nothing."""
    where, mask = rows_at(base, at, there, token, channel, WIDTH, BLOCK)
    return tl.load(where, mask, 0.0)


@triton.jit
def store_rows(
    base, at, there, rows, token: tl.constexpr, channel, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    """The reverse of `load_rows`."""
    where, mask = rows_at(base, at, there, token, channel, WIDTH, BLOCK)
    tl.store(where, rows.to(base.dtype.element_ty), mask)


@triton.jit
def kept(seed, window, queries, key, threshold, BLOCK_N: tl.constexpr):
    """Which weights (queries, BLOCK_N keys from `key` on) dropout keeps.

    One draw of four numbers serves four neighbouring keys; it is addressed by the pair of tokens,
    so the mask does not depend on how the pairs are tiled.
    """
    fours = (key // 4 + tl.arange(0, BLOCK_N // 4))[None, :]
    rows = queries[:, None]
    a, b, c, d = tl.philox(seed, fours + rows * 0, rows + fours * 0, window, 0)
    a, b = a.to(tl.int32, bitcast=True) >= threshold, b.to(tl.int32, bitcast=True) >= threshold
    c, d = c.to(tl.int32, bitcast=True) >= threshold, d.to(tl.int32, bitcast=True) >= threshold
    fourfold = tl.join(tl.join(a, b), tl.join(c, d))
    return tl.reshape(fourfold, (queries.shape[0], BLOCK_N))


# Tiles (queries, keys, warps, stages) that spill no register in a loop and take no more shared
# memory than any device has, by the bits of a number and whether a token is wider than 64.
TILES = {
    (16, False): ((64, 32, 4, 3), (128, 32, 8, 2), (32, 32, 4, 2)),
    (16, True): ((64, 32, 8, 2), (32, 32, 4, 2)),
    (32, False): ((64, 32, 8, 2), (32, 32, 8, 2), (32, 16, 4, 2)),
    (32, True): ((32, 32, 8, 2), (32, 16, 8, 2), (16, 16, 4, 2)),
}
CONFIGS = {
    kind: [
        triton.Config({"BLOCK_M": m, "BLOCK_N": n}, num_warps=warps, num_stages=stages)
        for m, n, warps, stages in tiles
    ]
    for kind, tiles in TILES.items()
}
KEY_CONFIGS = CONFIGS | {(32, False): CONFIGS[32, False][1:]}  # it keeps two sums


def fitting(choices, configs, named, **arguments):
    """Those of the choices that a launch can use."""
    wide = max(arguments["BLOCK_C"], arguments["BLOCK_D"]) > 64
    return choices[8 * arguments["q"].element_size(), wide]


def tuned(choices):
    """A kernel that measures its configurations once per kind of call; the results are kept."""

    def decorate(kernel):
        tune = triton.autotune(
            [config for kind in choices.values() for config in kind],
            ["bucket", "C", "D", "PRECISION", "DROPOUT", "BOXES"],
            prune_configs_by={"early_config_prune": partial(fitting, choices)},
            cache_results=True,
        )
        return tune(triton.jit(kernel, do_not_specialize=["bucket", "threshold"]))

    return decorate


@tuned(CONFIGS)
def forward_kernel(
    q,
    k,
    v,
    out,
    lse,
    seed,
    threshold,
    keep_scale,
    scale,
    bucket,
    tokens,
    strides,
    place,
    TOKENS: tl.constexpr,
    C: tl.constexpr,
    D: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BOXES: tl.constexpr,
    WIDE: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out_i = sum_j m_ij p_ij v_j and lse_i for a tile of queries."""
    tile, window, batch, box = tile_of(place, BLOCK_M, BOXES)
    i = tile + tl.arange(0, BLOCK_M)
    at, here = token_at(i, box, BOXES, WIDE)
    queries = load_rows(q + batch * strides[0], at, here, TOKENS[0], strides[1], C, BLOCK_C)
    k += batch * strides[2]
    v += batch * strides[4]
    largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    sums = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for start in range(0, box[3], BLOCK_N):
        j = start + tl.arange(0, BLOCK_N)
        their, there = token_at(j, box, BOXES, WIDE)
        keys = load_rows(k, their, there, TOKENS[1], strides[3], C, BLOCK_C)
        s = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
        s = tl.where(there[None, :], s, float("-inf"))
        above = tl.maximum(largest, tl.max(s, 1))
        shrink = tl.exp2(largest - above)
        p = tl.exp2(s - above[:, None])
        total = total * shrink + tl.sum(p, 1)
        if DROPOUT:
            p = tl.where(kept(tl.load(seed), window, i, start, threshold, BLOCK_N), p, 0.0)
        values = load_rows(v, their, there, TOKENS[2], strides[5], D, BLOCK_D)
        sums = tl.dot(p.to(values.dtype), values, sums * shrink[:, None], input_precision=PRECISION)
        largest = above
    own = batch * tokens + at
    tl.store(lse + own, largest + tl.log2(total), here)
    sums = sums * (keep_scale / total)[:, None]
    store_rows(out + batch * tokens * D, at, here, sums, D, 1, D, BLOCK_D)


@tuned(CONFIGS)
def query_kernel(
    q,
    k,
    v,
    out,
    grad,
    lse,
    delta,
    grad_q,
    seed,
    threshold,
    keep_scale,
    scale,
    bucket,
    tokens,
    strides,
    place,
    TOKENS: tl.constexpr,
    C: tl.constexpr,
    D: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BOXES: tl.constexpr,
    WIDE: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """delta_i and dq_i for a tile of queries."""
    tile, window, batch, box = tile_of(place, BLOCK_M, BOXES)
    i = tile + tl.arange(0, BLOCK_M)
    at, here = token_at(i, box, BOXES, WIDE)
    own = batch * tokens + at
    queries = load_rows(q + batch * strides[0], at, here, TOKENS[0], strides[1], C, BLOCK_C)
    grads = load_rows(grad + batch * strides[6], at, here, TOKENS[3], strides[7], D, BLOCK_D)
    outs = load_rows(out + batch * tokens * D, at, here, D, 1, D, BLOCK_D)
    product = tl.sum(grads.to(tl.float32) * outs.to(tl.float32), 1)
    tl.store(delta + own, product, here)
    logs = tl.load(lse + own, here, float("inf"))
    k += batch * strides[2]
    v += batch * strides[4]
    sums = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for start in range(0, box[3], BLOCK_N):
        j = start + tl.arange(0, BLOCK_N)
        their, there = token_at(j, box, BOXES, WIDE)
        keys = load_rows(k, their, there, TOKENS[1], strides[3], C, BLOCK_C)
        values = load_rows(v, their, there, TOKENS[2], strides[5], D, BLOCK_D)
        s = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
        p = tl.where(there[None, :], tl.exp2(s - logs[:, None]), 0.0)
        toward = tl.dot(grads, tl.trans(values), input_precision=PRECISION)
        if DROPOUT:
            keep = kept(tl.load(seed), window, i, start, threshold, BLOCK_N)
            toward = tl.where(keep, toward * keep_scale, 0.0)
        ds = p * (toward - product[:, None])
        sums = tl.dot(ds.to(keys.dtype), keys, sums, input_precision=PRECISION)
    sums *= scale * 0.6931471805599453
    target = grad_q + batch * tokens * C
    store_rows(target, at, here, sums, C, 1, C, BLOCK_C)


@tuned(KEY_CONFIGS)
def key_kernel(
    q,
    k,
    v,
    grad,
    lse,
    delta,
    grad_k,
    grad_v,
    seed,
    threshold,
    keep_scale,
    scale,
    bucket,
    tokens,
    strides,
    place,
    TOKENS: tl.constexpr,
    C: tl.constexpr,
    D: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BOXES: tl.constexpr,
    WIDE: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """dk_j and dv_j for a tile of BLOCK_M keys, from all queries, BLOCK_N at a time."""
    tile, window, batch, box = tile_of(place, BLOCK_M, BOXES)
    j = tile + tl.arange(0, BLOCK_M)
    at, here = token_at(j, box, BOXES, WIDE)
    keys = load_rows(k + batch * strides[2], at, here, TOKENS[1], strides[3], C, BLOCK_C)
    values = load_rows(v + batch * strides[4], at, here, TOKENS[2], strides[5], D, BLOCK_D)
    q += batch * strides[0]
    grad += batch * strides[6]
    sums_k = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    sums_v = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for start in range(0, box[3], BLOCK_N):
        i = start + tl.arange(0, BLOCK_N)
        their, there = token_at(i, box, BOXES, WIDE)
        own = batch * tokens + their
        queries = load_rows(q, their, there, TOKENS[0], strides[1], C, BLOCK_C)
        grads = load_rows(grad, their, there, TOKENS[3], strides[7], D, BLOCK_D)
        logs = tl.load(lse + own, there, float("inf"))
        products = tl.load(delta + own, there, 0.0)
        s = tl.dot(keys, tl.trans(queries), input_precision=PRECISION) * scale
        p = tl.exp2(s - logs[None, :])
        toward = tl.dot(values, tl.trans(grads), input_precision=PRECISION)
        weights = p
        if DROPOUT:
            keep = kept(tl.load(seed), window, i, tile, threshold, BLOCK_M)
            keep = tl.trans(keep)
            weights = tl.where(keep, p, 0.0)
            toward = tl.where(keep, toward * keep_scale, 0.0)
        sums_v = tl.dot(weights.to(grads.dtype), grads, sums_v, input_precision=PRECISION)
        ds = p * (toward - products[None, :])
        sums_k = tl.dot(ds.to(queries.dtype), queries, sums_k, input_precision=PRECISION)
    sums_k *= scale * 0.6931471805599453
    sums_v *= keep_scale
    store_rows(grad_k + batch * tokens * C, at, here, sums_k, C, 1, C, BLOCK_C)
    store_rows(grad_v + batch * tokens * D, at, here, sums_v, D, 1, D, BLOCK_D)


KERNELS = (forward_kernel, query_kernel, key_kernel)


class Call:
    """What the kernels share for q, k (B, N, c), v (B, N, d) and the windows they are cut into.

    The tokens fill `volume`; windows are boxes of it, `counts` of them along the axes.
    """

    def __init__(
        self,
        tokens: tuple[Tensor, Tensor, Tensor],
        seed: Tensor | None,
        scale: float,
        counts: Sequence[int],
        dropout_p: float,
        volume: Sequence[int],
    ) -> None:
        q, k, v = tokens
        box = [-(-size // count) for size, count in zip(volume, counts, strict=True)]
        windows = math.prod(-(-size // b) for size, b in zip(volume, box, strict=True))
        self.windows, self.longest = q.shape[0] * windows, math.prod(box)
        tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
        self.arguments = {
            "q": q,
            "k": k,
            "v": v,
            "seed": seed,
            "threshold": round(dropout_p * 2**32) - 2**31,
            "keep_scale": 1 / (1 - dropout_p),
            "scale": scale * LOG2_E,
            "bucket": padded(self.longest),
            "tokens": q.shape[1],
            "place": (windows, *volume, *box),
            "C": q.shape[2],
            "D": v.shape[2],
            "BLOCK_C": padded(q.shape[2], 16),
            "BLOCK_D": padded(v.shape[2], 16),
            "BOXES": list(volume[1:]) != box[1:],
            "DROPOUT": seed is not None,
            "PRECISION": "tf32" if tf32 else "ieee",
        }

    def run(self, kernel: Any, *strided: Tensor, **more: Any) -> None:
        """Launch a kernel that reads `strided` by their strides: programs for tiles of windows."""
        launch(
            kernel,
            lambda meta: self.windows * -(-self.longest // meta["BLOCK_M"]),
            **self.arguments,
            **more,
            strides=tuple(step for x in strided for step in (x.stride(0), x.stride(2))),
            TOKENS=tuple(x.stride(1) for x in strided),
            WIDE=wide(*strided),
        )


def forward(
    q: Tensor, k: Tensor, v: Tensor, seed: Tensor | None, *cut: Any
) -> tuple[Tensor, Tensor]:
    """The result (B, N, d) and, for the backward, log2 of each query's sum (B, N) in float32.

    cut: scale, counts, dropout_p, volume; seed: one int64, or None where nothing is dropped.
    """
    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
    if out.numel():
        Call((q, k, v), seed, *cut).run(forward_kernel, q, k, v, out=out, lse=lse)
    return out, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    seed: Tensor | None,
    *cut: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients to q, k and v; `cut` as in `forward`."""
    grads = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)]
    if not out.numel():
        return grads[0].zero_(), grads[1].zero_(), grads[2]
    delta = torch.empty_like(lse)
    call = Call((q, k, v), seed, *cut)
    saved = {"grad": grad, "lse": lse, "delta": delta}
    call.run(query_kernel, q, k, v, grad, **saved, out=out, grad_q=grads[0])
    call.run(key_kernel, q, k, v, grad, **saved, grad_k=grads[1], grad_v=grads[2])
    return grads[0], grads[1], grads[2]

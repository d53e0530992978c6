"""Attention inside windows with an online softmax: the weights of token pairs are never stored.

For a query i and the keys j of its window, s_ij = scale q_i.k_j, the kernels keep the largest
s so far and the sum of exp(s - largest), and rescale both when a larger s appears. All
exponentials are to base 2. The backward recomputes p_ij = exp(s_ij - lse_i) from lse, the
log-sum-exp of each query:
    delta_i = o_i.do_i;  dv_j = sum_i m_ij p_ij do_i;  ds_ij = p_ij (m_ij do_i.v_j - delta_i);
    dq_i = scale sum_j ds_ij k_j;  dk_j = scale sum_i ds_ij q_i
where m_ij is 0 for dropped weights and 1 / (1 - dropout_p) for the others.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import triton
import triton.language as tl

from .windows import load_rows, store_rows, tile_of, tokens_at

LN_2 = tl.constexpr(math.log(2))


@triton.jit
def kept(seed, window, query, key, threshold, QUERIES: tl.constexpr, KEYS: tl.constexpr):
    """The mask of the weights (QUERIES from `query` on, KEYS from `key` on) that dropout keeps.

    One Philox call gives four numbers for four neighbouring keys. Its counter is the pair of
    tokens, so the mask does not depend on the tiles.
    """
    fours = (key // 4 + tl.arange(0, KEYS // 4))[None, :]
    rows = (query + tl.arange(0, QUERIES))[:, None]
    a, b, c, d = tl.philox(tl.load(seed), fours + rows * 0, rows + fours * 0, window, 0)
    a, b = a.to(tl.int32, bitcast=True) >= threshold, b.to(tl.int32, bitcast=True) >= threshold
    c, d = c.to(tl.int32, bitcast=True) >= threshold, d.to(tl.int32, bitcast=True) >= threshold
    return tl.reshape(tl.join(tl.join(a, b), tl.join(c, d)), (QUERIES, KEYS))


@triton.jit
def scores(rows, columns, scale, PRECISION: tl.constexpr):
    """log2 of the weights of a tile of pairs, up to a constant for each query."""
    return tl.dot(rows, tl.trans(columns), input_precision=PRECISION) * scale


@triton.jit
def scores_of_keys(queries, keys, has_key, scale, PRECISION: tl.constexpr):
    """The same for queries by keys; a key that does not exist has weight 0."""
    return tl.where(has_key[None, :], scores(queries, keys, scale, PRECISION), float("-inf"))


@triton.jit
def gradients(
    s, grads, values, logs, deltas, keep, keep_scale, DROPOUT: tl.constexpr, PRECISION: tl.constexpr
):
    """(m p / keep_scale, ds) of a tile of pairs; rows and columns are in the order of s."""
    p = tl.exp2(s - logs)
    toward = tl.dot(grads, tl.trans(values), input_precision=PRECISION)
    weights = p
    if DROPOUT:
        weights = tl.where(keep, p, 0.0)
        toward = tl.where(keep, toward * keep_scale, 0.0)
    return weights, p * (toward - deltas)


class Tile(NamedTuple):
    """The tile and the resources of a program."""

    tokens: int  # of a program
    step: int  # tokens of the other side per step of the loop
    warps: int
    stages: int
    registers: int | None = None  # per thread at most; None: no limit

    def config(self, precision: str) -> triton.Config:
        """The configuration. precision: tl.dot's input_precision for float32."""
        return triton.Config(
            {"BLOCK_M": self.tokens, "BLOCK_N": self.step, "PRECISION": precision},
            num_warps=self.warps,
            num_stages=self.stages,
            maxnreg=self.registers,
        )


Choices = dict[tuple[str, bool], list[triton.Config]]


def choices(tiles: dict[tuple[str, bool], list[Tile]]) -> Choices:
    """The configurations of a kernel by kind."""
    return {
        (kind, wide): [tile.config("ieee" if kind == "half" else kind) for tile in some]
        for (kind, wide), some in tiles.items()
    }


# By the kind of product and whether a token is wider than 64: tiles that spill no register and fit
# into shared memory on every architecture; empty if every tile spills. `registers` is set where
# ptxas would spill without it.
FORWARD = choices(
    {
        ("half", False): [Tile(64, 32, 4, 3), Tile(128, 32, 8, 2), Tile(32, 32, 4, 2)],
        ("half", True): [Tile(64, 32, 8, 2, 168), Tile(32, 32, 4, 2)],
        ("tf32", False): [Tile(64, 32, 8, 2), Tile(32, 16, 4, 2)],
        ("tf32", True): [Tile(32, 32, 8, 2), Tile(32, 16, 8, 2), Tile(16, 16, 4, 2)],
        ("tf32x3", False): [Tile(64, 16, 8, 2), Tile(32, 16, 4, 2)],
        ("tf32x3", True): [Tile(32, 16, 8, 2)],
        ("ieee", False): [Tile(64, 32, 8, 2, 200)],
        ("ieee", True): [Tile(32, 32, 8, 2)],
    }
)
QUERY = choices(
    {
        ("half", False): [Tile(64, 32, 4, 3), Tile(32, 32, 4, 2)],
        ("half", True): [Tile(64, 32, 8, 2), Tile(32, 32, 4, 2)],
        ("tf32", False): [Tile(32, 32, 8, 2), Tile(32, 16, 4, 2)],
        ("tf32", True): [Tile(32, 32, 8, 2), Tile(32, 16, 8, 2), Tile(16, 16, 4, 2)],
        ("tf32x3", False): [Tile(32, 32, 8, 2), Tile(32, 16, 4, 2)],
        ("tf32x3", True): [],
        ("ieee", False): [Tile(32, 32, 8, 2)],
        ("ieee", True): [Tile(32, 32, 8, 2)],
    }
)
KEY = choices(
    {
        ("half", False): [Tile(64, 32, 8, 2), Tile(32, 32, 4, 2)],
        ("half", True): [Tile(64, 32, 8, 2), Tile(32, 32, 4, 2, 255)],
        ("tf32", False): [Tile(32, 32, 8, 2), Tile(32, 16, 4, 2)],
        ("tf32", True): [Tile(32, 32, 8, 2), Tile(32, 16, 8, 2), Tile(16, 16, 4, 2)],
        ("tf32x3", False): [Tile(32, 16, 8, 2), Tile(16, 16, 4, 2)],
        ("tf32x3", True): [],
        ("ieee", False): [Tile(32, 32, 8, 2, 168)],
        ("ieee", True): [Tile(32, 16, 8, 2)],
    }
)


def fitting(choices, configs, named, **arguments):
    """The choices for a launch.

    Full float32 has two kinds, and the faster is used: three products of TF32, and one in float32.
    """
    wide = max(arguments["BLOCK_C"], arguments["BLOCK_D"]) > 64
    if arguments["q"].element_size() == 2:
        return choices["half", wide]
    if arguments["TF32"]:
        return choices["tf32", wide]
    return choices["tf32x3", wide] + choices["ieee", wide]


def tuned(choices):
    """A decorator: a kernel times its configurations once per kind of call, keeps the fastest."""

    def decorate(kernel):
        tune = triton.autotune(
            [config for kind in choices.values() for config in kind],
            ["bucket", "C", "D", "TF32", "DROPOUT", "BOXES"],
            prune_configs_by={"early_config_prune": partial(fitting, choices)},
            cache_results=True,
        )
        return tune(triton.jit(kernel, do_not_specialize=["bucket", "threshold"]))

    return decorate


@tuned(FORWARD)
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
    TF32: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out_i = sum_j m_ij p_ij v_j and lse_i for a tile of queries."""
    tile, window, batch, box, query, has_query = tile_of(place, BLOCK_M, BOXES, WIDE)
    queries = load_rows(q + batch * strides[0], query, has_query, TOKENS[0], strides[1], C, BLOCK_C)
    k += batch * strides[2]
    v += batch * strides[4]
    largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    sums = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for start in range(0, box[3], BLOCK_N):
        key, has_key = tokens_at(start, box, BLOCK_N, BOXES, WIDE)
        keys = load_rows(k, key, has_key, TOKENS[1], strides[3], C, BLOCK_C)
        s = scores_of_keys(queries, keys, has_key, scale, PRECISION)
        above = tl.maximum(largest, tl.max(s, 1))
        shrink = tl.exp2(largest - above)
        p = tl.exp2(s - above[:, None])
        total = total * shrink + tl.sum(p, 1)
        if DROPOUT:
            keep = kept(seed, window, tile, start, threshold, BLOCK_M, BLOCK_N)
            p = tl.where(keep, p, 0.0)
        values = load_rows(v, key, has_key, TOKENS[2], strides[5], D, BLOCK_D)
        sums = tl.dot(p.to(values.dtype), values, sums * shrink[:, None], input_precision=PRECISION)
        largest = above
    row = batch * tokens + query
    tl.store(lse + row, largest + tl.log2(total), has_query)
    sums = sums * (keep_scale / total)[:, None]
    store_rows(out + batch * tokens * D, query, has_query, sums, D, 1, D, BLOCK_D)


@tuned(QUERY)
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
    TF32: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """delta_i and dq_i for a tile of queries."""
    tile, window, batch, box, query, has_query = tile_of(place, BLOCK_M, BOXES, WIDE)
    row = batch * tokens + query
    queries = load_rows(q + batch * strides[0], query, has_query, TOKENS[0], strides[1], C, BLOCK_C)
    grads = load_rows(
        grad + batch * strides[6], query, has_query, TOKENS[3], strides[7], D, BLOCK_D
    )
    outs = load_rows(out + batch * tokens * D, query, has_query, D, 1, D, BLOCK_D)
    product = tl.sum(grads.to(tl.float32) * outs.to(tl.float32), 1)
    tl.store(delta + row, product, has_query)
    logs = tl.load(lse + row, has_query, float("inf"))
    k += batch * strides[2]
    v += batch * strides[4]
    sums = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for start in range(0, box[3], BLOCK_N):
        key, has_key = tokens_at(start, box, BLOCK_N, BOXES, WIDE)
        keys = load_rows(k, key, has_key, TOKENS[1], strides[3], C, BLOCK_C)
        values = load_rows(v, key, has_key, TOKENS[2], strides[5], D, BLOCK_D)
        s = scores_of_keys(queries, keys, has_key, scale, PRECISION)
        keep = None
        if DROPOUT:
            keep = kept(seed, window, tile, start, threshold, BLOCK_M, BLOCK_N)
        _, ds = gradients(
            s, grads, values, logs[:, None], product[:, None], keep, keep_scale, DROPOUT, PRECISION
        )
        sums = tl.dot(ds.to(keys.dtype), keys, sums, input_precision=PRECISION)
    sums *= scale * LN_2
    target = grad_q + batch * tokens * C
    store_rows(target, query, has_query, sums, C, 1, C, BLOCK_C)


@tuned(KEY)
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
    TF32: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """dk_j and dv_j for a tile of BLOCK_M keys, from all queries, BLOCK_N at a time."""
    tile, window, batch, box, key, has_key = tile_of(place, BLOCK_M, BOXES, WIDE)
    keys = load_rows(k + batch * strides[2], key, has_key, TOKENS[1], strides[3], C, BLOCK_C)
    values = load_rows(v + batch * strides[4], key, has_key, TOKENS[2], strides[5], D, BLOCK_D)
    q += batch * strides[0]
    grad += batch * strides[6]
    sums_k = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    sums_v = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for start in range(0, box[3], BLOCK_N):
        query, has_query = tokens_at(start, box, BLOCK_N, BOXES, WIDE)
        row = batch * tokens + query
        queries = load_rows(q, query, has_query, TOKENS[0], strides[1], C, BLOCK_C)
        grads = load_rows(grad, query, has_query, TOKENS[3], strides[7], D, BLOCK_D)
        logs = tl.load(lse + row, has_query, float("inf"))
        deltas = tl.load(delta + row, has_query, 0.0)
        s = scores(keys, queries, scale, PRECISION)
        keep = None
        if DROPOUT:
            keep = tl.trans(kept(seed, window, start, tile, threshold, BLOCK_N, BLOCK_M))
        weights, ds = gradients(
            s, values, grads, logs[None, :], deltas[None, :], keep, keep_scale, DROPOUT, PRECISION
        )
        sums_v = tl.dot(weights.to(grads.dtype), grads, sums_v, input_precision=PRECISION)
        sums_k = tl.dot(ds.to(queries.dtype), queries, sums_k, input_precision=PRECISION)
    sums_k *= scale * LN_2
    sums_v *= keep_scale
    store_rows(grad_k + batch * tokens * C, key, has_key, sums_k, C, 1, C, BLOCK_C)
    store_rows(grad_v + batch * tokens * D, key, has_key, sums_v, D, 1, D, BLOCK_D)

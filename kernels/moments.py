"""Moments of channels from the parts of programs: the count, the mean and the spread.

The spread is the sum of squared deviations from the mean. Parts are joined in a fixed order by
    n = sum n_k;  mean = sum n_k mean_k / n;  spread = sum spread_k + n_k (mean_k - mean)^2
without cancellation where the mean is far from zero.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import padded, run

GROUP = 128  # parts that one program joins
EPS = 1e-5


@triton.jit
def joined(n, mean, spread):
    """Join parts (count, channels) into the count, mean and spread of each channel."""
    total = tl.sum(n, 0)
    center = tl.sum(n * mean, 0) / tl.maximum(total, 1.0)
    away = mean - center[None, :]
    return total, center, tl.sum(spread + n * away * away, 0)


@triton.jit
def store_part(parts, place, channel, some, n, mean, spread, C: tl.constexpr):
    """Write the part of `channel` at index `place` of (places, 3, C)."""
    to = parts + place * 3 * C + channel
    tl.store(to, n, some)
    tl.store(to + C, mean, some)
    tl.store(to + 2 * C, spread, some)


@triton.jit
def join_kernel(
    parts,
    out,
    count,
    eps,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    MEANS: tl.constexpr,
    LAST: tl.constexpr,
):
    """Join PARTS parts of the `count` of a volume; parts (volumes, count, 3, C).

    MEANS: parts have a second mean instead of a spread. LAST: out is (2, volumes, C), the mean and
    1 / sqrt(variance + eps), or both means; otherwise it has the form of parts.
    """
    groups = tl.cdiv(count, PARTS)
    volume, group = tl.program_id(0) // groups, tl.program_id(0) % groups
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    some = channel < C
    k = group * PARTS + tl.arange(0, PARTS)
    exists = (k < count)[:, None] & some[None, :]
    at = parts + ((volume * count + k) * 3 * C)[:, None] + channel[None, :]
    n = tl.load(at, exists, 0.0)
    mean = tl.load(at + C, exists, 0.0)
    spread = tl.load(at + 2 * C, exists, 0.0)
    if MEANS:
        total = tl.sum(n, 0)
        center = tl.sum(n * mean, 0) / tl.maximum(total, 1.0)
        second = tl.sum(n * spread, 0) / tl.maximum(total, 1.0)
    else:
        total, center, second = joined(n, mean, spread)
    if LAST:
        if not MEANS:
            second = 1 / tl.sqrt(second / tl.maximum(total, 1.0) + eps)
        volumes = tl.num_programs(0)
        tl.store(out + volume * C + channel, center, some)
        tl.store(out + (volumes + volume) * C + channel, second, some)
    else:
        store_part(out, tl.program_id(0), channel, some, total, center, second, C)


def join(parts: Tensor, means: bool = False) -> Tensor:
    """(2, volumes, C) from parts (volumes, count, 3, C): means, and 1 / sqrt(variance + 1e-5).

    means: parts have a count and two means, and the result has both means.
    """
    volumes, count, _, channels = parts.shape
    block = padded(min(channels, 16))
    while True:
        groups, last = -(-count // GROUP), count <= GROUP
        shape = (2, volumes, channels) if last else (volumes, groups, 3, channels)
        out = torch.empty(shape, dtype=torch.float32, device=parts.device)
        run(
            join_kernel,
            (volumes * groups, -(-channels // block)),
            parts=parts,
            out=out,
            count=count,
            eps=EPS,
            C=channels,
            PARTS=GROUP,
            BLOCK_C=block,
            MEANS=means,
            LAST=last,
        )
        if last:
            return out
        parts, count = out, groups

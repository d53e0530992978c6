"""Trilinear interpolation on another grid over the same extent, corners aligned, times a factor.

Voxel p of an axis of N reads an axis of n at p (n - 1) / (N - 1). The integer part and the fraction
are computed with integers.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .launch import padded, run, wide
from .maps import block_for, evenly_spaced, programs_for, step_of, steps_of, tile_at, voxels_of


@triton.jit
def place_on(at, old, new, ACC: tl.constexpr):
    """The two voxels of the old axis that a voxel of the new one reads, and the second's weight."""
    gaps = tl.maximum(new - 1, 1)
    below = at * (old - 1) // gaps
    weight = (at * (old - 1) - below * gaps).to(ACC) / gaps.to(ACC)
    return below, tl.minimum(below + 1, old - 1), weight


@triton.jit
def resize_kernel(
    x,
    out,
    old,
    new,
    x_steps,
    out_steps,
    FACTOR: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    STEPS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK voxels of the result."""
    height, width, depth = new
    ACC: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    batch, voxel, exists = voxels_of(height * width * depth, BLOCK)
    h0, h1, h = place_on(voxel // (width * depth), old[0], height, ACC)
    w0, w1, w = place_on(voxel // depth % width, old[1], width, ACC)
    d0, d1, d = place_on(voxel % depth, old[2], depth, ACC)
    sums = tl.zeros((BLOCK, PADDED), ACC)
    for corner in tl.static_range(8):
        row = (h1 if corner // 4 else h0) * old[1] + (w1 if corner // 2 % 2 else w0)
        source = row * old[2] + (d1 if corner % 2 else d0)
        weight = (h if corner // 4 else 1 - h) * (w if corner // 2 % 2 else 1 - w)
        weight *= d if corner % 2 else 1 - d
        at, some = tile_at(x, batch, x_steps, source, STEPS[0], CHANNELS, PADDED, WIDE)
        sums += weight[:, None] * tl.load(at, exists[:, None] & some, 0.0).to(ACC)
    at, some = tile_at(out, batch, out_steps, voxel, STEPS[1], CHANNELS, PADDED, WIDE)
    tl.store(at, (sums * FACTOR).to(out.dtype.element_ty), exists[:, None] & some)


def forward(x: Tensor, out: Tensor, factor: float) -> None:
    """Fill `out` with x resized to the size of out."""
    x = evenly_spaced(x)
    block = block_for(x)
    run(
        resize_kernel,
        (programs_for(out, block),),
        x=x,
        out=out,
        old=tuple(x.shape[2:]),
        new=tuple(out.shape[2:]),
        x_steps=steps_of(x),
        out_steps=steps_of(out),
        FACTOR=factor,
        CHANNELS=x.shape[1],
        PADDED=padded(x.shape[1]),
        STEPS=(step_of(x), step_of(out)),
        WIDE=wide(x, out),
        BLOCK=block,
    )

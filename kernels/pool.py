"""Mean or maximum over 2^3 voxels of a map, normalised when it is read."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .launch import padded, run, wide
from .maps import (
    block_for,
    evenly_spaced,
    normalised,
    programs_for,
    step_of,
    steps_of,
    tile_at,
    voxels_of,
)


@triton.jit
def pool_kernel(
    x,
    out,
    kept,
    norm,
    size,
    batches,
    x_steps,
    out_steps,
    kept_steps,
    MAXIMUM: tl.constexpr,
    NORM: tl.constexpr,
    SLOPE: tl.constexpr,
    KEEP: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    STEPS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK voxels of the result. size: of the result."""
    height, width, depth = size
    ACC: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    batch, voxel, exists = voxels_of(height * width * depth, BLOCK)
    first = (voxel // (width * depth) * 4 * width + voxel // depth % width * 2) * 2 * depth
    first += voxel % depth * 2
    found = tl.zeros((BLOCK, PADDED), ACC)
    for corner in tl.static_range(8):
        source = first + (corner // 4 * 2 * width + corner // 2 % 2) * 2 * depth + corner % 2
        at, some = tile_at(x, batch, x_steps, source, STEPS[0], CHANNELS, PADDED, WIDE)
        mask = exists[:, None] & some
        value = tl.load(at, mask, 0.0).to(ACC)
        if NORM:
            value = normalised(value, norm, batch, batches, SLOPE, CHANNELS, PADDED)
        if KEEP:
            at, _ = tile_at(kept, batch, kept_steps, source, STEPS[2], CHANNELS, PADDED, WIDE)
            tl.store(at, value.to(kept.dtype.element_ty), mask)
        if not MAXIMUM:
            found += value
        elif corner == 0:
            found = value
        else:
            found = tl.maximum(found, value, propagate_nan=tl.PropagateNan.ALL)
    if not MAXIMUM:
        found *= 0.125
    at, some = tile_at(out, batch, out_steps, voxel, STEPS[1], CHANNELS, PADDED, WIDE)
    tl.store(at, found.to(out.dtype.element_ty), exists[:, None] & some)


def forward(
    x: Tensor,
    out: Tensor,
    kept: Tensor | None,
    norm: Tensor | None,
    slope: float,
    maximum: bool,
) -> None:
    """Fill `out`, and `kept` with the normalised map."""
    x = evenly_spaced(x)
    whole = x if kept is None else kept
    block = block_for(x)
    run(
        pool_kernel,
        (programs_for(out, block),),
        x=x,
        out=out,
        kept=whole,
        norm=x if norm is None else norm,
        size=tuple(out.shape[2:]),
        batches=x.shape[0],
        x_steps=steps_of(x),
        out_steps=steps_of(out),
        kept_steps=steps_of(whole),
        MAXIMUM=maximum,
        NORM=norm is not None,
        SLOPE=slope,
        KEEP=kept is not None,
        CHANNELS=x.shape[1],
        PADDED=padded(x.shape[1]),
        STEPS=(step_of(x), step_of(out), step_of(whole)),
        WIDE=wide(x, out, whole),
        BLOCK=block,
    )

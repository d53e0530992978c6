"""A sum of warped maps: base(p) + image(p + flow(p)), for one or two images with their flows.

A position reads two neighbours along each axis; the weight of a voxel c is max(0, 1 - |x - c|),
which is linear interpolation with zeros outside. A NaN counts as a position before the axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from .launch import padded, run, wide
from .maps import block_for, evenly_spaced, programs_for, step_of, steps_of, tile_at, voxels_of


@triton.jit
def tent(distance):
    """The weight of a voxel at a distance."""
    return tl.maximum(tl.minimum(1 - distance, 1 + distance), 0.0)


@triton.jit
def place_on(at, shift, size):
    """The two voxels that are read along an axis, their weights, and whether any is inside."""
    x = at.to(shift.dtype) + shift
    x = tl.where(x > -2, x, -2.0)
    x = tl.where(x < size + 1, x, (size + 1).to(shift.dtype))
    last = tl.maximum(size - 2, 0)
    first = tl.minimum(tl.maximum(x, 0.0), last.to(shift.dtype)).to(tl.int32)
    distance = x - first.to(shift.dtype)
    second = tl.minimum(first + 1, size - 1)
    above = tl.where(size > 1, tent(distance - 1), 0.0)
    return first, second, tent(distance), above, (x > -1) & (x < size)


@triton.jit
def warped(
    image,
    flow,
    batch,
    voxel,
    exists,
    size,
    steps,
    STEP: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    WIDE: tl.constexpr,
    ACC: tl.constexpr,
):
    """image(p + flow(p)) as a tile. steps, STEP: strides of the image, then of the flow."""
    height, width, depth = size
    flow += batch.to(tl.int64) * steps[2] * STEP[1]
    at = voxel.to(tl.int64) if WIDE else voxel
    far = tl.full((), 1, tl.int64) * steps[3] if WIDE else steps[3]
    h = tl.load(flow + at * STEP[1], exists, 0.0).to(ACC)
    w = tl.load(flow + (at * STEP[1] + far), exists, 0.0).to(ACC)
    d = tl.load(flow + (at * STEP[1] + 2 * far), exists, 0.0).to(ACC)
    h0, h1, below_h, above_h, near_h = place_on(voxel // (width * depth), h, height)
    w0, w1, below_w, above_w, near_w = place_on(voxel // depth % width, w, width)
    d0, d1, below_d, above_d, near_d = place_on(voxel % depth, d, depth)
    inside = exists & (
        near_h & near_w & near_d
    )  # outside nothing is read: the image may be infinite
    sums = tl.zeros((voxel.shape[0], PADDED), ACC)
    for corner in tl.static_range(8):
        row = (h1 if corner // 4 else h0) * width + (w1 if corner // 2 % 2 else w0)
        source = row * depth + (d1 if corner % 2 else d0)
        weight = (above_h if corner // 4 else below_h) * (above_w if corner // 2 % 2 else below_w)
        weight *= above_d if corner % 2 else below_d
        at, some = tile_at(image, batch, steps, source, STEP[0], CHANNELS, PADDED, WIDE)
        sums += weight[:, None] * tl.load(at, inside[:, None] & some, 0.0).to(ACC)
    return sums


@triton.jit
def warp_sum_kernel(
    base,
    out,
    image_a,
    flow_a,
    image_b,
    flow_b,
    size,
    steps,
    steps_a,
    steps_b,
    BASE: tl.constexpr,
    PAIRS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    STEP: tl.constexpr,
    STEP_A: tl.constexpr,
    STEP_B: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK voxels of the result. steps: strides of the base, then of the result."""
    height, width, depth = size
    DOUBLE: tl.constexpr = (image_a.dtype.element_ty == tl.float64) | (
        flow_a.dtype.element_ty == tl.float64
    )
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    batch, voxel, exists = voxels_of(height * width * depth, BLOCK)
    sums = warped(
        image_a, flow_a, batch, voxel, exists, size, steps_a, STEP_A, CHANNELS, PADDED, WIDE, ACC
    )
    if PAIRS == 2:
        sums += warped(
            image_b,
            flow_b,
            batch,
            voxel,
            exists,
            size,
            steps_b,
            STEP_B,
            CHANNELS,
            PADDED,
            WIDE,
            ACC,
        )
    if BASE:
        at, some = tile_at(base, batch, steps, voxel, STEP[0], CHANNELS, PADDED, WIDE)
        sums += tl.load(at, exists[:, None] & some, 0.0).to(ACC)
    to = (steps[2], steps[3])
    at, some = tile_at(out, batch, to, voxel, STEP[1], CHANNELS, PADDED, WIDE)
    tl.store(at, sums.to(out.dtype.element_ty), exists[:, None] & some)


def forward(
    images: Sequence[Tensor], flows: Sequence[Tensor], base: Tensor | None, out: Tensor
) -> None:
    """Fill `out`."""
    images, flows = [evenly_spaced(x) for x in images], [evenly_spaced(x) for x in flows]
    under = evenly_spaced(images[0] if base is None else base)
    channels = out.shape[1]
    block = block_for(out)
    run(
        warp_sum_kernel,
        (programs_for(out, block),),
        base=under,
        out=out,
        image_a=images[0],
        flow_a=flows[0],
        image_b=images[-1],
        flow_b=flows[-1],
        size=tuple(out.shape[2:]),
        steps=steps_of(under) + steps_of(out),
        steps_a=steps_of(images[0]) + steps_of(flows[0]),
        steps_b=steps_of(images[-1]) + steps_of(flows[-1]),
        BASE=base is not None,
        PAIRS=len(images),
        CHANNELS=channels,
        PADDED=padded(channels),
        STEP=(step_of(under), step_of(out)),
        STEP_A=(step_of(images[0]), step_of(flows[0])),
        STEP_B=(step_of(images[-1]), step_of(flows[-1])),
        WIDE=wide(out, under, *images, *flows),
        BLOCK=block,
    )

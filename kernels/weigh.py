"""Maps weighted by a softmax over the maps at each voxel, and the gate of each channel.

Two launches. In the first a fixed number of programs loop over the voxels, and each stores its sums
and maxima. In the second one program per item combines them in order and applies the two layers to
the mean and the maximum. Results are repeatable bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from .launch import padded, run, wide
from .maps import block_for, evenly_spaced, step_of, steps_of, tile_at

PARTS = 1024  # programs for the voxels of an item, at most


@triton.jit
def weighed(
    z,
    map_,
    batch,
    voxel,
    exists,
    weight,
    steps,
    z_steps,
    K: tl.constexpr,
    STEP: tl.constexpr,
    Z_STEP: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Store map K times its weight in its channels of z; return the stored values as a tile."""
    at, some = tile_at(map_, batch, steps, voxel, STEP, CHANNELS, PADDED, WIDE)
    mask = exists[:, None] & some
    value = tl.load(at, mask, 0.0).to(weight.dtype) * weight[:, None]
    value = value.to(z.dtype.element_ty)
    to = z + K * CHANNELS
    at, _ = tile_at(to, batch, z_steps, voxel, Z_STEP, CHANNELS, PADDED, WIDE)
    tl.store(at, value, mask)
    return value.to(weight.dtype)


@triton.jit
def weigh_kernel(
    logits,
    a,
    b,
    c,
    z,
    partial,
    voxels,
    parts,
    steps,
    MAPS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    STEPS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Blocks part, part + parts, ... of an item. steps, STEPS: strides of logits, maps and z."""
    ACC: tl.constexpr = tl.float64 if z.dtype.element_ty == tl.float64 else tl.float32
    part, batch = tl.program_id(0) % parts, tl.program_id(0) // parts
    low = tl.full((BLOCK, PADDED), float("-inf"), ACC)
    none = tl.zeros((BLOCK, PADDED), ACC)
    sum_a, sum_b, sum_c = none, none, none
    most_a, most_b, most_c = low, low, low
    far = tl.full((), 1, tl.int64) * steps[1] if WIDE else steps[1]
    own = logits + batch.to(tl.int64) * steps[0] * STEPS[0]
    for block in range(part, tl.cdiv(voxels, BLOCK), parts):
        voxel = block * BLOCK + tl.arange(0, BLOCK)
        exists = (voxel < voxels) & (voxel >= 0)
        at = own + (voxel.to(tl.int64) if WIDE else voxel) * STEPS[0]
        first = tl.load(at, exists, 0.0).to(ACC)
        second = tl.load(at + far, exists, 0.0).to(ACC)
        largest = tl.maximum(first, second)
        if MAPS == 3:
            third = tl.load(at + 2 * far, exists, 0.0).to(ACC)
            largest = tl.maximum(largest, third)
        first, second = tl.exp(first - largest), tl.exp(second - largest)
        total = first + second
        if MAPS == 3:
            third = tl.exp(third - largest)
            total += third
        value = weighed(
            z, a, batch, voxel, exists, first / total, (steps[2], steps[3]), (steps[8], steps[9]),
            0, STEPS[1], STEPS[4], CHANNELS, PADDED, WIDE,
        )  # fmt: skip
        sum_a += value
        most_a = tl.where(exists[:, None], tl.maximum(most_a, value), most_a)
        value = weighed(
            z, b, batch, voxel, exists, second / total, (steps[4], steps[5]), (steps[8], steps[9]),
            1, STEPS[2], STEPS[4], CHANNELS, PADDED, WIDE,
        )  # fmt: skip
        sum_b += value
        most_b = tl.where(exists[:, None], tl.maximum(most_b, value), most_b)
        if MAPS == 3:
            value = weighed(
                z, c, batch, voxel, exists, third / total, (steps[6], steps[7]),
                (steps[8], steps[9]), 2, STEPS[3], STEPS[4], CHANNELS, PADDED, WIDE,
            )  # fmt: skip
            sum_c += value
            most_c = tl.where(exists[:, None], tl.maximum(most_c, value), most_c)
    channel = tl.arange(0, PADDED)
    some = channel < CHANNELS
    at = partial + tl.program_id(0) * (2 * MAPS * CHANNELS) + channel
    top = at + MAPS * CHANNELS
    tl.store(at, tl.sum(sum_a, 0), some)
    tl.store(top, tl.max(most_a, 0), some)
    tl.store(at + CHANNELS, tl.sum(sum_b, 0), some)
    tl.store(top + CHANNELS, tl.max(most_b, 0), some)
    if MAPS == 3:
        tl.store(at + 2 * CHANNELS, tl.sum(sum_c, 0), some)
        tl.store(top + 2 * CHANNELS, tl.max(most_c, 0), some)


@triton.jit
def gate_kernel(
    partial,
    first,
    second,
    norm,
    voxels,
    parts,
    batches,
    WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr,
    PADDED: tl.constexpr,
    PADDED_HIDDEN: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Write the gate of each channel of an item to norm as the scale, with shift 0."""
    batch = tl.program_id(0)
    ACC: tl.constexpr = partial.dtype.element_ty
    row, channel, unit = tl.arange(0, ROWS), tl.arange(0, PADDED), tl.arange(0, PADDED_HIDDEN)
    some = channel < WIDTH
    sums = tl.zeros((ROWS, PADDED), ACC)
    most = tl.full((ROWS, PADDED), float("-inf"), ACC)
    for first_row in range(0, parts, ROWS):
        mask = (first_row + row < parts)[:, None] & some[None, :]
        at = partial + ((batch * parts + first_row + row) * (2 * WIDTH))[:, None] + channel[None, :]
        sums += tl.load(at, mask, 0.0)
        most = tl.maximum(most, tl.load(at + WIDTH, mask, float("-inf")))
    mean = tl.sum(sums, 0) / voxels
    largest = tl.where(some, tl.max(most, 0), 0.0)
    mask = (unit < HIDDEN)[:, None] & some[None, :]
    at = first + unit[:, None] * WIDTH + channel[None, :]
    weight = tl.load(at, mask, 0.0).to(ACC)
    hidden = tl.maximum(tl.sum(weight * mean[None, :], 1), 0.0)
    hidden += tl.maximum(tl.sum(weight * largest[None, :], 1), 0.0)
    at = second + channel[None, :] * HIDDEN + unit[:, None]
    weight = tl.load(at, mask, 0.0).to(ACC)
    gate = 1 / (1 + tl.exp(-tl.sum(weight * hidden[:, None], 0)))
    tl.store(norm + batch * WIDTH + channel, tl.zeros_like(gate), some)
    tl.store(norm + (batches + batch) * WIDTH + channel, gate, some)


def forward(
    maps: Sequence[Tensor],
    logits: Tensor,
    first: Tensor,
    second: Tensor,
    z: Tensor,
    norm: Tensor,
) -> None:
    """Fill z and norm."""
    maps, logits = [evenly_spaced(x) for x in maps], evenly_spaced(logits)
    batches, channels, voxels = z.shape[0], maps[0].shape[1], z.shape[2:].numel()
    block = block_for(maps[0])
    blocks = -(-voxels // block)
    parts = min(blocks, max(blocks // 8, 128), PARTS)
    partial = norm.new_empty(batches, parts, 2, z.shape[1])
    a, b, c = (maps[0], maps[1], maps[-1])
    tensors = (logits, a, b, c, z)
    run(
        weigh_kernel,
        (batches * parts,),
        logits=logits,
        a=a,
        b=b,
        c=c,
        z=z,
        partial=partial,
        voxels=voxels,
        parts=parts,
        steps=tuple(step for x in tensors for step in steps_of(x)),
        MAPS=len(maps),
        CHANNELS=channels,
        PADDED=padded(channels),
        STEPS=tuple(step_of(x) for x in tensors),
        WIDE=wide(*tensors),
        BLOCK=block,
    )
    width, hidden = z.shape[1], first.shape[0]
    run(
        gate_kernel,
        (batches,),
        num_warps=8,
        partial=partial,
        first=first.contiguous(),
        second=second.contiguous(),
        norm=norm,
        voxels=voxels,
        parts=parts,
        batches=batches,
        WIDTH=width,
        HIDDEN=hidden,
        PADDED=padded(width),
        PADDED_HIDDEN=padded(hidden),
        ROWS=max(8192 // padded(width), 1),
    )

"""The 3^3 convolution as an implicit matrix product.

GROUP neighbouring voxels of the last axis are one row: it reads (GROUP + 2) C adjacent numbers,
once for each of the 9 (dh, dw), and gives GROUP times BLOCK_O outputs. The weights of each voxel of
a group are the same three taps, shifted by one voxel, and zero elsewhere:
    y[v + i, o] = sum over (dh, dw), j, c of x[v + j - 1 + (dh, dw), c] w[dh, dw, j - i, c, o]
for i < GROUP, j < GROUP + 2. One loop runs over the 9 (dh, dw) and all steps of (j, c).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .moments import joined, store_part
from .sweep import normalised


@triton.jit
def nearest_tf32(x):
    """Rounds to nearest TF32, ties away from zero; the device would truncate.

    Only numbers that are in registers anyway are rounded. The others go from memory directly to the
    products, with an error of up to 2^-10.
    """
    bits = (x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def accumulate(
    acc,
    x,
    mask,
    norm,
    packed,
    rows,
    sizes,
    slope,
    output,
    C: tl.constexpr,
    FIRST: tl.constexpr,
    CHANNELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PITCH: tl.constexpr,
    MASK_PITCH: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_O: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add the products of one map: C channels from FIRST on, of CHANNELS in all."""
    row, h, w, d, exists, batch, batches = rows
    height, width, depth = sizes
    K: tl.constexpr = (GROUP + 2) * C
    STEPS: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    n = tl.arange(0, GROUP * BLOCK_O)
    behind = n // BLOCK_O
    o = output + n % BLOCK_O
    for step in range(9 * STEPS):
        tap = step // STEPS
        k = step % STEPS * BLOCK_K + tl.arange(0, BLOCK_K)
        up, right = tap // 3 - 1, tap % 3 - 1
        j, c = k // C, k % C
        inside = exists & (h + up >= 0) & (h + up < height) & (w + right >= 0) & (w + right < width)
        deep = d[:, None] + (j - 1)[None, :]
        valid = inside[:, None] & (deep >= 0) & (deep < depth)
        if STEPS * BLOCK_K != K:
            valid = valid & (k < K)[None, :]
        voxel = (row + (up * width + right) * depth - 1)[:, None]
        a = tl.load(x + voxel * PITCH + (j * PITCH + c)[None, :], valid, 0.0)
        if mask is not None:
            on = tl.load(mask + voxel * MASK_PITCH + (j * MASK_PITCH + c)[None, :], valid, 0.0)
            a = tl.where(on > 0, a, 0.0)
        if norm is not None:
            shift = tl.load(norm + batch * CHANNELS + FIRST + c)[None, :]
            scale = tl.load(norm + (batches + batch) * CHANNELS + FIRST + c)[None, :]
            f = normalised(a.to(tl.float32), shift, scale, slope)
            a = tl.where(valid, f, 0.0).to(x.dtype.element_ty)
        if PRECISION == "tf32" and (mask is not None or norm is not None):
            a = nearest_tf32(a)
        t = j[:, None] - behind[None, :]
        at = ((tap * OUTPUTS + o)[None, :] * 3 + t) * CHANNELS + FIRST + c[:, None]
        b = tl.load(packed + at, (t >= 0) & (t < 3) & (o < OUTPUTS)[None, :], 0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    return acc


@triton.jit
def convolve_kernel(
    maps,
    mask,
    norm,
    packed,
    bias,
    add,
    times,
    out,
    parts,
    sizes,
    slope,
    SOURCES: tl.constexpr,
    C: tl.constexpr,
    FIRST: tl.constexpr,
    CHANNELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PITCHES: tl.constexpr,
    OTHERS: tl.constexpr,
    RELU: tl.constexpr,
    WIDE: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_O: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """BLOCK_M groups of voxels by BLOCK_O outputs: (relu(conv + bias) + add) * times.

    maps: SOURCES of them with C[i] channels and strides of PITCHES[i] between voxels. OTHERS: these
    strides of mask, add, times and out. parts: (B, tiles, 3, OUTPUTS) for the moments of out.
    """
    height, width, depth = sizes
    BLOCKS: tl.constexpr = (OUTPUTS + BLOCK_O - 1) // BLOCK_O
    tile, batch = tl.program_id(0) // BLOCKS, tl.program_id(1)
    output = tl.program_id(0) % BLOCKS * BLOCK_O
    groups = tl.cdiv(depth, GROUP)
    m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    exists = m < height * width * groups
    d = m % groups * GROUP
    w = m // groups % width
    h = m // (groups * width)
    row = ((batch * height + h) * width + w) * depth + d
    if WIDE:
        row = row.to(tl.int64)
    rows = (row, h, w, d, exists, batch, tl.num_programs(1))
    acc = tl.zeros((BLOCK_M, GROUP * BLOCK_O), tl.float32)
    for i in tl.static_range(SOURCES):
        acc = accumulate(
            acc,
            maps[i],
            mask,
            norm,
            packed,
            rows,
            sizes,
            slope,
            output,
            C[i],
            FIRST[i],
            CHANNELS,
            OUTPUTS,
            PITCHES[i],
            OTHERS[0],
            GROUP,
            BLOCK_K,
            BLOCK_O,
            PRECISION,
        )
    n = tl.arange(0, GROUP * BLOCK_O)
    o = output + n % BLOCK_O
    behind = n // BLOCK_O
    keep = exists[:, None] & (d[:, None] + behind[None, :] < depth) & (o < OUTPUTS)[None, :]
    voxel = row[:, None] + behind[None, :]
    if bias is not None:
        acc += tl.load(bias + o, o < OUTPUTS, 0.0).to(tl.float32)[None, :]
    if RELU:
        acc = tl.maximum(acc, 0.0)
    if add is not None:
        acc += tl.load(add + voxel * OTHERS[1] + o[None, :], keep, 0.0).to(tl.float32)
    if times is not None:
        acc *= tl.load(times + voxel * OTHERS[2] + o[None, :], keep, 0.0).to(tl.float32)
    stored = acc.to(out.dtype.element_ty)
    tl.store(out + voxel * OTHERS[3] + o[None, :], stored, keep)
    if parts is not None:
        y = stored.to(tl.float32)
        number = tl.sum(keep.to(tl.float32), 0)
        mean = tl.sum(tl.where(keep, y, 0.0), 0) / tl.maximum(number, 1.0)
        away = tl.where(keep, y - mean[None, :], 0.0)
        number, mean, spread = joined(
            tl.reshape(number, (GROUP, BLOCK_O)),
            tl.reshape(mean, (GROUP, BLOCK_O)),
            tl.reshape(tl.sum(away * away, 0), (GROUP, BLOCK_O)),
        )
        channel = output + tl.arange(0, BLOCK_O)
        tiles = tl.num_programs(0) // BLOCKS
        place = batch * tiles + tile
        store_part(parts, place, channel, channel < OUTPUTS, number, mean, spread, OUTPUTS)


@triton.jit
def weight_kernel(
    x,
    grad,
    mask,
    norm,
    parts,
    sizes,
    slope,
    span,
    splits,
    C: tl.constexpr,
    FIRST: tl.constexpr,
    CHANNELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PITCHES: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The weight gradient's sum over `span` voxels of an item, for one (dh, dw).

    BLOCK_M of the 3 C pairs (j, c) by BLOCK_N outputs. parts: (B splits, 9, 3 C, OUTPUTS). PITCHES:
    strides between voxels of x, grad and mask.
    """
    height, width, depth = sizes
    M: tl.constexpr = 3 * C
    M_BLOCKS: tl.constexpr = (M + BLOCK_M - 1) // BLOCK_M
    N_BLOCKS: tl.constexpr = (OUTPUTS + BLOCK_N - 1) // BLOCK_N
    tap = tl.program_id(0) // (M_BLOCKS * N_BLOCKS)
    m = tl.program_id(0) // N_BLOCKS % M_BLOCKS * BLOCK_M + tl.arange(0, BLOCK_M)
    o = tl.program_id(0) % N_BLOCKS * BLOCK_N + tl.arange(0, BLOCK_N)
    batch, split = tl.program_id(1) // splits, tl.program_id(1) % splits
    up, right = tap // 3 - 1, tap % 3 - 1
    j, c = m // C, m % C
    voxels = height * width * depth
    end = tl.minimum((split + 1) * span, voxels)
    shift = tl.zeros((1, BLOCK_M), tl.float32)
    scale = tl.zeros((1, BLOCK_M), tl.float32)
    if norm is not None:
        batches = tl.num_programs(1) // splits
        shift = tl.load(norm + batch * CHANNELS + FIRST + c)[None, :]
        scale = tl.load(norm + (batches + batch) * CHANNELS + FIRST + c)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(split * span, end, BLOCK_V):
        v = start + tl.arange(0, BLOCK_V)
        exists = v < end
        h, w, d = v // (width * depth) + up, v // depth % width + right, v % depth
        inside = exists & (h >= 0) & (h < height) & (w >= 0) & (w < width)
        deep = d[:, None] + (j - 1)[None, :]
        valid = inside[:, None] & (deep >= 0) & (deep < depth) & (m < M)[None, :]
        row = batch * voxels + v
        if WIDE:
            row = row.to(tl.int64)
        voxel = (row + (up * width + right) * depth - 1)[:, None]
        a = tl.load(x + voxel * PITCHES[0] + (j * PITCHES[0] + c)[None, :], valid, 0.0)
        if norm is not None:
            f = normalised(a.to(tl.float32), shift, scale, slope)
            a = tl.where(valid, f, 0.0).to(x.dtype.element_ty)
        if PRECISION == "tf32" and norm is not None:
            a = nearest_tf32(a)
        some = exists[:, None] & (o < OUTPUTS)[None, :]
        g = tl.load(grad + (row * PITCHES[1])[:, None] + o[None, :], some, 0.0)
        if mask is not None:
            on = tl.load(mask + (row * PITCHES[2])[:, None] + o[None, :], some, 0.0)
            g = tl.where(on > 0, g, 0.0)
        if PRECISION == "tf32" and mask is not None:
            g = nearest_tf32(g)
        acc = tl.dot(tl.trans(a), g, acc, input_precision=PRECISION)
    to = parts + ((tl.program_id(1) * 9 + tap) * M + m[:, None]) * OUTPUTS + o[None, :]
    tl.store(to, acc, (m < M)[:, None] & (o < OUTPUTS)[None, :])

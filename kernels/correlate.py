"""Local correlation of two feature maps: all offsets in one pass, and gradients by gathering.

out[o, p] = 1/C sum_c x[p, c] y[p + o, c] for the offsets o in {-r..r}^3, y zero outside;
dx[p, c] = 1/C sum_o g[o, p] y[p + o, c] and dy[q, c] = 1/C sum_o g[-o, q + o] x[q + o, c].
The second sum runs over -o, so that each number of a gradient is computed by one program, without
atomics.

Maps are dense, in either memory format; voxels p are numbered in memory order.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lganet_fast.ops.memory_format import format_of

from .launch import launch, padded, wide


@triton.jit
def neighbour(voxel, offset, height, width, depth, RADIUS: tl.constexpr):
    """The number of the voxel at an offset, and whether it is inside the volume."""
    SIDE: tl.constexpr = 2 * RADIUS + 1
    up = offset // (SIDE * SIDE) - RADIUS
    right = offset // SIDE % SIDE - RADIUS
    deep = offset % SIDE - RADIUS
    h = voxel // (width * depth) + up
    w = voxel // depth % width + right
    d = voxel % depth + deep
    inside = (h >= 0) & (h < height) & (w >= 0) & (w < width) & (d >= 0) & (d < depth)
    return voxel + (up * width + right) * depth + deep, inside


@triton.jit
def place(voxel, channel, voxels, CHANNELS: tl.constexpr, LAST: tl.constexpr, WIDE: tl.constexpr):
    """Offset of a channel of a voxel inside one item of the batch."""
    if WIDE:
        voxel, voxels = voxel.to(tl.int64), voxels * tl.full((), 1, tl.int64)
    if LAST:
        return voxel * CHANNELS + channel
    return channel * voxels + voxel


def tuned(kernel):
    """The kernel, which times its configurations once per kind of call and keeps the fastest."""
    tune = triton.autotune(
        [triton.Config({"BLOCK": 2**n}, num_warps=4) for n in range(8, -1, -1)],
        ["bucket", "CHANNELS", "RADIUS", "X_LAST", "Y_LAST"],
        prune_configs_by={"early_config_prune": fitting},
        cache_results=True,
    )
    return tune(triton.jit(kernel, do_not_specialize=["bucket"]))


def fitting(configs, named, **arguments):
    """The configurations with enough numbers per thread, but not more than its registers hold."""
    offsets = arguments.get("OFFSETS")
    few, many = (32, 64) if offsets else (8, 32)
    width = padded(arguments["CHANNELS"]) * (offsets or 1)
    sizes = {c: c.kwargs["BLOCK"] * width / (32 * c.num_warps) for c in configs}
    return [c for c, size in sizes.items() if few <= size <= many] or configs[:1]


@tuned
def correlate_kernel(
    x,
    y,
    out,
    bucket,
    height,
    width,
    depth,
    CHANNELS: tl.constexpr,
    RADIUS: tl.constexpr,
    WIDTH: tl.constexpr,
    OFFSETS: tl.constexpr,
    X_LAST: tl.constexpr,
    Y_LAST: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK voxels by OFFSETS offsets of the result; x and y (B, CHANNELS, H, W, D).

    The result has WIDTH channels, zeros after the offsets.
    """
    COUNT: tl.constexpr = (2 * RADIUS + 1) * (2 * RADIUS + 1) * (2 * RADIUS + 1)
    PARTS: tl.constexpr = (WIDTH + OFFSETS - 1) // OFFSETS
    PADDED: tl.constexpr = triton.next_power_of_2(CHANNELS)
    voxels = height * width * depth
    blocks = tl.cdiv(voxels, BLOCK)
    part = tl.program_id(0) % PARTS
    block = tl.program_id(0) // PARTS % blocks
    batch = (tl.program_id(0) // PARTS // blocks).to(tl.int64)
    voxel = block * BLOCK + tl.arange(0, BLOCK)
    offset = part * OFFSETS + tl.arange(0, OFFSETS)
    channel = tl.arange(0, PADDED)
    exists = (voxel < voxels) & (voxel >= 0)
    near, inside = neighbour(voxel[:, None], offset[None, :], height, width, depth, RADIUS)
    inside = inside & exists[:, None] & (offset < COUNT)[None, :]
    some = channel < CHANNELS
    base = batch * CHANNELS * voxels
    at = place(voxel[:, None], channel[None, :], voxels, CHANNELS, X_LAST, WIDE)
    centre = tl.load(x + base + at, exists[:, None] & some[None, :], 0.0)
    at = place(near[:, :, None], channel[None, None, :], voxels, CHANNELS, Y_LAST, WIDE)
    around = tl.load(y + base + at, inside[:, :, None] & some[None, None, :], 0.0)
    ACC: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    sums = tl.sum(centre.to(ACC)[:, None, :] * around.to(ACC), 2) / CHANNELS
    at = place(voxel[:, None], offset[None, :], voxels, WIDTH, X_LAST, WIDE)
    mask = exists[:, None] & (offset < WIDTH)[None, :]
    tl.store(out + batch * WIDTH * voxels + at, sums.to(out.dtype.element_ty), mask)


@tuned
def gradient_kernel(
    grad,
    other,
    out,
    bucket,
    height,
    width,
    depth,
    CHANNELS: tl.constexpr,
    RADIUS: tl.constexpr,
    MIRRORED: tl.constexpr,
    G_LAST: tl.constexpr,
    X_LAST: tl.constexpr,
    Y_LAST: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient to x from other = y or, MIRRORED, to y from other = x, for BLOCK voxels.

    X_LAST, Y_LAST: whether the channels of the result and of `other` are innermost.
    """
    COUNT: tl.constexpr = (2 * RADIUS + 1) * (2 * RADIUS + 1) * (2 * RADIUS + 1)
    PADDED: tl.constexpr = triton.next_power_of_2(CHANNELS)
    voxels = height * width * depth
    blocks = tl.cdiv(voxels, BLOCK)
    voxel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    channel = tl.arange(0, PADDED)
    exists = (voxel < voxels) & (voxel >= 0)
    some = channel < CHANNELS
    grad += batch * COUNT * voxels
    other += batch * CHANNELS * voxels
    ACC: tl.constexpr = tl.float64 if other.dtype.element_ty == tl.float64 else tl.float32
    sums = tl.zeros((BLOCK, PADDED), ACC)
    for offset in range(COUNT):
        near, inside = neighbour(voxel, offset, height, width, depth, RADIUS)
        inside = inside & exists
        if MIRRORED:
            at = place(near, COUNT - 1 - offset, voxels, COUNT, G_LAST, WIDE)
        else:
            at = place(voxel, offset, voxels, COUNT, G_LAST, WIDE)
        weight = tl.load(grad + at, inside, 0.0).to(ACC)
        at = place(near[:, None], channel[None, :], voxels, CHANNELS, Y_LAST, WIDE)
        around = tl.load(other + at, inside[:, None] & some[None, :], 0.0).to(ACC)
        sums += weight[:, None] * around
    at = place(voxel[:, None], channel[None, :], voxels, CHANNELS, X_LAST, WIDE)
    mask = exists[:, None] & some[None, :]
    sums = (sums / CHANNELS).to(out.dtype.element_ty)
    tl.store(out + batch * CHANNELS * voxels + at, sums, mask)


def dense(x: Tensor) -> tuple[Tensor, bool]:
    """The map without gaps, copied if needed, and whether its channels are innermost."""
    order = format_of(x)
    return x.contiguous(memory_format=order), order == torch.channels_last_3d


def shared(x: Tensor, radius: int) -> dict[str, Any]:
    """The common arguments of the kernels for a map like x."""
    height, width, depth = x.shape[2:]
    return {
        "bucket": padded(height * width * depth),
        "height": height,
        "width": width,
        "depth": depth,
        "CHANNELS": x.shape[1],
        "RADIUS": radius,
    }


def programs(x: Tensor, parts: int = 1) -> Any:
    """The number of programs for the voxels of x, as a function of the configuration."""
    voxels = x.shape[2:].numel()
    return lambda meta: x.shape[0] * parts * -(-voxels // meta["BLOCK"])


def forward(x: Tensor, y: Tensor, out: Tensor, radius: int) -> None:
    """Fill `out`, (B, (2 radius + 1)^3 or more, H, W, D), which has the memory format of x."""
    (x, x_last), (y, y_last) = dense(x), dense(y)
    width = out.shape[1]
    launch(
        correlate_kernel,
        programs(x, -(-width // 32)),
        x=x,
        y=y,
        out=out,
        **shared(x, radius),
        WIDTH=width,
        OFFSETS=32,
        X_LAST=x_last,
        Y_LAST=y_last,
        WIDE=wide(x, y, out),
    )


def gradient(grad: Tensor, other: Tensor, out: Tensor, radius: int, mirrored: bool) -> None:
    """Fill `out`, dense, with the gradient to x from `other` = y or, mirrored, to y from x."""
    (grad, g_last), (other, y_last) = dense(grad), dense(other)
    launch(
        gradient_kernel,
        programs(out),
        grad=grad,
        other=other,
        out=out,
        **shared(out, radius),
        MIRRORED=mirrored,
        G_LAST=g_last,
        X_LAST=dense(out)[1],
        Y_LAST=y_last,
        WIDE=wide(grad, other, out),
    )

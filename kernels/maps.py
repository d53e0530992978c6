"""The addresses of a tile (voxels, channels) of a map.

Kernels accept maps (B, C, H, W, D) with a constant stride between voxels: channels_last_3d,
contiguous, or some channels of a wider channels_last_3d map. Voxels are numbered in memory order.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .launch import padded


@triton.jit
def voxels_of(voxels, BLOCK: tl.constexpr):
    """The item of the batch and the voxels of this program, and which of them exist."""
    blocks = tl.cdiv(voxels, BLOCK)
    voxel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    return tl.program_id(0) // blocks, voxel, (voxel < voxels) & (voxel >= 0)


@triton.jit
def tile_at(
    base,
    batch,
    steps,
    voxel,
    STEP: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The addresses of a tile (voxels, PADDED), and which channels exist.

    steps: the stride between items of the batch, in voxels, and the stride between channels. STEP:
    the stride between voxels.
    """
    channel = tl.arange(0, PADDED)
    if WIDE:
        voxel, far = voxel.to(tl.int64), channel.to(tl.int64) * steps[1]
    else:
        far = channel * steps[1]
    at = (voxel * STEP)[:, None] + far[None, :]
    return base + batch.to(tl.int64) * steps[0] * STEP + at, (channel < CHANNELS)[None, :]


@triton.jit
def normalised(
    x,
    norm,
    batch,
    batches,
    SLOPE: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
):
    """leaky((x - shift) * scale) for a tile x of an item. norm: shift, then scale, (2, B, C)."""
    channel = tl.arange(0, PADDED)
    at = norm + batch * CHANNELS + channel
    shift = tl.load(at, channel < CHANNELS, 0.0).to(x.dtype)
    scale = tl.load(at + batches * CHANNELS, channel < CHANNELS, 0.0).to(x.dtype)
    y = (x - shift[None, :]) * scale[None, :]
    return tl.where(y > 0, y, y * SLOPE)


def step_of(x: Tensor) -> int | None:
    """The stride between voxels, or None if it is not constant."""
    step, count = None, 1
    for n, stride in zip(reversed(x.shape[2:]), reversed(x.stride()[2:]), strict=True):
        if n > 1:
            step = stride if step is None else step
            if stride != step * count:
                return None
            count *= n
    return 1 if step is None else step


def evenly_spaced(x: Tensor) -> Tensor:
    """The map itself if its stride between voxels is constant, else a copy without gaps."""
    step = step_of(x)
    fits = step and (x.shape[0] == 1 or x.stride(0) % step == 0)
    return x if fits else x.contiguous()


def steps_of(x: Tensor) -> tuple[int, int]:
    """The strides between items of the batch, in voxels, and between channels."""
    return x.stride(0) // (step_of(x) or 1), x.stride(1)


def block_for(x: Tensor) -> int:
    """The number of voxels of a tile with 16 bytes for each of 128 threads."""
    return max(2048 // x.element_size() // padded(x.shape[1]), 1)


def programs_for(x: Tensor, block: int) -> int:
    """The number of programs for a batch of maps, with `block` voxels each."""
    return x.shape[0] * -(-x.shape[2:].numel() // block)

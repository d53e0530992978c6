"""Where the voxels of a map stand in memory, and how a tile (voxels, channels) of it is read.

Kernels take maps (B, C, H, W, D) whose voxels lie in a line at even distances: channels_last_3d,
contiguous, or some channels of a wider channels_last_3d map. Voxels are numbered in order.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .launch import padded


@triton.jit
def voxels_of(voxels, BLOCK: tl.constexpr):
    """The item of the batch and the voxels that this program works on, and which of them exist."""
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
    """Where the channels of voxels stand, as a tile (voxels, PADDED), and which channels exist.

    steps: the voxels between items of the batch, and the distance between channels. STEP: the
    distance between voxels.
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
    """leaky((x - shift) * scale) for a tile x of an item; norm: shift, then scale, (2, B, C)."""
    channel = tl.arange(0, PADDED)
    at = norm + batch * CHANNELS + channel
    shift = tl.load(at, channel < CHANNELS, 0.0).to(x.dtype)
    scale = tl.load(at + batches * CHANNELS, channel < CHANNELS, 0.0).to(x.dtype)
    y = (x - shift[None, :]) * scale[None, :]
    return tl.where(y > 0, y, y * SLOPE)


def step_of(x: Tensor) -> int | None:
    """The distance between neighbouring voxels in memory, or None where it is not even."""
    step, count = None, 1
    for n, stride in zip(reversed(x.shape[2:]), reversed(x.stride()[2:]), strict=True):
        if n > 1:
            step = stride if step is None else step
            if stride != step * count:
                return None
            count *= n
    return 1 if step is None else step


def lined(x: Tensor) -> Tensor:
    """The map itself where its voxels lie at even distances, else a copy without gaps."""
    step = step_of(x)
    fits = step and (x.shape[0] == 1 or x.stride(0) % step == 0)
    return x if fits else x.contiguous()


def steps_of(x: Tensor) -> tuple[int, int]:
    """The voxels between items of the batch of a lined map, and the distance between channels."""
    return x.stride(0) // (step_of(x) or 1), x.stride(1)


def block_for(x: Tensor) -> int:
    """How many voxels make a tile of 16 bytes for each of 128 threads."""
    return max(2048 // x.element_size() // padded(x.shape[1]), 1)


def programs_for(x: Tensor, block: int) -> int:
    """How many programs of `block` voxels each the maps of a batch take."""
    return x.shape[0] * -(-x.shape[2:].numel() // block)

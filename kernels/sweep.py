"""One pass over a map: steps on each number, and the moments of the stored values.

A map is `volumes` runs of voxels with C channels each and a stride of `pitch` between voxels:
(B, C, H, W, D) in channels_last_3d is B runs, a contiguous map is B C runs of one channel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import padded, pitch, run
from .moments import join, joined, store_part

TILE = 4096  # numbers of a tile
PROGRAMS = 1024  # for a large volume, about


@triton.jit
def normalised(x, shift, scale, slope):
    """leaky((x - shift) * scale)."""
    x = (x - shift) * scale
    return tl.where(x > 0, x, x * slope)


@triton.jit
def sweep_kernel(
    x,
    norm,
    bias,
    add,
    times,
    mask,
    out,
    parts,
    slope,
    voxels,
    volumes,
    tiles,
    PITCHES: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    RELU: tl.constexpr,
):
    """Write (relu(f(x) + bias) + add) * times where mask > 0, for `tiles` tiles of ROWS voxels.

    Steps whose argument is None are skipped; out may be x. PITCHES: of x, add, times, mask and out.
    parts: (volumes, chunks, 3, C) for the moments of the stored values.
    """
    chunks = tl.cdiv(voxels, ROWS * tiles)
    volume, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    some = channel < C
    count = tl.minimum(voxels - chunk * ROWS * tiles, ROWS * tiles)
    base = volume.to(tl.int64) * voxels + chunk * ROWS * tiles
    inner = tl.arange(0, ROWS)
    mean = tl.zeros((ROWS, BLOCK_C), tl.float32)
    spread = tl.zeros((ROWS, BLOCK_C), tl.float32)
    if norm is not None:
        shift = tl.load(norm + volume * C + channel, some, 0.0)[None, :]
        scale = tl.load(norm + (volumes + volume) * C + channel, some, 0.0)[None, :]
    if bias is not None:
        bias = tl.load(bias + channel, some, 0.0).to(tl.float32)[None, :]
    for tile in range(tiles):
        row = tile * ROWS + inner
        exists = (row < count)[:, None] & some[None, :]
        row = row[:, None]
        at = base * PITCHES[0] + row * PITCHES[0] + channel[None, :]
        y = tl.load(x + at, exists, 0.0).to(tl.float32)
        if norm is not None:
            y = normalised(y, shift, scale, slope)
        if bias is not None:
            y += bias
        if RELU:
            y = tl.maximum(y, 0.0)
        if add is not None:
            at = base * PITCHES[1] + row * PITCHES[1] + channel[None, :]
            y += tl.load(add + at, exists, 0.0).to(tl.float32)
        if times is not None:
            at = base * PITCHES[2] + row * PITCHES[2] + channel[None, :]
            y *= tl.load(times + at, exists, 0.0).to(tl.float32)
        if mask is not None:
            at = base * PITCHES[3] + row * PITCHES[3] + channel[None, :]
            y = tl.where(tl.load(mask + at, exists, 0.0) > 0, y, 0.0)
        if out is not None:
            stored = y.to(out.dtype.element_ty)
            at = base * PITCHES[4] + row * PITCHES[4] + channel[None, :]
            tl.store(out + at, stored, exists)
            y = stored.to(tl.float32)
        if parts is not None:
            away = tl.where(exists, y - mean, 0.0)
            mean += away * (1.0 / (tile + 1))
            spread += away * (y - mean)
    if parts is not None:
        n = tl.maximum(count - inner + ROWS - 1, 0) // ROWS  # voxels of each row
        n = tl.where(some[None, :], n[:, None], 0).to(tl.float32)
        n, mean, spread = joined(n, mean, spread)
        store_part(parts, tl.program_id(0), channel, some, n, mean, spread, C)


class Runs(NamedTuple):
    """A map as runs of voxels."""

    volumes: int
    voxels: int
    channels: int
    pitch: int

    @classmethod
    def of(cls, x: Tensor) -> Runs:
        """Raises ValueError for a map that is neither channels_last_3d nor contiguous."""
        volumes, voxels = x.shape[0], x.shape[2:].numel()
        if x.shape[1] > 1 and x.stride(1) != 1 and x.is_contiguous():
            return cls(volumes * x.shape[1], voxels, 1, 1)
        return cls(volumes, voxels, x.shape[1], pitch(x))

    def tiles(self) -> dict[str, int]:
        """The tiles of a volume; they depend only on its size, so sums are repeatable."""
        block = min(padded(self.channels), 128)
        rows = TILE // block
        tiles = max(1, self.voxels // (rows * PROGRAMS))
        return {"ROWS": rows, "BLOCK_C": block, "tiles": tiles}

    def chunks(self) -> int:
        """The number of chunks of a volume."""
        cut = self.tiles()
        return -(-self.voxels // (cut["ROWS"] * cut["tiles"]))

    def grid(self) -> tuple[int, int]:
        """The number of programs along chunks of volumes and along blocks of channels."""
        return self.volumes * self.chunks(), -(-self.channels // self.tiles()["BLOCK_C"])

    def parts(self, x: Tensor) -> Tensor:
        """Memory for the moments of each chunk."""
        shape = (self.volumes, self.chunks(), 3, self.channels)
        return torch.empty(shape, dtype=torch.float32, device=x.device)


def sweep(
    x: Tensor,
    out: Tensor | None,
    *,
    norm: Tensor | None = None,
    slope: float = 1.0,
    bias: Tensor | None = None,
    relu: bool = False,
    add: Tensor | None = None,
    times: Tensor | None = None,
    mask: Tensor | None = None,
    moments: bool = False,
) -> Tensor | None:
    """Write y = (relu(f(x) + bias) + add) * times where mask > 0 to `out`, which may be x.

    x and every other map: (B, C, H, W, D), float16, bfloat16 or float32, channels_last_3d with any
    pitch, or all contiguous (then without bias). f(x) = leaky((x - shift) * scale, slope) with
    norm (2, B, C) = (shift, scale).
    Returns the moments of y as stored, (2, B, C), or None without `moments`. Raises ValueError for
    other memory formats.
    """
    if not x.numel():
        return x.new_zeros((2, *x.shape[:2]), dtype=torch.float32) if moments else None
    runs = Runs.of(x)
    maps = [x, add, times, mask, out]
    others = [Runs.of(other) if other is not None else runs for other in maps]
    if any(other[:3] != runs[:3] for other in others):
        raise ValueError("all maps must have one shape and one memory format")
    if bias is not None and runs.channels != x.shape[1]:
        raise ValueError("a bias needs maps in channels_last_3d")
    parts = runs.parts(x) if moments else None
    run(
        sweep_kernel,
        runs.grid(),
        x=x,
        norm=norm,
        bias=bias,
        add=add,
        times=times,
        mask=mask,
        out=out,
        parts=parts,
        slope=slope,
        voxels=runs.voxels,
        volumes=runs.volumes,
        PITCHES=tuple(other.pitch for other in others),
        C=runs.channels,
        RELU=relu,
        **runs.tiles(),
    )
    return None if parts is None else join(parts).view(2, *x.shape[:2])

"""Instance norm and leaky ReLU in the type of the map, with statistics in float32.

The gradient reads the result y, not the input: n = y or y / slope is the normalised value, g = dy
or dy * slope the gradient to it, and dx = scale (g - mean(g) - n mean(g n)).
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .launch import run
from .moments import join, store_part
from .sweep import Runs, sweep


@triton.jit
def before_activation(grad, out, slope):
    """The gradient to the normalised value, and that value."""
    grad, out = grad.to(tl.float32), out.to(tl.float32)
    return tl.where(out > 0, grad, grad * slope), tl.where(out > 0, out, out / slope)


@triton.jit
def gradient_kernel(
    grad,
    out,
    to,
    scale,
    means,
    parts,
    slope,
    voxels,
    volumes,
    tiles,
    PITCHES: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Write the means of g and g n to parts or, given `means` (2, volumes, C), the gradient."""
    chunks = tl.cdiv(voxels, ROWS * tiles)
    volume, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    some = channel < C
    count = tl.minimum(voxels - chunk * ROWS * tiles, ROWS * tiles)
    base = volume.to(tl.int64) * voxels + chunk * ROWS * tiles
    inner = tl.arange(0, ROWS)
    if means is not None:
        mean = tl.load(means + volume * C + channel, some, 0.0)[None, :]
        product = tl.load(means + (volumes + volume) * C + channel, some, 0.0)[None, :]
        factor = tl.load(scale + volume * C + channel, some, 0.0)[None, :]
    else:
        mean = tl.zeros((ROWS, BLOCK_C), tl.float32)
        product = tl.zeros((ROWS, BLOCK_C), tl.float32)
    for tile in range(tiles):
        row = tile * ROWS + inner
        exists = (row < count)[:, None] & some[None, :]
        row = row[:, None]
        at = base * PITCHES[0] + row * PITCHES[0] + channel[None, :]
        g = tl.load(grad + at, exists, 0.0)
        at = base * PITCHES[1] + row * PITCHES[1] + channel[None, :]
        g, n = before_activation(g, tl.load(out + at, exists, 0.0), slope)
        if means is not None:
            at = base * PITCHES[2] + row * PITCHES[2] + channel[None, :]
            g = factor * (g - mean - n * product)
            tl.store(to + at, g.to(to.dtype.element_ty), exists)
        else:
            mean += g
            product += g * n
    if means is None:
        n = tl.zeros((BLOCK_C,), tl.float32) + count.to(tl.float32)
        mean, product = tl.sum(mean, 0) / n, tl.sum(product, 0) / n
        store_part(parts, tl.program_id(0), channel, some, n, mean, product, C)


def moments(x: Tensor) -> Tensor:
    """(2, B, C) in float32: the mean of each channel of x (B, C, H, W, D), 1 / sqrt(var + 1e-5).

    x: float16, bfloat16 or float32, channels_last_3d with any pitch, or contiguous. It is read
    once. Raises ValueError for other memory formats.
    """
    found = sweep(x, None, moments=True)
    assert found is not None
    return found


def apply(x: Tensor, moments: Tensor, slope: float, out: Tensor) -> None:
    """Fill `out` with leaky((x - mean) * scale, slope), moments (2, B, C); out may be x."""
    sweep(x, out, norm=moments, slope=slope)


def backward(grad: Tensor, out: Tensor, scale: Tensor, slope: float, to: Tensor) -> None:
    """Fill `to` with the gradient to x; all in the memory format of the result `out`."""
    maps = [Runs.of(x) for x in (grad, out, to)]
    runs = maps[0]
    if any(other[:3] != runs[:3] for other in maps):
        raise ValueError("all maps must have one shape and one memory format")
    if not out.numel():
        return
    arguments = {
        "grad": grad,
        "out": out,
        "to": to,
        "scale": scale,
        "slope": slope,
        "voxels": runs.voxels,
        "volumes": runs.volumes,
        "PITCHES": tuple(other.pitch for other in maps),
        "C": runs.channels,
        **runs.tiles(),
    }
    parts = runs.parts(out)
    run(gradient_kernel, runs.grid(), parts=parts, means=None, **arguments)
    means = join(parts, means=True)
    run(gradient_kernel, runs.grid(), parts=None, means=means, **arguments)

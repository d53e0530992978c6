"""Memory-intensive steps, done for a few planes of the first axis at a time.

In training they are done at once, because the backward needs all results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

PLANES = 48  # of a slab at most: few enough to save memory, so many that the halo costs little
CORRELATED = 12  # of a correlation, whose halo costs less


def slabs(height: int, planes: int, halo: int) -> Iterator[tuple[slice, slice, slice]]:
    """Slabs of at most `planes`: where they are, with their halo, and where in the latter."""
    count = -(-height // planes)
    ends = [height * k // count for k in range(count + 1)]
    for start, end in pairwise(ends):
        first, last = max(start - halo, 0), min(end + halo, height)
        yield slice(start, end), slice(first, last), slice(start - first, end - first)


def in_slabs(function: Callable[..., Tensor], *maps: Tensor, halo: int) -> Tensor:
    """function(*maps), of which a plane depends on `halo` planes around it alone.

    maps: (B, C, H, W, D) each, to (B, outputs, H, W, D), channels_last_3d.
    """
    height = maps[0].shape[2]
    if torch.is_grad_enabled() or height <= PLANES:
        return function(*maps)
    out: Tensor | None = None
    for here, around, inside in slabs(height, PLANES, halo):
        found = function(*(x[:, :, around] for x in maps))
        out = room(maps[0], found.shape[1], found.dtype) if out is None else out
        out[:, :, here] = found[:, :, inside]
    assert out is not None
    return out


def beside_correlation(
    x: Tensor, y: Tensor, correlation: Callable[[Tensor, Tensor], Tensor], halo: int
) -> Tensor:
    """X, the correlation of both, and y, side by side, channels_last_3d.

    x, y: (B, C, H, W, D) -> (B, 2C + 27, H, W, D). correlation: to (B, 27, H, W, D), of which a
    plane depends on `halo` planes around it alone.
    """
    if torch.is_grad_enabled():
        return torch.cat([x, correlation(x, y), y], 1)
    channels = x.shape[1]
    out = room(x, 2 * channels + 27, x.dtype)
    out[:, :channels] = x
    out[:, -channels:] = y
    for here, around, inside in slabs(x.shape[2], CORRELATED, halo):
        found = correlation(x[:, :, around], y[:, :, around])
        out[:, channels:-channels, here] = found[:, :, inside]
    return out


def room(x: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """An empty map of the size of x, channels_last_3d."""
    size = (x.shape[0], channels, *x.shape[2:])
    order = torch.channels_last_3d
    return torch.empty(size, dtype=dtype, device=x.device, memory_format=order)

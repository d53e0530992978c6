"""Resampling volumes on a grid, with or without a displacement, by `ops.warp`.

The position in the source of each voxel of the result is a flow for `ops.warp`: the displacement
from the voxel's index in its slab. Flows are (1, 3, x, Y, Z) for a slab of x planes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from ..ops import warp
from ..runtime.device import CPU, fetched, placed, sent
from .grid import Grid, Volume, slab_size

HALF_UP = 1e-9  # voxels: added so that halves round up


def linear_on(
    grid: Grid,
    matrix: NDArray[np.floating],
    planes: slice,
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
) -> Tensor:
    """The product matrix @ (i, j, k, 1) at the voxels of some planes: (1, 3, x, Y, Z).

    matrix: (3, 4) or (4, 4), of which three rows are used.
    """
    lines = [torch.arange(n, dtype=torch.float64, device=device) for n in grid.shape]
    lines[0] = lines[0][planes]
    out = torch.empty(1, 3, *map(len, lines), dtype=dtype, device=device)
    for axis, (a, b, c, offset) in enumerate(np.asarray(matrix, float)[:3].tolist()):
        plane = (a * lines[0] + offset)[:, None] + b * lines[1]
        torch.add(plane.to(dtype)[..., None], (c * lines[2]).to(dtype), out=out[0, axis])
    return out


def index_flow(
    onto: Grid,
    into: Grid,
    planes: slice,
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
) -> Tensor:
    """Positions of the voxels of `onto` in voxels of `into`, minus their index in the slab."""
    matrix = np.linalg.inv(into.affine) @ onto.affine - np.eye(4)
    matrix[0, 3] += planes.start
    return linear_on(onto, matrix, planes, dtype, device)


def turned(matrix: NDArray[np.floating], vectors: Tensor) -> Tensor:
    """The (3, 3) matrix times each vector of (1, 3, x, Y, Z)."""
    return (sent(matrix, vectors) @ vectors.flatten(2)).reshape(vectors.shape)


def squared_length(vectors: Tensor) -> Tensor:
    """The square of the length of each vector of (1, 3, x, Y, Z): (1, x, Y, Z)."""
    first, second, third = vectors.unbind(1)
    return (first * first).addcmul_(second, second).addcmul_(third, third)


def channels_first(data: NDArray) -> Tensor:
    """(X, Y, Z, C) as (1, C, X, Y, Z)."""
    return torch.from_numpy(data).permute(3, 0, 1, 2)[None].contiguous()


def channels_last(data: Tensor) -> NDArray:
    """(1, C, X, Y, Z) as (X, Y, Z, C) on the CPU."""
    return fetched(data[0].permute(1, 2, 3, 0))


def places(flow: Tensor) -> list[Tensor]:
    """The voxel coordinates to which a flow points, each (x, Y, Z)."""
    return [
        line
        + torch.arange(n, dtype=line.dtype, device=line.device).reshape([-1, *[1] * (2 - axis)])
        for axis, (line, n) in enumerate(zip(flow[0], flow.shape[2:], strict=True))
    ]


def reaches(flow: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Mask (x, Y, Z) of flows that point to within half a voxel of the source's voxels."""
    lines = zip(places(flow), shape, strict=True)
    first, second, third = ((at >= -0.5) & (at < n - 0.5) for at, n in lines)
    return first & second & third


def read(image: Tensor, flow: Tensor, padding: str = "half") -> Tensor:
    """Trilinear values of an image (1, C, h, w, d) at a flow's positions: (1, C, x, Y, Z).

    padding: "zeros" or "border" as in `ops.warp`, or "half": the edge's value up to half a voxel
    outside, 0 farther out (ITK's rule).
    """
    if padding != "half":
        return warp(image, flow, padding=padding)
    return warp(image, flow, padding="border") * reaches(flow, image.shape[2:])


def read_nearest(image: Tensor, flow: Tensor) -> Tensor:
    """The nearest voxels' values at a flow's positions; halves round up, as in ITK.

    Both are float64, so that no label depends on rounding.
    """
    return warp(image, flow + HALF_UP, mode="nearest")


def pull(volume: Volume, onto: Grid, device: torch.device = CPU, padding: str = "zeros") -> Tensor:
    """Resample a volume to a grid: trilinear, float32 (1, 1, X, Y, Z). padding: see `read`."""
    image = placed(np.array(volume.data, np.float32), device)[None, None]
    out = torch.empty(1, 1, *onto.shape, device=device)
    for part in onto.slabs(slab_size(device)):
        flow = index_flow(onto, volume.grid, part, device=device)
        out[:, :, part] = read(image, flow, padding)
    return out


def smoothed(x: Tensor) -> Tensor:
    """(1, C, X, Y, Z) smoothed with weights 1, 2, 1 along each axis; the edge value continues."""
    for axis in (2, 3, 4):
        around = [0] * 6
        around[2 * (4 - axis)] = around[2 * (4 - axis) + 1] = 1
        wide = pad(x, around, mode="replicate")
        n = x.shape[axis]
        x = (wide.narrow(axis, 0, n) + 2 * x + wide.narrow(axis, 2, n)) / 4
    return x

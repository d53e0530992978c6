"""Interpolating arrays at fractional voxel coordinates."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ..ops import reference
from .grid import Array


def inside(index: Array, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """True within half a voxel of a voxel centre: the region in which ITK interpolates.

    index: (..., 3) voxel coordinates. Returns (...,).
    """
    within = (index >= -0.5) & (index < np.array(shape[:3]) - 0.5)
    return np.asarray(within[..., 0] & within[..., 1] & within[..., 2])


def sample(data: NDArray, index: Array, mode: str = "trilinear", padding: str = "zeros") -> NDArray:
    """Values of `data` at fractional voxel coordinates.

    data: (X, Y, Z) or (X, Y, Z, C). index: (..., 3). mode: "trilinear", or "nearest", which rounds
    halves up as ITK does. padding: "zeros" or "border" as in `ops.warp`, or "half": the edge's
    value up to half a voxel outside, 0 farther out (ITK's rule); "nearest" always keeps to it.
    Returns (...,) or (..., C): "nearest" in the type of `data`, else float32 where `data` is, or
    float64.
    """
    shape = index.shape[:-1] + data.shape[3:]
    points = np.asarray(index, np.float64).reshape(-1, 3)
    if mode == "nearest":
        voxels = np.floor(points + 0.5).astype(np.int64)
        last = np.array(data.shape[:3]) - 1
        values = data[tuple(np.clip(voxels, 0, last).T)]
        values[~inside(points, data.shape)] = 0
        return values.reshape(shape)
    channels = np.array(points.T, order="C")
    values = sample_channels(data, channels, "border" if padding == "half" else padding).T
    if padding == "half":
        values = values * inside(points, data.shape)[:, None]
    return values.reshape(shape)


def sample_channels(data: NDArray, points: Array, padding: str) -> NDArray:
    """Trilinear values at scattered voxel coordinates, channels first: points (3, N) -> (C, N).

    float32 where `data` is, else float64.
    """
    kind = np.float32 if data.dtype == np.float32 else np.float64
    if not points.size:
        return np.zeros((int(np.prod(data.shape[3:])), 0), kind)
    size = np.array(data.shape[:3])
    low = np.clip(np.floor(points.min(1)), 0, size - 1).astype(int)
    high = np.clip(np.floor(points.max(1)) + 2, low + 1, size).astype(int)
    crop = data[tuple(map(slice, low, high))]  # only the part that is read is converted
    image = torch.from_numpy(crop.astype(kind).reshape(*crop.shape[:3], -1))
    axes = torch.from_numpy((points - low[:, None]).astype(kind)).reshape(3, 1, -1, 1, 1)
    out = reference.read(image.permute(3, 0, 1, 2)[None], list(axes), "trilinear", padding)
    return out[0, :, :, 0, 0].numpy()


def cell(index: Array, shape: tuple[int, ...]) -> Iterator[tuple[NDArray[np.int64], Array, Array]]:
    """The eight voxels around each point, clamped to the array.

    index: (N, 3) voxel coordinates; those outside are moved to the array's edge.
    Yields eight times: voxel (N, 3); the factors (N, 3) whose product is its trilinear weight; and
    the sign (3,) of each factor's slope.
    """
    last = np.array(shape[:3]) - 1
    nearest = np.clip(index, 0, last)
    base = np.minimum(nearest.astype(np.int64), np.maximum(last - 1, 0))
    fraction = nearest - base
    for corner in itertools.product((0, 1), repeat=3):
        upper = np.array(corner, bool)
        voxel = np.minimum(base + upper, last)
        yield voxel, np.where(upper, fraction, 1 - fraction), np.where(upper, 1.0, -1.0)


def sample_labels(data: NDArray, index: Array) -> NDArray:
    """The label whose indicator, interpolated linearly, is largest; of equals, the lowest.

    data: (X, Y, Z), integers. index: (..., 3) voxel coordinates. Farther than half a voxel outside
    the result is 0. Returns (...,) in the type of `data`.
    """
    points = np.asarray(index, np.float64).reshape(-1, 3)
    voxels, factors = zip(*((v, f) for v, f, _ in cell(points, data.shape)), strict=True)
    labels = np.stack([data[tuple(voxel.T)] for voxel in voxels])
    out = labels.min(0)
    mixed = np.flatnonzero((labels != out).any(0))
    labels = labels[:, mixed]
    weights = np.stack([factor[mixed].prod(-1) for factor in factors])
    best = np.zeros(len(mixed))
    for label in labels:
        share = (weights * (labels == label)).sum(0)
        better = (share > best) | ((share == best) & (label < out[mixed]))
        best = np.where(better, share, best)
        out[mixed] = np.where(better, label, out[mixed])
    out[~inside(points, data.shape)] = 0
    return out.reshape(index.shape[:-1])

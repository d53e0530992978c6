"""Distances between the surfaces of labels, in the definitions of published tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError
from ..runtime.device import CPU
from ..volumes.grid import Array
from .label_maps import coded, listed
from .nearest import nearest

PROFILES = ("medpy", "paper", "monai", "learn2reg")
LOST_DICE, LOST_HD95 = 0.05, 5.0  # the published rule of profile "paper"
CORNERS = list(itertools.product((0, 1), repeat=3))  # of a cube, the bits of its code in order


def hd95(
    a: NDArray,
    b: NDArray,
    spacing: Sequence[float] | Array,
    labels: Iterable[int] | None = None,
    profile: str = "medpy",
    device: torch.device = CPU,
) -> dict[int, float]:
    """95th percentile of the distances between the two surfaces of each label.

    A surface consists of the label's voxels with a face neighbour outside it (or at the border); of
    a 2D map, (X, Y, 1), with one in the plane. A distance is that of a surface voxel's centre to
    the nearest one of the other map's surface.
    a, b: (X, Y, Z) integer label maps. spacing: (3,) mm. labels: by default all but 0 that occur.
    profile: "medpy", in mm, pools both directions before taking the percentile (MedPy's hd95, the
        definition of most published tables); "paper" adds the rule of the published LGANet++
        script, by which a label with a Dice below 0.05 counts as 5; "monai", in mm, is the larger
        of the two directed percentiles (MONAI's compute_hausdorff_distance with percentile=95);
        "learn2reg" is the same in voxels, over surface elements between the voxels, weighted by
        their area (DeepMind's surface-distance with spacing 1).
    device: where the nearest points are found. A GPU compares all pairs of points, the CPU uses a
        k-d tree; the distances agree to rounding in float64.
    Returns NaN for a label that one map lacks; with "paper" 5 if the other map has it.
    Raises InputError for other shapes or profiles.
    """
    if profile not in PROFILES:
        raise InputError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}")
    names = listed(a, b, labels)
    codes = [coded(x, names) for x in (a, b)]
    if profile == "learn2reg":
        found = [_between_voxels(x, len(names)) for x in codes]
    else:
        found = [_voxel_centres(x, len(names), np.asarray(spacing, float)) for x in codes]
    distances = {
        name: _distance(from_a, from_b, profile, device)
        for name, from_a, from_b in zip(names, *found, strict=True)
    }
    if profile == "paper":
        distances |= {names[code - 1]: LOST_HD95 for code in _lost(codes[0], codes[1], len(names))}
    return distances


Surface = tuple[Array, Array]  # (N, 3) points and the (N,) area that each stands for


def _distance(a: Surface | None, b: Surface | None, profile: str, device: torch.device) -> float:
    if a is None or b is None:
        return float("nan")
    there, back = nearest(a[0], b[0], device)
    if profile == "monai":
        return float(max(np.percentile(there, 95), np.percentile(back, 95)))
    if profile == "learn2reg":
        return max(_weighted_percentile(there, a[1]), _weighted_percentile(back, b[1]))
    return float(np.percentile(np.concatenate([there, back]), 95))


def _weighted_percentile(distances: Array, areas: Array) -> float:
    """The smallest distance within which 95% of the area lies."""
    order = np.lexsort((areas, distances))
    share = np.cumsum(areas[order])
    place = min(int(np.searchsorted(share / share[-1], 0.95)), len(order) - 1)
    return float(distances[order[place]])


def _lost(a: NDArray[np.intp], b: NDArray[np.intp], count: int) -> list[int]:
    """Codes that occur and whose Dice is below LOST_DICE."""
    total = np.bincount(a.ravel(), minlength=count + 1) + np.bincount(
        b.ravel(), minlength=count + 1
    )
    both = np.bincount(a[a == b], minlength=count + 1)
    lost = (total > 0) & (2 * both < LOST_DICE * total)
    return [code for code in np.flatnonzero(lost).tolist() if code]


def _voxel_centres(codes: NDArray[np.intp], count: int, spacing: Array) -> list[Surface | None]:
    """For each code from 1 to `count`, its surface voxels in mm; None if it is absent."""
    surface = np.zeros(codes.shape, bool)
    for axis, size in enumerate(codes.shape):
        if size == 1 and codes.shape.count(1) == 1:
            continue  # a 2D map: its surfaces are lines in the plane
        at, before, after = (np.moveaxis(x, axis, 0) for x in (surface, codes, codes))
        change = before[1:] != after[:-1]
        at[1:] |= change
        at[:-1] |= change
        at[[0, -1]] = True
    places = np.flatnonzero(surface & (codes > 0))
    found = codes.ravel()[places]
    order = np.argsort(found, kind="stable")
    points = np.stack(np.unravel_index(places[order], codes.shape), -1) * spacing
    ends = np.searchsorted(found[order], np.arange(1, count + 2))
    one = np.ones(len(points))
    return [(points[i:j], one[i:j]) if j > i else None for i, j in itertools.pairwise(ends)]


def _between_voxels(codes: NDArray[np.intp], count: int) -> list[Surface | None]:
    """For each code, the voxel corners on its surface, in voxels, and the area at each."""
    from scipy.ndimage import find_objects

    out: list[Surface | None] = []
    boxes = find_objects(codes, max_label=count)
    for code, box in enumerate(boxes, start=1):
        if box is None:
            out.append(None)
            continue
        inside = np.pad(codes[box] == code, 1).astype(np.uint8)
        cubes = np.zeros(tuple(n - 1 for n in inside.shape), np.uint8)
        for bit, corner in enumerate(CORNERS):
            cut = tuple(slice(c, c + n) for c, n in zip(corner, cubes.shape, strict=True))
            cubes |= inside[cut] << bit
        areas = _areas()[cubes]
        at = np.nonzero(areas)
        out.append((np.stack(at, -1) + [s.start for s in box], areas[at]))
    return out


@cache
def _areas() -> Array:
    """(256,) area of the surface in a unit cube, by which of its 8 corners are inside.

    Marching cubes with the surface through the midpoints of the edges: corners of the rarer kind
    are cut off in groups connected by edges, each group by facets whose area depends on how its
    corners are connected.
    """
    from scipy.ndimage import label

    out = np.zeros(256)
    for code in range(256):
        inside = np.array([code >> bit & 1 for bit in range(8)]).reshape(2, 2, 2)
        groups, count = label(inside if inside.sum() <= 4 else 1 - inside)
        if inside.any() and not inside.all():
            out[code] = sum(_group_area(np.argwhere(groups == n + 1)) for n in range(count))
    return out


def _group_area(corners: NDArray) -> float:
    """The area that separates up to four connected corners of a unit cube from the others."""
    joined = np.abs(corners[:, None] - corners).sum(-1) == 1
    triangle = np.sqrt(3) / 8  # cuts one corner off, across the middles of its edges
    if len(corners) == 1:
        return float(triangle)
    if len(corners) == 2:
        return float(np.sqrt(0.5))
    if len(corners) == 3:
        return float(0.5 + 3 * triangle)
    if joined.sum() == 8:  # a face
        return 1.0
    if joined.sum(0).max() == 3:  # a corner and its neighbours: a regular hexagon
        return float(6 * triangle)
    return float(np.sqrt(0.5) + 4 * triangle)  # a path

"""The distance from each point of a set to the nearest point of another."""

from __future__ import annotations

import torch

from ..runtime.device import fetched
from ..volumes.grid import Array

PAIRS = 1 << 24  # of points whose distances are in memory at once, on a GPU


def nearest(a: Array, b: Array, device: torch.device) -> tuple[Array, Array]:
    """The distances from the points of a to the nearest of b, and from those of b to a.

    a, b: (N, 3) and (M, 3), not empty. Returns (N,) and (M,) in float64.
    """
    return by_tree(a, b) if device.type == "cpu" else by_all_pairs(a, b, device)


def by_tree(a: Array, b: Array) -> tuple[Array, Array]:
    """`nearest` by two k-d trees on the CPU."""
    from scipy.spatial import KDTree  # slow to load, as all of SciPy

    return KDTree(b).query(a, workers=-1)[0], KDTree(a).query(b, workers=-1)[0]


def by_all_pairs(a: Array, b: Array, device: torch.device) -> tuple[Array, Array]:
    """`nearest` from the distances of all pairs, about PAIRS of them at a time."""
    points, others = (torch.from_numpy(x).to(device) for x in (a, b))
    there, back = [], torch.full((len(b),), torch.inf, dtype=others.dtype, device=device)
    for part in torch.split(points, max(1, PAIRS // len(b))):
        distances = torch.cdist(part, others, compute_mode="donot_use_mm_for_euclid_dist")
        there.append(distances.amin(1))
        back = torch.minimum(back, distances.amin(0))
    return fetched(torch.cat(there)), fetched(back)

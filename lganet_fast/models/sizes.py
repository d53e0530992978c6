"""Which volumes the network can take, and what to pad the others to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ..errors import InputError
from ..nn.lgam import WINDOW

FACTOR = 8  # between the finest and the coarsest level
SMALLEST = FACTOR * WINDOW


def fits(size: Sequence[int], token_order: str) -> bool:
    """Whether the network runs on (H, W, D) as it is."""
    if any(n % FACTOR or n < SMALLEST for n in size):
        return False
    if token_order == "spatial":
        return True
    windows = voxels = 1
    for n in size:
        windows *= n // FACTOR // WINDOW
        voxels *= n // FACTOR
    return voxels % windows == 0


def padded_size(size: Sequence[int], token_order: str) -> tuple[int, int, int]:
    """The size of fewest voxels that the network runs on and that holds (H, W, D).

    Sides are multiples of 8 and at least 48. In published token order the coarsest level's windows
    must also split its voxels evenly; sides that are multiples of 48 always do.
    Raises InputError for what is not three sides of at least one voxel.
    """
    if len(size) != 3 or min(size) < 1:
        raise InputError(f"size must be three sides of at least one voxel, got {tuple(size)}")
    starts = [max(-(-n // FACTOR) * FACTOR, SMALLEST) for n in size]
    sides = [range(start, start + SMALLEST, FACTOR) for start in starts]
    found = [(h, w, d) for h, w, d in itertools.product(*sides) if fits((h, w, d), token_order)]
    return min(found, key=lambda s: (s[0] * s[1] * s[2], s))

"""The volume sizes that the networks support, and padding to them."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import TypeAlias

from ..errors import InputError
from ..nn.lgam import WINDOW

Size: TypeAlias = tuple[int, int, int]
FACTOR = 8  # between LGANet++'s finest and coarsest level
MORE = 6  # lengths tried for a side


def smallest_that_fits(
    size: Sequence[int], multiple: int, least: int, fits: Callable[[Size], bool] | None = None
) -> Size:
    """The smallest size that contains (H, W, D) and that a network supports.

    Its sides are multiples of `multiple` and at least `least`, and `fits` of it is true, which must
    hold for a size among the six next lengths of each side.
    Raises InputError unless it is three sides of at least one voxel.
    """
    size = [operator.index(n) for n in size]
    if len(size) != 3 or min(size) < 1:
        raise InputError(f"size must be three sides of at least one voxel, got {tuple(size)}")
    starts = [max(-(-n // multiple) * multiple, least) for n in size]
    first = (starts[0], starts[1], starts[2])
    if fits is None or fits(first):
        return first
    sides = [range(n, n + MORE * multiple, multiple) for n in starts]
    found = [(h, w, d) for h, w, d in itertools.product(*sides) if fits((h, w, d))]
    return min(found, key=lambda s: (s[0] * s[1] * s[2], s))


def windows_fit(size: Sequence[int], factor: int) -> bool:
    """Whether runs of tokens, one for each window, split the voxels of the coarsest level evenly.

    factor: between the finest and the coarsest level.
    """
    windows = voxels = 1
    for n in size:
        windows *= n // factor // WINDOW
        voxels *= n // factor
    return windows > 0 and voxels % windows == 0


def fits(size: Sequence[int], token_order: str) -> bool:
    """Whether LGANet++ supports (H, W, D) without padding."""
    if any(n % FACTOR or n < FACTOR * WINDOW for n in size):
        return False
    return token_order == "spatial" or windows_fit(size, FACTOR)


def padded_size(size: Sequence[int], token_order: str) -> Size:
    """The smallest size that LGANet++ supports and that contains (H, W, D).

    Sides are multiples of 8 and at least 48. In published token order the coarsest level's windows
    must also split its voxels evenly, which holds for all multiples of 48.
    Raises InputError unless it is three sides of at least one voxel.
    """
    return smallest_that_fits(size, FACTOR, FACTOR * WINDOW, lambda found: fits(found, token_order))

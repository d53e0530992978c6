"""Folding that no difference scheme hides: the volume where a sampled map is not one to one.

Central differences skip the voxel itself: neighbours that change places go unnoticed. Here every
cell of eight voxels is split into five tetrahedra in both possible ways; a map that is linear in
each of the ten folds exactly where one of them is turned inside out (Liu et al., On finite
difference Jacobian computation in deformable image registration, IJCV 2024).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..runtime.device import numbers, placed, sent
from ..transforms.field import DisplacementField
from ..transforms.jacobian import triple_product
from ..volumes.grid import Grid, slab_size

CORNERS = tuple(itertools.product((0, 1), repeat=3))
# The two central tetrahedra: one vertex each, and those that differ from it in two of three places.
CENTRAL = ((0, 0, 0), (1, 1, 1))
SHARES = torch.tensor([1 / 6] * 8 + [1 / 3] * 2, dtype=torch.float64) / 2  # of the cell, two splits


class Folding(NamedTuple):
    """The cells and the volume of a map that fold.

    percent: non-diffeomorphic volume (NDV) in per cent of the volume measured. mm3: the same in
    cubic millimetres of the image of the map. cells_percent: cells with a folded tetrahedron, in
    per cent. NaN where the mask is empty.
    """

    percent: float
    mm3: float
    cells_percent: float


def folding(field: DisplacementField, mask: NDArray | None = None) -> Folding:
    """How much of a field's volume folds.

    mask: (X, Y, Z) on the field's grid; cells with a non-zero voxel count.
    Raises InputError for a mask of another shape.
    """
    grid = field.grid
    if mask is not None and mask.shape != grid.shape:
        raise InputError(f"mask must have shape {grid.shape}, got {mask.shape}")
    inside = None if mask is None else placed(touched_cells(mask), field.device)
    sums = torch.zeros(3, dtype=torch.float64, device=field.device)  # volume, folded cells, cells
    for planes, ratios in tetrahedra(field):
        shares = SHARES.to(ratios.device)[:, None, None, None]
        volume = (shares * ratios.clamp(max=0).neg()).sum(0)
        folded = (~(ratios > 0)).any(0)  # NaN counts as folded
        counted = torch.ones_like(folded) if inside is None else inside[planes]
        chosen = torch.where(counted, volume, 0.0).sum(), (folded & counted).sum(), counted.sum()
        sums += torch.stack([one.double() for one in chosen])
    turned, torn, cells = numbers(list(sums))
    if not cells:
        return Folding(*[float("nan")] * 3)
    cell = abs(float(np.linalg.det(grid.affine[:3, :3])))
    return Folding(100 * turned / cells, turned * cell, 100 * torn / cells)


def tetrahedra(field: DisplacementField) -> Iterator[tuple[slice, Tensor]]:
    """The volume of each tetrahedron after the map over that before, negative if inside out.

    Yields slabs of cells along X: the slab, and (10, x, Y-1, Z-1) float64 on the field's device,
    the eight at the corners of a cell in the order of CORNERS, then the two central ones.
    """
    grid = field.grid
    cells = Grid((grid.shape[0] - 1, grid.shape[1], grid.shape[2]), grid.affine)
    volume = float(np.linalg.det(grid.affine[:3, :3]))
    for planes in cells.slabs(slab_size(field.device)):
        shift = field.vectors(slice(planes.start, planes.stop + 1))[0].double()

        def away(corner: tuple[int, ...], to: tuple[int, ...], shift: Tensor = shift) -> Tensor:
            """T at one corner of every cell minus T at another, (3, x, Y-1, Z-1)."""
            step = grid.affine[:3, :3] @ np.subtract(to, corner)
            return _at(shift, to) - _at(shift, corner) + sent(step, shift)[:, None, None, None]

        ratios: list[Tensor] = []
        for corner in (*CORNERS, *CENTRAL):
            changed = 1 if len(ratios) < len(CORNERS) else 2
            ends = [to for to in CORNERS if _apart(corner, to) == changed]
            first, second, third = (away(corner, to).unbind() for to in ends)
            ratio = triple_product(first, second, third)
            before = np.linalg.det(np.array(ends, float) - np.array(corner))
            ratios.append(ratio / (before * volume))
        yield planes, torch.stack(ratios)


def touched_cells(mask: NDArray) -> NDArray[np.bool_]:
    """(X-1, Y-1, Z-1): whether any of the eight voxels of a cell is in the mask."""
    inside = mask != 0
    for axis in range(3):
        n = inside.shape[axis]
        inside = inside.take(range(n - 1), axis) | inside.take(range(1, n), axis)
    return inside


def _at(values: Tensor, corner: tuple[int, ...]) -> Tensor:
    """The values (3, X, Y, Z) at one corner of every cell."""
    for axis, upper in enumerate(corner, start=1):
        values = values.narrow(axis, upper, values.shape[axis] - 1)
    return values


def _apart(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))

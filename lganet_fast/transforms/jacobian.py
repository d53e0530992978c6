"""The Jacobian determinant of a displacement field: local volume change of the map it defines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..runtime.device import sent
from ..volumes.grid import Grid


def jacobian_determinant(
    displacement: NDArray, grid: Grid, difference: str = "central"
) -> NDArray[np.float64]:
    """det(dT/dx) of the map T(x) = x + d(x) at the voxels of its grid.

    displacement: (X, Y, Z, 3) in RAS+ mm, on `grid`. The determinant has no unit: 1 keeps volume,
    2 doubles it, 0 or less folds. It does not depend on the frame (RAS or LPS, mm or voxels).
    difference: "central", one-sided at the border (as np.gradient), returns (X, Y, Z);
        "forward" drops the last plane of each axis, returns (X-1, Y-1, Z-1).
    An axis of a single voxel counts as constant. Raises InputError for another shape or name.
    """
    if displacement.shape != (*grid.shape, 3):
        raise InputError(
            f"displacement must have shape {(*grid.shape, 3)}, got {displacement.shape}"
        )
    if difference not in ("central", "forward"):
        raise InputError(f"difference must be central or forward, got {difference!r}")
    out = np.empty(grid.shape)
    for part, det in determinants(torch.from_numpy(displacement), grid, difference):
        out[part] = det.numpy()
    if difference == "central":
        return out
    return out[tuple(slice(0, max(n - 1, 1)) for n in grid.shape)]


def determinants(
    displacement: Tensor, grid: Grid, difference: str, size: int | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """The determinant in slabs of about `size` voxels, float64 (x, Y, Z) on the device of
    `displacement` (X, Y, Z, 3); on the last plane of an axis "forward" is undefined.
    """
    derivative = _central if difference == "central" else forward_difference
    volume = float(np.linalg.det(grid.affine[:3, :3]))
    unmoved = sent(grid.affine[:3, :3], displacement.new_empty(0, dtype=torch.float64)).T
    for part in grid.slabs(size):
        first = max(part.start - 1, 0)
        slab = displacement[first : part.stop + 1].double()
        # Columns of dT/d(index): its determinant over that of the affine is det(dT/dx).
        columns = [(derivative(slab, axis) + unmoved[axis]).unbind(-1) for axis in range(3)]
        det = triple_product(*columns) / volume
        yield part, det[part.start - first :][: part.stop - part.start]


def _central(field: Tensor, axis: int) -> Tensor:
    """Half the difference of both neighbours; one-sided at the border."""
    n = field.shape[axis]
    if n == 1:
        return torch.zeros_like(field)
    first, last = (field.narrow(axis, i + 1, 1) - field.narrow(axis, i, 1) for i in (0, n - 2))
    inner = (field.narrow(axis, 2, n - 2) - field.narrow(axis, 0, n - 2)) / 2
    return torch.cat([first, inner, last], axis)


def forward_difference(field: Tensor, axis: int) -> Tensor:
    """The next voxel along an axis minus this voxel; 0 for the last."""
    return field.diff(dim=axis, append=field.narrow(axis, -1, 1))


Columns = Sequence[Tensor]


def triple_product(a: Columns, b: Columns, c: Columns) -> Tensor:
    """The product a . (b x c), each in its three components."""
    out = a[0] * (b[1] * c[2] - b[2] * c[1])
    out += a[1] * (b[2] * c[0] - b[0] * c[2])
    out += a[2] * (b[0] * c[1] - b[1] * c[0])
    return out

"""A displacement field that knows its grid, its units and its direction."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from . import jacobian
from .errors import InputError
from .grid import SLAB, Array, Grid, Volume
from .inverse import Inverter
from .resample import (
    channels_first,
    channels_last,
    index_flow,
    linear_on,
    places,
    read,
    read_nearest,
    turned,
)
from .sampling import inside, sample, sample_labels

INTERPOLATIONS = ("linear", "nearest", "label")


@dataclass(frozen=True, eq=False)
class DisplacementField:
    """The map T(x) = x + d(x) from points of the fixed image to points of the moving one.

    displacement: (X, Y, Z, 3) float32, d at the voxel centres, in RAS+ mm.
    grid: the fixed image's Grid, of shape (X, Y, Z).

    Between voxels d is linear; up to half a voxel outside the grid it keeps the edge's value, and
    farther out it is 0, as in ITK. Raises ValueError for another shape or type.
    """

    displacement: NDArray[np.float32]
    grid: Grid

    def __post_init__(self) -> None:
        if self.displacement.shape != (*self.grid.shape, 3):
            raise ValueError(
                f"displacement must have shape {(*self.grid.shape, 3)}, "
                f"got {self.displacement.shape}"
            )
        if self.displacement.dtype != np.float32:
            raise ValueError(f"displacement must be float32, got {self.displacement.dtype}")

    def map(self, points: ArrayLike) -> Array:
        """T(x): fixed points (..., 3) to moving points (..., 3), both in RAS+ mm."""
        x = np.asarray(points, np.float64)
        return x + sample(self.displacement, self.grid.to_index(x), padding="half")

    def map_inverse(self, points: ArrayLike) -> Array:
        """The x with T(x) = y: moving points (..., 3) to fixed points (..., 3), in RAS+ mm.

        |T(x) - y| is under 1e-3 mm wherever such an x exists; elsewhere x is the nearest guess, and
        `map` shows by how much it misses. A y outside the grid that no x inside reaches stays.
        """
        y = np.asarray(points, np.float64)
        flat = y.reshape(-1, 3)
        inverter = Inverter(self.displacement, self.grid)
        parts = [flat[i : i + SLAB] for i in range(0, len(flat), SLAB)] or [flat]
        x = np.concatenate([inverter.solve(part, inverter.start(part)) for part in parts])
        left, apart = (~inside(self.grid.to_index(p), self.grid.shape) for p in (x, flat))
        return np.where((left & apart)[:, None], flat, x).reshape(y.shape)

    def apply(
        self, volume: Volume, reference: Grid | None = None, interpolation: str = "linear"
    ) -> Volume:
        """The moving volume on the fixed side: at each x of the result, volume(T(x)).

        reference: the grid of the result; the field's own where omitted.
        interpolation: "linear" (float32 result), "nearest", or "label": the label whose indicator,
        interpolated linearly, is largest. The last two keep the data's type. As in ITK, the volume
        keeps its edge value up to half a voxel outside and is 0 farther out.
        Raises InputError for another interpolation.
        """
        if interpolation not in INTERPOLATIONS:
            raise InputError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}"
            )
        grid = reference or self.grid
        if interpolation == "linear":
            image = torch.from_numpy(np.array(volume.data, np.float32))[None, None]
            out = np.empty(grid.shape, np.float32)
            for part, flow in self._flows(grid, volume.grid):
                out[part] = read(image, flow)[0, 0].numpy()
            return Volume(out, grid, volume.name)
        out = np.empty(grid.shape, volume.data.dtype)
        nearest = interpolation == "nearest"
        wide = torch.from_numpy(volume.data.astype(np.float64))[None, None] if nearest else None
        for part, flow in self._flows(grid, volume.grid, torch.float64):
            if wide is not None:
                out[part] = read_nearest(wide, flow)[0, 0].numpy()
            else:
                out[part] = sample_labels(volume.data, torch.stack(places(flow), -1).numpy())
        return Volume(out, grid, volume.name)

    def invert(
        self, grid: Grid | None = None, guess: DisplacementField | None = None
    ) -> DisplacementField:
        """The inverse map, from moving points to fixed points, as a field on another grid.

        grid: usually the moving image's; the field's own where omitted. guess: a field near the
        inverse, which saves time. |T(x) - y| is under 1e-3 mm at every voxel y that some x
        reaches, d keeping its edge's value outside its grid; elsewhere it is locally least.
        """
        grid = grid or self.grid
        inverter = Inverter(self.displacement, self.grid)
        out = np.empty((*grid.shape, 3), np.float32)
        for part in grid.slabs():
            near = None if guess is None else channels_first(guess.displacement[part])
            out[part] = channels_last(inverter.solve_on(grid, part, near))
        return DisplacementField(out, grid)

    def compose(self, first: DisplacementField) -> DisplacementField:
        """The map x -> T(first(x)), as a field on the grid of `first`."""
        out = np.empty_like(first.displacement)
        field = channels_first(self.displacement)
        for part, flow in first._flows(first.grid, self.grid):
            out[part] = channels_last(read(field, flow)) + first.displacement[part]
        return DisplacementField(out, first.grid)

    def voxels(self, moving: Grid) -> NDArray[np.float32]:
        """The flow u, (X, Y, Z, 3), in voxels: voxel p of the fixed grid moves to p + u(p).

        moving: the moving image's grid, whose voxels p + u(p) counts.
        """
        out = np.empty_like(self.displacement)
        for part, flow in self._flows(self.grid, moving, torch.float64):
            flow[:, 0] -= part.start
            out[part] = channels_last(flow)
        return out

    @classmethod
    def from_affine(cls, matrix: NDArray[np.floating], grid: Grid) -> DisplacementField:
        """The field of an affine map (4, 4) of RAS+ mm."""
        out = np.empty((*grid.shape, 3), np.float32)
        for part in grid.slabs():
            out[part] = channels_last(linear_on(grid, (matrix - np.eye(4)) @ grid.affine, part))
        return cls(out, grid)

    @classmethod
    def from_voxels(cls, flow: NDArray, fixed: Grid, moving: Grid) -> DisplacementField:
        """The field of a flow in voxels: voxel p of `fixed` moves to p + u(p) of `moving`.

        flow: u, (X, Y, Z, 3), on the fixed grid. Raises ValueError for another shape.
        """
        out = np.empty((*fixed.shape, 3), np.float32)
        index_grid = Grid(fixed.shape, np.eye(4))
        if flow.shape != out.shape:
            raise ValueError(f"flow must have shape {out.shape}, got {flow.shape}")
        for part in fixed.slabs():
            out[part] = moving.to_world(index_grid.world(part) + flow[part]) - fixed.world(part)
        return cls(out, fixed)

    def jacobian_determinant(self) -> Array:
        """det(dT/dx) at each voxel, (X, Y, Z): central differences, one-sided at the border."""
        return jacobian.jacobian_determinant(self.displacement, self.grid)

    def save(
        self, path: str | os.PathLike[str], format: str | None = None, moving: Grid | None = None
    ) -> None:
        """Write the field to a file, whole or not at all.

        format: a name of `lganet_fast.formats.FORMATS`; where omitted, .nii and .nii.gz mean "itk"
        and .h5 means "h5". moving: the moving image's grid, for formats that count in voxels.
        Raises InputError for a name, extension or grid that does not fit, or an unwritable file.
        """
        from .formats import write_field

        write_field(self, path, format, moving)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        format: str | None = None,
        fixed: Grid | None = None,
        moving: Grid | None = None,
    ) -> DisplacementField:
        """Read a field from a file of any of `lganet_fast.formats.FORMATS`.

        format: recognised by the content where omitted. fixed, moving: the images' grids, for
        formats that do not carry them.
        Raises InputError where the file is unreadable, not a field, or of unknown units.
        """
        from .formats import read_field

        return read_field(path, format, fixed, moving)

    def _flows(
        self, grid: Grid, into: Grid, dtype: torch.dtype = torch.float32
    ) -> Iterator[tuple[slice, Tensor]]:
        """Where T takes the voxels of a grid, slab by slab, as `resample.read` reads `into`."""
        own = grid.shape == self.grid.shape and np.array_equal(grid.affine, self.grid.affine)
        field = None if own else channels_first(self.displacement)
        to_index = np.linalg.inv(into.affine)[:3, :3]
        for part in grid.slabs():
            if field is None:
                shift = channels_first(self.displacement[part])
            else:
                shift = read(field, index_flow(grid, self.grid, part))
            yield part, index_flow(grid, into, part, dtype) + turned(to_index, shift.to(dtype))

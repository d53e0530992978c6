"""The displacement field, with its grid, units and direction."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import InputError
from ..runtime.device import CPU, fetched, placed
from ..volumes.grid import Array, Grid, Volume, as_points, slab_size
from ..volumes.resample import (
    channels_first,
    channels_last,
    index_flow,
    linear_on,
    places,
    reaches,
    read,
    read_nearest,
    turned,
)
from ..volumes.sampling import inside, sample, sample_labels
from . import jacobian
from .formats import read_vectors, write_vectors
from .interpolation import INTERPOLATIONS
from .inverse import Inverter
from .units import from_voxels, to_voxels


class DisplacementField:
    """The map T(x) = x + d(x) from points of the fixed image to points of the moving image.

    displacement: (X, Y, Z, 3) float32, d at the voxel centres, in RAS+ mm; or d as a tensor,
    (1, 3, X, Y, Z) float32, whose device then computes everything until `displacement` is read.
    grid: the fixed image's Grid, of shape (X, Y, Z).

    d is interpolated linearly between voxels; up to half a voxel outside the grid it keeps the
    value at the edge, and farther out it is 0, as in ITK. Raises InputError for another shape or
    type.
    """

    def __init__(self, displacement: NDArray[np.float32] | Tensor, grid: Grid) -> None:
        apart = isinstance(displacement, Tensor)
        wanted = (1, 3, *grid.shape) if apart else (*grid.shape, 3)
        if tuple(displacement.shape) != wanted:
            raise InputError(
                f"displacement must have shape {wanted}, got {tuple(displacement.shape)}"
            )
        if displacement.dtype != (torch.float32 if apart else np.float32):
            raise InputError(f"displacement must be float32, got {displacement.dtype}")
        self.grid = grid
        self._tensor = displacement if isinstance(displacement, Tensor) else None
        self._array = None if isinstance(displacement, Tensor) else displacement

    @property
    def displacement(self) -> NDArray[np.float32]:
        """The displacement at the voxel centres, (X, Y, Z, 3) float32 in RAS+ mm."""
        if self._array is None:
            assert self._tensor is not None
            self._array = channels_last(self._tensor)
        return self._array

    @property
    def device(self) -> torch.device:
        """The device that computes on the field."""
        return CPU if self._tensor is None else self._tensor.device

    def vectors(self, planes: slice = slice(None)) -> Tensor:
        """The displacement in some planes, (1, 3, x, Y, Z), on the field's device."""
        if self._tensor is None:
            return channels_first(self.displacement[planes])
        return self._tensor[:, :, planes]

    @classmethod
    def of_slabs(
        cls, part: Callable[[slice], Tensor], grid: Grid, device: torch.device
    ) -> DisplacementField:
        """The field whose vectors `part` computes, plane range by plane range, on a device."""
        slabs = grid.slabs(slab_size(device))
        if device.type != "cpu":
            return cls(torch.cat([part(planes) for planes in slabs], 2), grid)
        out = np.empty((*grid.shape, 3), np.float32)
        for planes in slabs:
            out[planes] = channels_last(part(planes))
        return cls(out, grid)

    def map(self, points: ArrayLike) -> Array:
        """T(x): fixed points (..., 3) to moving points (..., 3), both in RAS+ mm.

        Raises InputError for invalid points.
        """
        x = as_points(points)
        return x + sample(self.displacement, self.grid.to_index(x), padding="half")

    def map_inverse(self, points: ArrayLike) -> Array:
        """The x with T(x) = y: moving points (..., 3) to fixed points (..., 3), in RAS+ mm.

        |T(x) - y| is under 1e-3 mm wherever such an x exists; elsewhere x is the nearest point
        found, and `map` shows its error. A y outside the grid that no x inside reaches is not
        moved. Raises InputError for invalid points.
        """
        y = as_points(points)
        flat = y.reshape(-1, 3)
        inverter = Inverter(self.vectors(), self.grid)
        size = slab_size(CPU)
        parts = [flat[i : i + size] for i in range(0, len(flat), size)] or [flat]
        x = np.concatenate([inverter.solve(part, inverter.start(part)) for part in parts])
        left, apart = (~inside(self.grid.to_index(p), self.grid.shape) for p in (x, flat))
        return np.where((left & apart)[:, None], flat, x).reshape(y.shape)

    def apply(
        self,
        volume: Volume,
        reference: Grid | None = None,
        interpolation: str = "linear",
        default: float = 0.0,
    ) -> Volume:
        """Warp the moving volume: the result at x is volume(T(x)).

        reference: the grid of the result; by default the field's own.
        interpolation: "linear" (float32 result), "nearest", or "label": the label whose indicator,
        interpolated linearly, is largest. The last two keep the data's type. As in ITK, the volume
        keeps its edge value up to half a voxel outside and is `default` farther out.
        Raises InputError for another interpolation, and for a default that the type cannot hold.
        """
        if interpolation not in INTERPOLATIONS:
            raise InputError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}"
            )
        grid = reference or self.grid
        linear, nearest = interpolation == "linear", interpolation == "nearest"
        kind = np.dtype(np.float32) if linear else volume.data.dtype
        if default:
            check_default(default, kind)
        out = np.empty(grid.shape, kind)
        wide = np.array(volume.data, np.float32 if linear else np.float64)
        image = placed(wide, self.device)[None, None]
        for part, flow in self._flows(grid, volume.grid, image.dtype):
            if interpolation == "label":
                out[part] = sample_labels(volume.data, fetched(torch.stack(places(flow), -1)))
            else:
                out[part] = fetched((read_nearest if nearest else read)(image, flow)[0, 0])
            if default:
                out[part][~fetched(reaches(flow, volume.grid.shape))] = default
        return Volume(out, grid, volume.name)

    def invert(
        self, grid: Grid | None = None, guess: DisplacementField | None = None
    ) -> DisplacementField:
        """The inverse map, from moving points to fixed points, as a field on another grid.

        grid: usually the moving image's; by default the field's own. guess: a field near the
        inverse, which saves time. |T(x) - y| is under 1e-3 mm at every voxel y that some x
        reaches, where d keeps its edge value outside its grid; elsewhere it is a local minimum.
        """
        grid = grid or self.grid
        inverter = Inverter(self.vectors(), self.grid)

        def part(planes: slice) -> Tensor:
            near = None if guess is None else guess.vectors(planes).to(self.device)
            return inverter.solve_on(grid, planes, near)

        return DisplacementField.of_slabs(part, grid, self.device)

    def compose(self, first: DisplacementField) -> DisplacementField:
        """The map x -> T(first(x)), as a field on the grid of `first`."""
        field = self.vectors().to(first.device)
        to_index = np.linalg.inv(self.grid.affine)[:3, :3]

        def part(planes: slice) -> Tensor:
            shift = first.vectors(planes)
            way = index_flow(first.grid, self.grid, planes, device=first.device)
            return read(field, way + turned(to_index, shift)) + shift

        return DisplacementField.of_slabs(part, first.grid, first.device)

    def voxels(self, moving: Grid) -> NDArray[np.float32]:
        """The flow u, (X, Y, Z, 3), in voxels: voxel p of the fixed grid moves to p + u(p).

        moving: the moving image's grid; p + u(p) is in its voxels.
        """
        return to_voxels(self.displacement, self.grid, moving)

    @classmethod
    def from_affine(
        cls, matrix: NDArray[np.floating], grid: Grid, device: torch.device = CPU
    ) -> DisplacementField:
        """The field of an affine map (4, 4) of RAS+ mm; device: computes on the field."""
        way = (matrix - np.eye(4)) @ grid.affine
        return cls.of_slabs(lambda part: linear_on(grid, way, part, device=device), grid, device)

    @classmethod
    def from_voxels(cls, flow: NDArray, fixed: Grid, moving: Grid) -> DisplacementField:
        """The field of a flow in voxels: voxel p of `fixed` moves to p + u(p) of `moving`.

        flow: u, (X, Y, Z, 3), on the fixed grid. Raises InputError for another shape.
        """
        return cls(from_voxels(flow, fixed, moving), fixed)

    def jacobian_determinant(self) -> Array:
        """det(dT/dx) at each voxel, (X, Y, Z): central differences, one-sided at the border."""
        return fetched(self.determinant())

    def determinant(self) -> Tensor:
        """`jacobian_determinant` as a float64 tensor on the field's device."""
        if self._tensor is None:
            return torch.from_numpy(jacobian.jacobian_determinant(self.displacement, self.grid))
        displacement = self._tensor[0].permute(1, 2, 3, 0)
        size = slab_size(self.device)
        slabs = jacobian.determinants(displacement, self.grid, "central", size)
        return torch.cat([det for _, det in slabs])

    def save(
        self, path: str | os.PathLike[str], format: str | None = None, moving: Grid | None = None
    ) -> None:
        """Write the field to a file, completely or not at all.

        format: a name of `lganet_fast.transforms.FORMATS`; by default "itk" for .nii, .nii.gz,
        .nrrd and .mha, "h5" for .h5. moving: the moving image's grid, for formats in voxels.
        Raises InputError for an invalid name, extension or grid, or an unwritable file.
        """
        write_vectors(self.displacement, self.grid, path, format, moving)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        format: str | None = None,
        fixed: Grid | None = None,
        moving: Grid | None = None,
    ) -> DisplacementField:
        """Read a field from a file of any of `lganet_fast.transforms.FORMATS`.

        format: by default detected from the content. fixed, moving: the images' grids, for
        formats that do not store them.
        Raises InputError if the file is unreadable, not a field, or of unknown units.
        """
        return cls(*read_vectors(path, format, fixed, moving))

    def _flows(
        self, grid: Grid, into: Grid, dtype: torch.dtype = torch.float32
    ) -> Iterator[tuple[slice, Tensor]]:
        """The flows by which `resample.read` reads `into` at T of a grid's voxels, slab by slab."""
        own = grid.shape == self.grid.shape and np.array_equal(grid.affine, self.grid.affine)
        field = None if own else self.vectors()
        to_index = np.linalg.inv(into.affine)[:3, :3]
        for part in grid.slabs(slab_size(self.device)):
            if field is None:
                shift = self.vectors(part)
            else:
                shift = read(field, index_flow(grid, self.grid, part, device=self.device))
            way = index_flow(grid, into, part, dtype, self.device)
            yield part, way + turned(to_index, shift.to(dtype))


def check_default(default: float, kind: np.dtype) -> None:
    """Raise InputError if a type cannot hold the value of voxels outside."""
    limits = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
    if not limits.min <= default <= limits.max or (kind.kind != "f" and default % 1):
        raise InputError(f"default must be a value of {kind}, got {default:g}")

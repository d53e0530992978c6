"""Several transforms one after the other, each kept as it is: linear maps, fields, inverses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import InputError
from ..volumes.grid import Array, Grid, Volume, apply_affine, as_points
from ..volumes.nifti import check_affine
from ..volumes.resample import (
    channels_first,
    channels_last,
    index_flow,
    linear_on,
    reaches,
    read,
    turned,
)
from ..volumes.sampling import inside
from . import codecs
from .field import DisplacementField
from .linear_files import from_lps, read_linear

LINEAR_EXTENSIONS = (".mat", ".tfm", ".txt", ".lta")
INVERSE = ",inverse]"
STILL = 0.01  # mm: a field that moves its edge by less ends there without a step


@dataclass(frozen=True, eq=False)
class Affine:
    """The linear map x -> M x of points in RAS+ mm. matrix: M, (4, 4), invertible."""

    matrix: Array

    def __post_init__(self) -> None:
        check_affine(self.matrix, "linear transform")

    def inverse(self) -> Affine:
        """The inverse map."""
        return Affine(np.asarray(np.linalg.inv(self.matrix), np.float64))

    def map(self, points: Array) -> Array:
        """Points (..., 3), both in RAS+ mm."""
        return apply_affine(self.matrix, points)


@dataclass(frozen=True, eq=False)
class Inverse:
    """The inverse of a field, from the field's moving points to its fixed points."""

    field: DisplacementField

    def inverse(self) -> DisplacementField:
        """The field."""
        return self.field

    def map(self, points: Array) -> Array:
        """Points (..., 3), both in RAS+ mm."""
        return self.field.map_inverse(points)


Part = Affine | DisplacementField | Inverse


class CompositeTransform:
    """Transforms from points of the fixed image to points of the moving image, one by one.

    parts: what happens to a point of the fixed image, the first one first. That is the order of
    antsApplyTransforms; ITK's files and CompositeTransform have it backwards.
    Raises InputError without parts.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        if not parts:
            raise InputError("a composite transform needs at least one part")
        self.parts = tuple(parts)

    @classmethod
    def load(
        cls,
        names: Sequence[str | os.PathLike[str]],
        fixed: Grid | None = None,
        moving: Grid | None = None,
    ) -> CompositeTransform:
        """Read transforms, each from a file: linear, a field, or an ITK composite of these.

        names: paths in the order of `parts`; "[path,inverse]" is the inverse of a file's.
        fixed, moving: the images' grids, which FSL's matrices need, and only alone.
        Raises InputError if a file is unreadable, or no such transform.
        """
        parts: list[Part] = []
        for name in names:
            path, backwards = file_of(name)
            own = _read(path, *((fixed, moving) if len(names) == 1 else (None, None)))
            parts += CompositeTransform(own).inverse().parts if backwards else own
        return cls(parts)

    @classmethod
    def apart(cls, field: DisplacementField, matrix: ArrayLike) -> CompositeTransform:
        """A field as a smaller field, then the linear map M (4, 4) that it contains.

        Both give the same points inside the grid; outside, where a field ends, M remains.
        """
        last = Affine(np.asarray(matrix, np.float64))
        back = last.inverse().matrix
        way = (back - np.eye(4)) @ field.grid.affine

        def part(planes: slice) -> Tensor:
            whole = linear_on(field.grid, way, planes, torch.float64)
            return (whole + turned(back[:3, :3], field.vectors(planes).double())).float()

        return cls([DisplacementField.of_slabs(part, field.grid, field.device), last])

    @property
    def grid(self) -> Grid | None:
        """The fixed image's grid, if the first part is a field, else None."""
        first = self.parts[0]
        return first.grid if isinstance(first, DisplacementField) else None

    def inverse(self) -> CompositeTransform:
        """The transform from moving points to fixed points."""
        return CompositeTransform(
            [
                Inverse(part) if isinstance(part, DisplacementField) else part.inverse()
                for part in reversed(self.parts)
            ]
        )

    def map(self, points: ArrayLike) -> Array:
        """Fixed points (..., 3) to moving points (..., 3), both in RAS+ mm."""
        return self.trace(points)[0]

    def trace(self, points: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
        """`map`, and whether each point is inside the grids of all fields on its way."""
        x = as_points(points)
        within = np.ones(x.shape[:-1], bool)
        for part in self.parts:
            before, x = x, part.map(x)
            if isinstance(part, DisplacementField):
                within &= inside(part.grid.to_index(before), part.grid.shape)
            elif isinstance(part, Inverse):
                within &= inside(part.field.grid.to_index(x), part.field.grid.shape)
        return x, within

    def on(self, grid: Grid) -> DisplacementField:
        """The whole transform as one field on a grid, exact at its voxels."""
        return self.sampled(grid)[0]

    def sampled(self, grid: Grid) -> tuple[DisplacementField, float]:
        """`on`, and the fraction of voxels, 0 to 1, at which a field ends that moves its edge.

        There the field jumps to 0, as in ITK.
        """
        first = self.parts[0]
        if self.parts == (first,) and isinstance(first, DisplacementField) and _same(first, grid):
            return first, 0.0
        begun = first.field.invert(grid) if isinstance(first, Inverse) else None
        steps = self.parts if begun is None else self.parts[1:]
        ready = [_Ready(one) if isinstance(one, DisplacementField) else one for one in steps]
        missed = 0

        def part(planes: slice) -> Tensor:
            nonlocal missed
            size = len(range(*planes.indices(grid.shape[0])))
            shift = torch.zeros(1, 3, size, *grid.shape[1:])
            if begun is not None:
                shift = begun.vectors(planes)
            outside = torch.zeros(shift.shape[2:], dtype=torch.bool)
            for step in ready:
                if isinstance(step, _Ready):
                    flow = index_flow(grid, step.grid, planes) + turned(step.to_index, shift)
                    if step.edge_moves:
                        outside |= ~reaches(flow, step.grid.shape)
                    shift = read(step.vectors, flow) + shift
                else:
                    shift = _moved(step, grid, planes, shift)
            missed += int(outside.sum())
            return shift

        found = DisplacementField.of_slabs(part, grid, torch.device("cpu"))
        return found, missed / grid.size

    def apply(
        self,
        volume: Volume,
        reference: Grid | None = None,
        interpolation: str = "linear",
        default: float = 0.0,
    ) -> Volume:
        """Warp the moving volume, interpolating it once. Arguments as `DisplacementField.apply`.

        reference: the grid of the result; by default `grid`. Raises InputError without any.
        """
        onto = reference or self.grid
        if onto is None:
            raise InputError("the transform stores no grid for the result: give the reference")
        return self.on(onto).apply(volume, None, interpolation, default)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ITK composite (.h5), each part kept apart.

        Raises InputError for another extension, an inverse of a field, or an unwritable file.
        """
        parts: list[Array | codecs.Field] = []
        for part in self.parts:
            if isinstance(part, Inverse):
                raise InputError(f"cannot write {path}: ITK's files hold no inverse of a field")
            if isinstance(part, Affine):
                parts.append(from_lps(part.matrix))
            else:
                parts.append((part.displacement, part.grid))
        codecs.write_parts(parts[::-1], Path(path))


def file_of(name: str | os.PathLike[str]) -> tuple[Path, bool]:
    """The path in "path" or "[path,inverse]", and whether it is inverted."""
    text = os.fspath(name)
    backwards = text.startswith("[") and text.endswith(INVERSE)
    return Path(text[1 : -len(INVERSE)] if backwards else text), backwards


def _read(path: Path, fixed: Grid | None, moving: Grid | None) -> list[Part]:
    """The parts of a file."""
    if codecs.is_hdf5(path):
        return [
            Affine(from_lps(part)) if isinstance(part, np.ndarray) else DisplacementField(*part)
            for part in reversed(codecs.composite_parts(path))
        ]
    if path.suffix.lower() in LINEAR_EXTENSIONS:
        return [Affine(read_linear(path, fixed, moving))]
    return [DisplacementField.load(path)]


def _moved(part: Affine | Inverse, grid: Grid, planes: slice, shift: Tensor) -> Tensor:
    """The displacement (1, 3, x, Y, Z) in some planes after a part that is no field."""
    if isinstance(part, Affine):
        way = (part.matrix - np.eye(4)) @ grid.affine
        whole = linear_on(grid, way, planes, torch.float64)
        return (whole + turned(part.matrix[:3, :3], shift.double())).float()
    start = grid.world(planes)
    ends = part.field.map_inverse(start + channels_last(shift))
    return channels_first((ends - start).astype(np.float32))


def _same(field: DisplacementField, grid: Grid) -> bool:
    return field.grid.shape == grid.shape and np.array_equal(field.grid.affine, grid.affine)


class _Ready:
    """A field to be read slab by slab. edge_moves: whether it moves one of its outermost voxels."""

    def __init__(self, field: DisplacementField) -> None:
        self.grid, self.vectors = field.grid, field.vectors()
        self.to_index = np.linalg.inv(field.grid.affine)[:3, :3]
        faces = (field.displacement.take((0, -1), axis) for axis in range(3))
        self.edge_moves = any(float(np.abs(face).max()) > STILL for face in faces)

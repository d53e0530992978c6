"""Images of which every process reads only the part that it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..registration.channels import Channel, weighted
from ..registration.noise import noise_between
from ..registration.seen import BRIGHTEST, Seen
from ..registration.workspace import working_grid
from ..runtime.reading import reading
from ..volumes import nifti
from ..volumes.grid import Array, Grid, Volume
from ..volumes.intensity import Window
from ..volumes.values import check_type, check_whole
from .exchange import planes
from .group import Group
from .search import Slabs
from .statistics import foreground_box, median, window_of

BESIDE = 4  # voxels read beside those that are needed: for interpolation, and never looked at


@dataclass(frozen=True, eq=False)
class Stored:
    """An image in a file, of which boxes are read."""

    image: nib.spatialimages.SpatialImage
    grid: Grid
    label: str

    @classmethod
    def open(cls, source: nifti.Source, role: str) -> Stored:
        """Open an image without reading its values. Raises InputError as `nifti.load_image`."""
        image, label = nifti.open_image(source, role)
        grid = nifti.noted_grid(image, label)
        nifti.check_solid(grid, label)
        check_type(image, label)
        check_whole(image, label)
        return cls(image, grid, label)

    def box(self, low: Array, high: Array) -> Volume:
        """The voxels from `low` up to, without, `high`, (3,) each: float32, on their own grid.

        Raises InputError for values that are not finite or too large.
        """
        first, end = (np.asarray(x, int).tolist() for x in (low, high))
        part = tuple(slice(a, b) for a, b in zip(first, end, strict=True))
        index = part + (0,) * (len(self.image.shape) - 3)
        with reading(self.label):
            whole = self.image.dataobj
            apart = isinstance(whole, nib.arrayproxy.ArrayProxy)
            data = np.asarray((whole if apart else np.asanyarray(whole))[index])
        data = np.ascontiguousarray(data, np.float32)
        if not (np.abs(data) <= nifti.LARGEST_VALUE).all():
            raise InputError(
                f"{self.label} has values that are NaN, or beyond {nifti.LARGEST_VALUE:g}: "
                "a sharded registration needs finite ones"
            )
        return Volume(data, part_of(self.grid, first, end), self.label)

    def around(self, points: Array, margin: Array | float) -> Volume:
        """The box around voxel coordinates (N, 3), with a margin in voxels; one voxel at least."""
        size = np.array(self.grid.shape)
        low = np.clip(np.floor(points.min(0) - margin), 0, size - 1)
        high = np.clip(np.ceil(points.max(0) + margin) + 1, low + 1, size)
        return self.box(low, high)


def part_of(grid: Grid, low: list[int], high: list[int]) -> Grid:
    """The grid of the voxels from `low` up to, without, `high`."""
    x, y, z = (b - a for a, b in zip(low, high, strict=True))
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world(low)
    return Grid((x, y, z), affine)


def own_part(group: Group, grid: Grid) -> Grid:
    """The grid of this process's planes."""
    first, end = group.own(grid.shape[2])
    return part_of(grid, [0, 0, first], [*grid.shape[:2], end])


@dataclass(frozen=True, eq=False)
class Shown:
    """An image in a file with its range, and the box (3,), (3,) of its foreground."""

    stored: Stored
    window: Window
    first: Array
    last: Array

    @classmethod
    def of(cls, group: Group, stored: Stored) -> Shown:
        """Measure an image; every process reads its planes. Raises InputError as `load_image`."""
        size = stored.grid.shape
        first, end = group.own(size[2])
        if size[2] < group.count:
            raise InputError(
                f"{stored.label} has {size[2]} planes along its third axis: give as many processes "
                "at most"
            )
        part = group.stage(lambda: stored.box(np.array([0, 0, first]), np.array([*size[:2], end])))
        data = part.data
        low, high = zip(*group.rows([float(data.min()), float(data.max())]), strict=True)
        if min(low) == max(high):
            raise InputError(f"{stored.label} is constant: every voxel is {min(low):g}")
        window = window_of(group, data, size[2])
        box = foreground_box(group, data, size[2], window.low)
        return cls(stored, window, box[0].astype(float), box[1].astype(float))

    @property
    def seen(self) -> Seen:
        """The image for `working_grid`, which reads no values: there are none."""
        values = np.broadcast_to(np.float32(0), self.stored.grid.shape)
        return Seen(Volume(values, self.stored.grid, self.stored.label), self.first, self.last)

    def on(self, whole: Grid, part: Grid, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """As `Seen.on`, on a part of the working grid, from the box of the file around it."""
        own = self.stored.grid
        wide = BESIDE + np.ceil(2 * whole.spacing.mean() / own.spacing)  # `Seen.blurred`'s reach
        box = self.stored.around(own.to_index(part.corners()), wide)
        low = np.round(own.to_index(box.grid.affine[:3, 3]))
        values = Volume(self.window.scaled(box.data, BRIGHTEST), box.grid, box.name)
        seen = Seen(values, self.first - low, self.last - low)
        return seen.blurred(whole).on(part, np.eye(4), device)


def prepare(group: Group, fixed: Stored, moving: Stored, dtype: torch.dtype) -> tuple[Grid, Slabs]:
    """`registration.workspace.prepare` of two images that are aligned by their headers.

    Returns the whole working grid, and this process's planes. Raises InputError as it does.
    """
    both = [Shown.of(group, image) for image in (fixed, moving)]
    grid = working_grid(both[0].seen, both[1].seen, np.eye(4))
    if grid.shape[2] < 2 * group.count:
        raise InputError(
            f"the images have {grid.shape[2]} planes to compare along the third axis: give one "
            "process for two of them at most"
        )
    part = own_part(group, grid)
    found = group.stage(lambda: [image.on(grid, part, group.device) for image in both])
    (first, _), (second, moving_weight) = found
    if not group.sum(bool(weighted(second, moving_weight).any())):
        raise InputError(
            f"{moving.label} does not overlap the foreground of {fixed.label}; "
            "register them without --shard, by initial rigid or affine, first"
        )
    noise = noise_of_slabs(group, first, second, grid.shape[2])
    weights = [common_weight(group, image, weight, dtype) for image, weight in found]
    channel = Channel(first.to(dtype), second.to(dtype), (weights[0], weights[1]), noise)
    return grid, Slabs(group, grid.shape, channel)


def common_weight(
    group: Group, image: Tensor, weight: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """A weight, in all processes, if it is not 1 everywhere in any."""
    if not group.sum(weight is not None and bool((weight != 1).any())):
        return None
    return (torch.ones_like(image) if weight is None else weight).to(dtype)


def noise_of_slabs(group: Group, fixed: Tensor, moving: Tensor, size: int) -> float:
    """`noise_between` of all planes. It compares the planes 0 and 1, 2 and 3, and so on."""
    wanted = [(a + a % 2, min(b + b % 2, size)) for a, b in group.spans(size)]
    near = [planes(x, group, size, wanted) for x in (fixed, moving)]
    noise = noise_between(near[0], near[1], lambda values: median(group, values.flatten()))
    return float(noise) if math.isfinite(float(noise)) else 0.0

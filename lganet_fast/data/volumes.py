"""One side of a pair, read and prepared: cropped, scaled by its intensity rule, pooled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..config.schema import DataSection, Intensity
from ..errors import InputError
from ..volumes.grid import Array, Grid
from ..volumes.nifti import Source, check_solid, load_image, load_labels, load_mask
from ..volumes.points import read_table, to_world, units_of
from .pair_files import Item
from .pickles import read_arrays


@dataclass(frozen=True, eq=False)
class Prepared:
    """One side of a `Sample`, with its affine."""

    image: NDArray[np.float32]
    affine: Array
    labels: NDArray[np.int32] | None
    points: Array | None
    mask: NDArray[np.bool_] | None


def prepare(item: Item, data: DataSection, rule: Intensity, *, marks: bool = True) -> Prepared:
    """Read an item and prepare it.

    The order is crop, intensity rule on the cropped image, pooling: a voxel of the result is the
    mean of a box of voxels, with the label of the voxel at the box's centre (the first of two
    central voxels). Voxels that do not fill a box at the end of an axis are left out.
    rule: the intensity rule. marks: read labels, points and mask too.
    Raises InputError for files that cannot be read or do not fit together, or a constant crop.
    """
    source, labels = sources(item)
    image = load_image(source, called("image", item))
    check_solid(image.grid, image.name)
    grid = prepared_grid(image.grid, data, image.name)
    box = tuple(slice(a, b) for a, b in limits(image.grid.shape, data))

    def picked(values: NDArray) -> NDArray:
        steps = tuple(slice((step - 1) // 2, None, step) for step in data.factors)
        kept = values[box][steps]
        return np.ascontiguousarray(kept[tuple(map(slice, grid.shape))])

    return Prepared(
        pooled(scaled(image.data[box], rule, image.name), data.factors),
        grid.affine,
        picked(load_labels(labels, called("labels", item), image.grid).data)
        if marks and labels is not None
        else None,
        voxel_points(item.points, image.grid, grid) if marks and item.points else None,
        picked(load_mask(item.mask, "mask", image.grid).data) if marks and item.mask else None,
    )


def sources(item: Item, *, skim: bool = False) -> tuple[Source, Source | None]:
    """The image and its labels. skim: of a pickle, shapes and types alone."""
    if item.slots is None:
        return item.image, item.labels
    arrays = read_arrays(item.image, skim=skim)
    if max(item.slots) >= len(arrays):
        raise InputError(
            f"pickle {item.image} has {len(arrays)} arrays, at least {max(item.slots) + 1} needed"
        )
    image, labels = ((arrays[slot], np.eye(4)) for slot in item.slots)
    return image, labels


def called(what: str, item: Item) -> str:
    """The name of an image or labels in messages; for an array in a pickle, with the file."""
    return what if item.slots is None else f"{what} in {item.image}"


def limits(shape: tuple[int, int, int], data: DataSection) -> list[tuple[int, int]]:
    """The crop, or all voxels, as [from, to) along each axis."""
    return list(data.crop) or [(0, n) for n in shape]


def prepared_grid(grid: Grid, data: DataSection, name: str) -> Grid:
    """The grid of the prepared voxels. Raises InputError if the crop does not fit the grid."""
    ends = limits(grid.shape, data)
    for axis, ((_, end), length) in enumerate(zip(ends, grid.shape, strict=True), start=1):
        if end > length:
            raise InputError(
                f"{name} has {length} voxels along axis {axis}, data.crop goes up to {end}"
            )
    steps = np.array(data.factors)
    shape = tuple(int((b - a) // step) for (a, b), step in zip(ends, steps, strict=True))
    if min(shape) < 2:
        raise InputError(f"{name} keeps {' x '.join(map(str, shape))} voxels: at least 2 needed")
    affine = grid.affine.copy()
    affine[:3, :3] *= steps
    affine[:3, 3] = grid.to_world(
        [a + (step - 1) / 2 for (a, _), step in zip(ends, steps, strict=True)]
    )
    return Grid((shape[0], shape[1], shape[2]), affine)


def scaled(image: NDArray[np.float32], rule: Intensity, name: str) -> NDArray[np.float32]:
    """The image with an intensity rule applied (see `DataSection`)."""
    out = image
    if rule != "as-is":
        kind, low, high = ("percentile", 0.0, 100.0) if isinstance(rule, str) else rule
        if kind == "percentile":
            low, high = np.percentile(image, (low, high)).tolist()
        width = high - low if high > low else 1.0
        out = (image.clip(low, high) - np.float32(low)) / np.float32(width)
    if out.min() == out.max():
        raise InputError(f"{name} is constant after data.crop and data.intensity")
    return out


def pooled(image: NDArray[np.float32], factors: tuple[int, int, int]) -> NDArray[np.float32]:
    """Means over boxes of `factors` voxels."""
    whole = torch.from_numpy(np.ascontiguousarray(image))[None]
    return F.avg_pool3d(whole, factors)[0].numpy() if max(factors) > 1 else whole[0].numpy()


def voxel_points(path: Path, grid: Grid, prepared: Grid) -> Array:
    """Points (N, 3) in voxels of the prepared grid.

    Bare columns are in voxels of the image (Learn2Reg); with x,y,z, in LPS mm (ANTs); 3D Slicer's
    files say their units.
    """
    table = read_table(path)
    units = units_of(table, "voxel" if table.header is None else None, path)
    return prepared.to_index(to_world(table.points, units, grid))

"""Checking a data set from headers: files that are missing, unreadable or of the wrong shape."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from ..config.loading import Config
from ..config.schema import SPLITS, DataSection
from ..errors import InputError
from ..runtime.reading import reading
from ..volumes.grid import Array, Grid
from ..volumes.nifti import (
    Source,
    check_same_grid,
    check_solid,
    image_grid,
    open_image,
)
from ..volumes.points import read_table
from ..volumes.values import check_type, check_whole, promised
from .dataset import turned
from .layouts import find_cases
from .pair_files import Item, PairFiles
from .volumes import called, prepared_grid, sources


@dataclass(frozen=True)
class Findings:
    """problems: a line each. pairs: number per split. files: number of files of the pairs."""

    problems: list[str]
    pairs: dict[str, int]
    files: int


@dataclass
class Seen:
    """One side's prepared grid and number of points, None if unknown."""

    grid: Grid | None = None
    points: int | None = None


def inspect(config: Config) -> Findings:
    """Check every file of a data set.

    Reads the headers of images, labels and masks and compares the file sizes with them; reads the
    shapes of pickles, and points completely. Wrong values in an intact file are found only when it
    is loaded.
    """
    data = config.data
    problems: list[str] = []
    seen: dict[Item, Seen] = {}
    pairs = dict.fromkeys(SPLITS, 0)
    for split in SPLITS:
        with noted(problems):
            cases = find_cases(data, split)
            pairs[split] = len(cases)
            for case in cases:
                for item in (case.moving, case.fixed):
                    if item not in seen:
                        seen[item] = look_at(item, data, problems)
                compare(case, seen[case.moving], seen[case.fixed], problems)
    if not problems and not any(pairs.values()):
        problems.append(f"{data.folder()} contains no pair")
    files = {
        file
        for item in seen
        for file in (item.image, item.labels, item.points, item.mask)
        if file is not None
    }
    return Findings(list(dict.fromkeys(problems)), pairs, len(files))


def check(config: Config) -> list[str]:
    """The problems of a data set, a line each; see `inspect`."""
    return inspect(config).problems


@contextmanager
def noted(problems: list[str]) -> Iterator[None]:
    """Catch an InputError and add its message to the problems."""
    try:
        yield
    except InputError as error:
        problems.append(str(error))


def look_at(item: Item, data: DataSection, problems: list[str]) -> Seen:
    """Check one image with its labels, points and mask."""
    seen = Seen()
    own = labels = None
    with noted(problems):
        source, labels = sources(item, skim=True)
        own, name = whole_grid(source, called("image", item))
        seen.grid = prepared_grid(own, data, name)
    for what, other in ((called("labels", item), labels), ("mask", item.mask)):
        if other is not None:
            with noted(problems):
                grid, name = whole_grid(other, what)
                if own is not None:
                    check_same_grid(grid, own, name)
    if item.points is not None:
        with noted(problems):
            seen.points = len(read_table(item.points).rows)
    return seen


def compare(case: PairFiles, moving: Seen, fixed: Seen, problems: list[str]) -> None:
    """Check whether two valid sides fit each other."""
    sides = f"moving {case.moving.image} and fixed {case.fixed.image}"

    def by(values: Array) -> str:
        return " x ".join(f"{x:.4g}" for x in values)

    if moving.grid is not None and fixed.grid is not None:
        a, b = moving.grid, fixed.grid
        if a.shape != b.shape:
            sizes = f"{by(np.array(a.shape))} and {by(np.array(b.shape))}"
            problems.append(f"{sides} must have one shape, have {sizes} voxels after data.crop")
        elif fault := turned(a.affine, b.affine):
            problems.append(f"{sides} {fault}")
        elif not np.allclose(a.spacing, b.spacing, rtol=0.01):
            sizes = f"{by(a.spacing)} and {by(b.spacing)}"
            problems.append(f"{sides} must have the same voxel size, have {sizes} mm")
    if None not in (moving.points, fixed.points) and moving.points != fixed.points:
        problems.append(
            f"points {case.moving.points} and {case.fixed.points} must be paired by row, have "
            f"{moving.points} and {fixed.points}"
        )


def whole_grid(source: Source, role: str) -> tuple[Grid, str]:
    """An image's grid and its name in messages, after a check of the file's length.

    The length of a gzip file is taken from its trailer; the values are not unpacked.
    Raises InputError.
    """
    image, label = open_image(source, role)
    grid = image_grid(image, label)
    check_solid(grid, label)
    check_type(image, label)
    if isinstance(source, str | os.PathLike) and not as_long_as_promised(Path(source), image):
        check_whole(image, label)  # raises, unless the gzip file has several members
    return grid, label


def as_long_as_promised(path: Path, image: nib.spatialimages.SpatialImage) -> bool:
    """Whether a file has as many bytes as its header says, from its size or gzip trailer."""
    if not path.name.lower().endswith((".gz", ".mgz")):
        return False
    with reading(os.fspath(path)), open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(4), "little") == promised(image) % 2**32

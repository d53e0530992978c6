"""Points in CSV files, in the formats of ANTs and Learn2Reg."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..runtime.files import atomic
from ..runtime.reading import reading
from .grid import FARTHEST, LPS, Array, Grid

UNITS = ("lps", "ras", "voxel")


@dataclass(frozen=True, eq=False)
class PointTable:
    """A CSV file of points.

    points: (N, 3), the numbers of the columns x, y and z. columns: their positions in a row.
    header: the first row, or None if the file has none. rows: N rows as text.
    """

    points: Array
    columns: tuple[int, int, int]
    header: list[str] | None
    rows: list[list[str]]


def read_table(path: str | os.PathLike[str]) -> PointTable:
    """Read a CSV file: with a header that names x, y and z (ANTs), or three bare columns.

    Other columns are kept. Raises InputError, with the line, for any other file.
    """
    with reading(f"points {path}"), open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        lines = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    header = None
    columns = (0, 1, 2)
    width = 3
    if lines and not all(map(_is_number, lines[0][1])):
        header = lines.pop(0)[1]
        names = [name.strip().lower() for name in header]
        if not {"x", "y", "z"} <= set(names):
            raise InputError(f"points {path}, line 1: no columns x, y and z in {','.join(header)}")
        if repeated := [name for name in "xyz" if names.count(name) > 1]:
            raise InputError(f"points {path}, line 1: the column {repeated[0]} occurs twice")
        columns = (names.index("x"), names.index("y"), names.index("z"))
        width = len(header)
    if not lines:
        raise InputError(f"points {path} contains no point")
    points = np.empty((len(lines), 3))
    for i, (line, row) in enumerate(lines):
        if len(row) != width:
            raise InputError(f"points {path}, line {line}: {len(row)} columns, not {width}")
        for axis, column in enumerate(columns):
            if not (_is_number(row[column]) and abs(float(row[column])) <= FARTHEST):
                raise InputError(
                    f"points {path}, line {line}: {row[column]!r} is not a number within "
                    f"{FARTHEST:g}"
                )
            points[i, axis] = float(row[column])
    return PointTable(points, columns, header, [row for _, row in lines])


def write_table(path: str | os.PathLike[str], table: PointTable, points: Array) -> None:
    """Write the table with new coordinates, points (N, 3), to 1e-6, completely or not at all.

    Raises InputError if a coordinate is not finite.
    """
    if not np.isfinite(points).all():
        raise InputError(f"cannot write {path}: a point is NaN or infinite")
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if table.header is not None:
            writer.writerow(table.header)
        for row, point in zip(table.rows, points, strict=True):
            cells = list(row)
            for column, value in zip(table.columns, point, strict=True):
                cells[column] = f"{value:.6f}"
            writer.writerow(cells)


def read_points(path: str | os.PathLike[str]) -> Array:
    """Read the points (N, 3), in RAS+ mm, of a CSV file with a header, in LPS mm as in ANTs.

    Raises InputError for another file.
    """
    table = read_table(path)
    if table.header is None:
        raise InputError(f"points {path} need a header x,y,z (in LPS mm)")
    return to_world(table.points, "lps")


def to_world(points: Array, units: str, grid: Grid | None = None) -> Array:
    """Convert points (N, 3) from a unit of UNITS to RAS+ mm. grid: of the image, for "voxel"."""
    if units == "voxel":
        assert grid is not None
        return grid.to_world(points)
    return points @ LPS if units == "lps" else points


def from_world(points: Array, units: str, grid: Grid | None = None) -> Array:
    """The inverse of `to_world`."""
    if units == "voxel":
        assert grid is not None
        return grid.to_index(points)
    return points @ LPS if units == "lps" else points


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

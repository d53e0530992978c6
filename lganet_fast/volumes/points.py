"""Points in files: CSV as of ANTs and Learn2Reg, text as of DIR-Lab, landmarks of 3D Slicer."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..runtime.files import atomic, sha256
from ..runtime.reading import reading
from .grid import FARTHEST, LPS, Array, Grid, as_points
from .markups import HEADER, MARKUPS, is_markups, read_markups, write_markups

PointSource: TypeAlias = str | os.PathLike[str] | ArrayLike

UNITS = ("lps", "ras", "voxel")
POINT_EXTENSIONS = (".csv", ".txt", *MARKUPS)  # of files written


@dataclass(frozen=True, eq=False)
class PointTable:
    """A file of points.

    points: (N, 3), the numbers of the columns x, y and z. columns: their positions in a row.
    header: the first row, or None if the file has none. rows: N rows as text. units: one of UNITS
    if the file says so, else None.
    """

    points: Array
    columns: tuple[int, int, int]
    header: list[str] | None
    rows: list[list[str]]
    units: str | None = None


def read_table(path: str | os.PathLike[str]) -> PointTable:
    """Read a file of points.

    CSV, or columns between spaces in .txt: with a header that names x, y and z (ANTs), or three
    bare columns (Learn2Reg, DIR-Lab); other columns are kept. Or 3D Slicer's .fcsv and .mrk.json.
    Raises InputError, with the line, for any other file.
    """
    if is_markups(path):
        units, rows = read_markups(path)
        numbered = list(enumerate(rows, start=1))
        points = _numbers(path, numbered, (1, 2, 3), len(HEADER), "point")
        return PointTable(points, (1, 2, 3), list(HEADER), rows, units)
    with reading(f"points {path}"), open(path, encoding="utf-8-sig", newline="") as file:
        if _is_text(path):
            lines = [(number, row.split()) for number, row in enumerate(file, start=1)]
        else:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, row) for row in reader]
    lines = [(number, row) for number, row in lines if any(map(str.strip, row))]
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
    points = _numbers(path, lines, columns, width, "line")
    return PointTable(points, columns, header, [row for _, row in lines])


def _numbers(
    path: str | os.PathLike[str],
    rows: Sequence[tuple[int, list[str]]],
    columns: tuple[int, int, int],
    width: int,
    what: str,
) -> Array:
    """The coordinates (N, 3) in numbered rows, each called `what` in errors."""
    if not rows:
        raise InputError(f"points {path} contains no point")
    points = np.empty((len(rows), 3))
    for i, (number, row) in enumerate(rows):
        if len(row) != width:
            raise InputError(f"points {path}, {what} {number}: {len(row)} columns, not {width}")
        for axis, column in enumerate(columns):
            if not (_is_number(row[column]) and abs(float(row[column])) <= FARTHEST):
                raise InputError(
                    f"points {path}, {what} {number}: {row[column]!r} is not a number within "
                    f"{FARTHEST:g}"
                )
            points[i, axis] = float(row[column])
    return points


def write_table(path: str | os.PathLike[str], table: PointTable, points: Array) -> None:
    """Write the table with new coordinates, points (N, 3), to 1e-6, completely or not at all.

    To 3D Slicer's files only the labels go along, and the points must be in LPS mm.
    Raises InputError if a coordinate is not finite.
    """
    if not np.isfinite(points).all():
        raise InputError(f"cannot write {path}: a point is NaN or infinite")
    if is_markups(path):
        write_markups(path, points.tolist(), _labels(table))
        return
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        delimiter = "\t" if _is_text(path) else ","
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        if table.header is not None:
            writer.writerow(table.header)
        for row, point in zip(table.rows, points, strict=True):
            cells = list(row)
            for column, value in zip(table.columns, point, strict=True):
                cells[column] = f"{value:.6f}"
            writer.writerow(cells)


def read_points(
    path: str | os.PathLike[str], units: str | None = None, grid: Grid | None = None
) -> Array:
    """Read the points (N, 3) of a file, in RAS+ mm. units, grid: see `units_of` and `to_world`.

    Raises InputError for another file, and without a header or units.
    """
    table = read_table(path)
    return to_world(table.points, units_of(table, units, path), grid)


def units_of(table: PointTable, given: str | None, path: str | os.PathLike[str]) -> str:
    """The units of a table, of UNITS: what its file says, else those given, else LPS mm (ANTs).

    path: its file. Raises InputError if nothing says the units and there is no header.
    """
    if table.units is None and given is None and table.header is None:
        raise InputError(
            f"points {path} have no header x,y,z: add it for LPS mm; apply and metrics also take "
            f"--units {' or '.join(UNITS)}"
        )
    return table.units or given or "lps"


def load_points(source: PointSource | None, role: str) -> Array:
    """The points (N, 3), in RAS+ mm, of a file that `read_points` reads, or of an array of them.

    role: the name in messages. Raises InputError without points or for others.
    """
    if source is None:
        raise InputError(f"{role} is missing: points are needed in both images")
    if isinstance(source, str | os.PathLike):
        return read_points(source)
    with reading(role, "cannot be used as points"):
        points = as_points(source)
    if points.ndim != 2 or not len(points):
        raise InputError(f"{role} must have shape (N, 3) with N from 1 on, got {points.shape}")
    return points


def describe_points(source: PointSource, role: str) -> dict[str, Any]:
    """The report's entry on points: that of `nifti.describe`, of shape (N, 3) without spacing.

    Raises InputError as `load_points` does.
    """
    path = digest = None
    if isinstance(source, str | os.PathLike):
        with reading(f"points {source}"):
            path, digest = os.fspath(source), sha256(source)
    return {
        "path": path,
        "sha256": digest,
        "shape": list(load_points(source, role).shape),
        "spacing_mm": [],
        "orientation": "RAS" if path is None else "LPS",
    }


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


def _labels(table: PointTable) -> list[str]:
    """The points' labels, from a column of that name, else F-1, F-2 and so on as in 3D Slicer."""
    names = [name.strip().lower() for name in table.header or []]
    column = next((names.index(name) for name in ("label", "name") if name in names), None)
    return [
        (row[column] if column is not None else "") or f"F-{number}"
        for number, row in enumerate(table.rows, start=1)
    ]


def _is_text(path: str | os.PathLike[str]) -> bool:
    return os.fspath(path).lower().endswith(".txt")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

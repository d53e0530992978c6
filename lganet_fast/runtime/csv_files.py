"""CSV files with a header: read with clear errors, written completely or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import InputError
from .files import atomic
from .reading import reading


def read_rows(path: str | os.PathLike[str], needed: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a CSV file with a header, at least one row.

    Raises InputError if it cannot be read, a column is missing or occurs twice, or a row has
    another length.
    """
    with (
        reading("cannot read", os.fspath(path)),
        open(path, encoding="utf-8-sig", newline="") as file,
    ):
        reader = csv.reader(file, strict=True)
        header, *lines = [[cell.strip() for cell in line] for line in reader if line] or [[]]
    if repeated := [name for name, times in Counter(header).items() if times > 1]:
        raise InputError(f"{path} has the column {repeated[0]!r} more than once")
    if lacking := [name for name in needed if name not in header]:
        raise InputError(
            f"{path} must have the columns {', '.join(needed)} in its first line; "
            f"{', '.join(lacking)} missing"
        )
    if not lines:
        raise InputError(f"{path} has no row below its header")
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise InputError(f"{path}, row {number}: {len(line)} cells under {len(header)} columns")
    return [dict(zip(header, line, strict=True)) for line in lines]


def write_rows(
    path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Write rows, all or none; a missing number is written as nan."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in columns])
    with atomic(path) as temporary:
        temporary.write_text(out.getvalue(), encoding="utf-8", errors="backslashreplace")


def _cell(value: Any) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(value)

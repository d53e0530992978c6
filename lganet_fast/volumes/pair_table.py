"""The table of pairs, a CSV file: one format for registration, training and evaluation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..runtime.csv_files import read_rows
from .nifti import stem

NEEDED = ("fixed", "moving")
FILES = (
    *NEEDED,
    "fixed_labels",
    "moving_labels",
    "fixed_mask",  # for registration, like moving_mask
    "moving_mask",
    "fixed_points",  # for training and evaluation, like moving_points
    "moving_points",
)
COLUMNS = (*FILES, "name", "split")


@dataclass(frozen=True)
class PairRow:
    """A row: its place in the table, the pair's name, its files by column, and its split, if any.

    The default name is made of the images' names, "moving_to_fixed".
    """

    place: str
    name: str
    files: dict[str, Path]
    split: str | None


def read_pair_table(table: str | os.PathLike[str]) -> list[PairRow]:
    """Read the rows of a table of pairs, whose first line names its columns.

    `fixed` and `moving` are required, the others of COLUMNS optional. Paths are relative to the
    table's folder; an empty cell means no file.
    Raises InputError for another column and for a row without its images.
    """
    rows = read_rows(table, NEEDED)
    if unknown := [column for column in rows[0] if column not in COLUMNS]:
        raise InputError(f"{table}: unknown column {unknown[0]}; columns are {', '.join(COLUMNS)}")
    found = []
    for number, row in enumerate(rows, start=2):
        place = f"{table}, row {number}"
        files = {role: Path(table).parent / row[role] for role in FILES if row.get(role)}
        for role in NEEDED:
            if role not in files:
                raise InputError(f"{place}: {role} is empty")
        usual = "_to_".join(stem(files[role]) for role in ("moving", "fixed"))
        found.append(PairRow(place, row.get("name") or usual, files, row.get("split")))
    return found

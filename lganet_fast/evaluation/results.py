"""What an evaluation leaves on disk: a file per case while it runs, tables of them at the end."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import InputError
from ..files import atomic, reason
from ..report import report_json, write_report_json
from .scores import METRICS, Scores

Settings = Mapping[str, Any]


class Store:
    """Scores of the cases in a folder, each written whole as soon as it is known.

    settings: what scores depend on; scores under other settings count as not there.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder / "cases"
        self.settings = json.loads(report_json(settings))

    def make(self) -> None:
        """Create the folder. Raises InputError where it cannot be."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write into {self.folder}: {reason(error)}") from error

    def put(self, scores: Scores) -> None:
        """Keep a case."""
        found = {"settings": self.settings, "case": scores.case, "labels": scores.labels}
        write_report_json(self._path(scores.case["case"]), found)

    def get(self, case: str) -> Scores | None:
        """A case that was kept; None where it is not there, or damaged."""
        try:
            found = json.loads(self._path(case).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if found.get("settings") != self.settings:
            return None
        return Scores(_numbers(found["case"]), [_numbers(row) for row in found["labels"]])

    def _path(self, case: str) -> Path:
        return self.folder / f"{quote(case, safe=' +,;=@')}.json"


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in row.items()}


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises InputError where it cannot be written."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows whole or not at all; a number that does not exist is written as nan."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in columns])
    write_text(path, out.getvalue())


def _cell(value: Any) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def read_cases(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """The metrics of each case in a cases.csv of this or another tool.

    A column `case` is needed and one metric at least; other columns are ignored, and an empty cell
    is no number.
    Raises InputError where there is no such file, or a case twice, or a cell that is no number.
    """
    rows = read_table(path, ("case",))
    keys = [metric.key for metric in METRICS if metric.key in rows[0]]
    if not keys:
        names = ", ".join(metric.key for metric in METRICS)
        raise InputError(f"{path} has no column of scores: one of {names} is needed")
    found: dict[str, dict[str, float]] = {}
    for line, row in enumerate(rows, start=2):
        if row["case"] in found:
            raise InputError(f"{path} has {row['case']} twice, again in line {line}")
        try:
            found[row["case"]] = {key: float(row[key] or "nan") for key in keys}
        except ValueError as error:
            raise InputError(f"{path}, line {line}: {error}") from error
    return found


def read_table(path: str | os.PathLike[str], needed: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, at least one.

    Raises InputError where it cannot be read, lacks a column, or has a row of another length.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header, *lines = [[cell.strip() for cell in line] for line in reader if line] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from error
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

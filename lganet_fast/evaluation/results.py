"""The files of an evaluation: one per case while it runs, tables at the end."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import InputError
from ..runtime.csv_files import read_rows
from ..runtime.files import make_folder
from ..runtime.json_files import report_json, write_report_json
from ..runtime.reading import reading
from .scores import METRICS, Scores


class Store:
    """Scores of the cases in a folder, each written as soon as it is known.

    settings: that scores depend on; scores with other settings are ignored. columns: the required
    columns of a case, and those of each of its labels.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        columns: tuple[Collection[str], Collection[str]] = ((), ()),
    ) -> None:
        self.folder = folder / "cases"
        self.settings = json.loads(report_json(settings))
        self.columns = columns

    def make(self) -> None:
        """Create the folder. Raises InputError if that fails."""
        make_folder(self.folder)

    def put(self, scores: Scores, files: Sequence[str] = ()) -> None:
        """Save a case's scores. files: digests of the files it was read from."""
        found = {
            "settings": self.settings,
            "files": list(files),
            "case": scores.case,
            "labels": scores.labels,
        }
        write_report_json(self._path(scores.case["case"]), found)

    def get(self, case: str, files: Sequence[str] = ()) -> Scores | None:
        """A saved case; None if it is missing, damaged, or of other settings or files.

        files: digests of the files it would be read from now.
        """
        path = self._path(case)
        try:
            with reading(str(path)):
                found = json.loads(path.read_text(encoding="utf-8"))
                if (found["settings"], found["files"]) != (self.settings, list(files)):
                    return None
                scores, *labels = (_numbers(row) for row in (found["case"], *found["labels"]))
        except InputError:
            return None
        lacking = [key for key in self.columns[0] if key not in scores]
        lacking += [key for row in labels for key in self.columns[1] if key not in row]
        return None if lacking or scores.get("case") != case else Scores(scores, labels)

    def _path(self, case: str) -> Path:
        return self.folder / f"{quote(case, safe=' +,;=@', errors='surrogateescape')}.json"


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as it was before JSON. Raises an exception for an invalid row."""
    return {
        key: value if key == "case" else math.nan if value is None else value + 0
        for key, value in row.items()
    }


def read_cases(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """Read the metrics of each case from a cases.csv of this or another tool.

    A column `case` and at least one metric are required; other columns are ignored. An empty cell
    is a missing value.
    Raises InputError if the file is missing, a case occurs twice, or a cell is not a number.
    """
    rows = read_rows(path, ("case",))
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

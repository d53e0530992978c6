"""Landmarks of 3D Slicer: .fcsv and .mrk.json."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from typing import Any

from ..runtime.files import atomic
from ..runtime.reading import reading

FCSV, JSON = ".fcsv", ".mrk.json"
MARKUPS = (FCSV, JSON)
COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
SYSTEMS = {"0": "ras", "RAS": "ras", "1": "lps", "LPS": "lps"}
SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/"
    "Schema/markups-schema-v1.0.3.json#"
)
PLACED = "defined"  # positionStatus of a control point with a position
HEADER = ["label", "x", "y", "z"]


def is_markups(path: str | os.PathLike[str]) -> bool:
    """Whether a path's extension is one of 3D Slicer's."""
    return os.fspath(path).lower().endswith(MARKUPS)


def read_markups(path: str | os.PathLike[str]) -> tuple[str, list[list[str]]]:
    """The units, "lps" or "ras", and rows of HEADER as text.

    Raises InputError if the file is damaged, in other units, or lacks a position.
    """
    with reading(f"points {path}"):
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = file.read()
        return _of_json(text) if os.fspath(path).lower().endswith(JSON) else _of_fcsv(text)


def write_markups(
    path: str | os.PathLike[str], points: Sequence[Sequence[float]], labels: Sequence[str]
) -> None:
    """Write points (N, 3) in LPS mm, to 1e-6, completely or not at all."""
    places = [[round(float(x), 6) for x in point] for point in points]
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        if os.fspath(path).lower().endswith(JSON):
            json.dump(_document(places, labels), file, indent=1)
            return
        file.write("# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n")
        file.write(f"# columns = {COLUMNS}\n")
        writer = csv.writer(file, lineterminator="\n")
        for number, (place, label) in enumerate(zip(places, labels, strict=True), start=1):
            numbers = [f"{x:.6f}" for x in place]
            writer.writerow([number, *numbers, 0, 0, 0, 1, 1, 1, 0, label, "", ""])


def _of_fcsv(text: str) -> tuple[str, list[list[str]]]:
    lines = text.splitlines()
    marks = [line[1:].partition("=") for line in lines if line.startswith("#")]
    said = {name.strip(): value.strip() for name, _, value in marks}
    system = said.get("CoordinateSystem", "0")  # before Slicer 4.11
    columns = said.get("columns", COLUMNS).split(",")
    places = [columns.index(name) for name in ("x", "y", "z")]
    label = columns.index("label") if "label" in columns else None
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        row = next(csv.reader([line], strict=True))
        if len(row) <= max(places):
            raise ValueError(f"line {number} has {len(row)} columns, not {len(columns)}")
        name = row[label] if label is not None and label < len(row) else ""
        rows.append([name, *(row[place] for place in places)])
    return _units(system), rows


def _of_json(text: str) -> tuple[str, list[list[str]]]:
    document = json.loads(text)
    lists = document.get("markups") if isinstance(document, dict) else None
    if not isinstance(lists, list) or not all(_has_points(one) for one in lists):
        raise ValueError("it has no lists of control points, as 3D Slicer writes them")
    rows, systems = [], set()
    for markup in lists:
        unit = markup.get("coordinateUnits", "mm")
        if unit not in ("mm", ["mm"] * 3):
            raise ValueError(f"its coordinates are in {unit}, not mm")
        systems.add(_units(markup.get("coordinateSystem", "LPS")))
        for number, point in enumerate(markup["controlPoints"], start=1):
            if (status := point.get("positionStatus", PLACED)) != PLACED:
                raise ValueError(f"control point {number} is not placed: its position is {status}")
            place = point.get("position")
            if not isinstance(place, list) or len(place) != 3:
                raise ValueError(f"control point {number} has no position x, y, z")
            rows.append([str(point.get("label", "")), *map(str, place)])
    if len(systems) > 1:
        raise ValueError("its lists are in different coordinate systems")
    return next(iter(systems), "lps"), rows


def _has_points(markup: Any) -> bool:
    points = markup.get("controlPoints") if isinstance(markup, dict) else None
    return isinstance(points, list) and all(isinstance(point, dict) for point in points)


def _units(system: Any) -> str:
    if str(system) not in SYSTEMS:
        raise ValueError(f"its coordinate system is {system}, not LPS or RAS")
    return SYSTEMS[str(system)]


def _document(places: Sequence[Sequence[float]], labels: Sequence[str]) -> dict[str, Any]:
    points = [
        {"id": str(number), "label": label, "position": place}
        for number, (place, label) in enumerate(zip(places, labels, strict=True), start=1)
    ]
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "controlPoints": points,
    }
    return {"@schema": SCHEMA, "markups": [markup]}

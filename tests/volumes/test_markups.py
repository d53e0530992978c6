"""Landmarks of 3D Slicer and of DIR-Lab: units, labels, round trips, faults."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lganet_fast.errors import InputError
from lganet_fast.volumes import points
from lganet_fast.volumes.grid import LPS

RAS = np.array([[1.5, -2.25, 3.0], [10.0, 20.0, -30.5]])
FCSV = """# Markups fiducial file version = {version}
# CoordinateSystem = {system}
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
vtkMRMLMarkupsFiducialNode_0,{a},0,0,0,1,1,1,0,"AC, left",,
vtkMRMLMarkupsFiducialNode_1,{b},0,0,0,1,1,1,0,PC,,
"""


def as_text(row):
    return ",".join(f"{x:g}" for x in row)


def document(places, system="LPS", **extra):
    own = [{"id": str(i), "label": f"P{i}", "position": p} for i, p in enumerate(places)]
    markup = {"type": "Fiducial", "coordinateSystem": system, "controlPoints": own, **extra}
    return json.dumps({"@schema": "markups-schema-v1.0.3.json#", "markups": [markup]})


@pytest.mark.parametrize("system", ["0", "RAS", "1", "LPS"])
def test_fcsv_says_its_units(tmp_path, system):
    stored = RAS @ LPS if system in ("1", "LPS") else RAS
    path = tmp_path / "p.fcsv"
    path.write_text(
        FCSV.format(version="4.11", system=system, a=as_text(stored[0]), b=as_text(stored[1]))
    )
    np.testing.assert_allclose(points.read_points(path), RAS)
    assert [row[0] for row in points.read_table(path).rows] == ["AC, left", "PC"]


@pytest.mark.parametrize("system", ["RAS", "LPS"])
def test_json_says_its_units(tmp_path, system):
    path = tmp_path / "p.mrk.json"
    path.write_text(document((RAS @ LPS if system == "LPS" else RAS).tolist(), system))
    np.testing.assert_allclose(points.read_points(path), RAS)


@pytest.mark.parametrize("extension", [".fcsv", ".mrk.json"])
def test_round_trip(tmp_path, extension):
    (tmp_path / "p.csv").write_text('x,y,z,name\n1,2,3,"a, b"\n-4,5.5,6,\n')
    table = points.read_table(tmp_path / "p.csv")
    path = tmp_path / f"o{extension}"
    points.write_table(path, table, table.points)
    back = points.read_table(path)
    assert (back.units, [row[0] for row in back.rows]) == ("lps", ["a, b", "F-2"])
    np.testing.assert_allclose(back.points, table.points)
    points.write_table(tmp_path / "q.csv", back, back.points)
    assert (tmp_path / "q.csv").read_text().splitlines()[0] == "label,x,y,z"


def test_text_of_columns(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("1\t2\t3\n 4  5 6 \n\n")
    table = points.read_table(path)
    np.testing.assert_array_equal(table.points, [[1, 2, 3], [4, 5, 6]])
    points.write_table(path, table, table.points + 1)
    np.testing.assert_array_equal(np.loadtxt(path), [[2, 3, 4], [5, 6, 7]])


POINT = {"label": "a", "position": [0, 0, 0], "positionStatus": "undefined"}
UNPLACED = json.dumps({"markups": [{"coordinateSystem": "LPS", "controlPoints": [POINT]}]})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.fcsv", FCSV.format(version=5, system=2, a="1,2,3", b="1,2,3"), "system is 2, not LPS"),
        ("p.fcsv", "1,2,3\n", "line 1 has 3 columns, not 14"),
        ("p.fcsv", "", "contains no point"),
        ("p.fcsv", FCSV.format(version=5, system=0, a="1,2,x", b="1,2,3"), "'x' is not a number"),
        ("p.mrk.json", "{", "cannot be read"),
        ("p.mrk.json", '{"markups": []}', "contains no point"),
        ("p.mrk.json", "[]", "no lists of control points"),
        ("p.mrk.json", '{"markups": [{"controlPoints": null}]}', "no lists of control points"),
        ("p.mrk.json", UNPLACED, "control point 1 is not placed: its position is undefined"),
        ("p.mrk.json", document([[1, 2]]), "control point 1 has no position"),
        ("p.mrk.json", document([[1, 2, 3]], "IJK"), "system is IJK, not LPS or RAS"),
        ("p.mrk.json", document([[1, 2, 3]], coordinateUnits="um"), "in um, not mm"),
        ("p.mrk.json", document([[1, 2, None]]), "'None' is not a number"),
    ],
)
def test_faults(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        points.read_table(tmp_path / name)

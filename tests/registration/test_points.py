"""Matching points pull both images together."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from synthetic import oblique_grid, source, synthetic_pair

from lganet_fast import InputError, register
from lganet_fast.metrics.scores import tre
from lganet_fast.registration.cohort import register_pairs
from lganet_fast.registration.levels import Level
from lganet_fast.registration.objective import HalfWay, PointsTerm
from lganet_fast.registration.settings import POINTS_WEIGHT
from lganet_fast.registration.verdict import point_reasons
from lganet_fast.report.contents import PointScores
from lganet_fast.volumes import nifti

FAST = {"iterations": (15, 15, 6), "threads": 1}
LPS = np.array([-1, -1, 1])


@pytest.fixture(scope="module")
def pair():
    fixed = oblique_grid((34, 30, 36), (2.1, 2.3, 2.0), 12)
    moving = oblique_grid((36, 32, 22), (2.0, 2.2, 3.0), -20)
    return synthetic_pair(fixed, moving)


@pytest.fixture(scope="module")
def points(pair):
    fixed = np.random.default_rng(0).uniform(-12, 12, (8, 3))
    return fixed, np.add(pair.to_moving(fixed), [3.0, 0, 0])  # not where the images have them


def write(path, points):
    np.savetxt(path, points * LPS, delimiter=",", header="x,y,z", comments="")
    return path


def test_the_loss_is_the_squared_distance_half_way():
    """Against map_coordinates, with flows that are not small, and its gradient."""
    from scipy.ndimage import map_coordinates

    random = np.random.default_rng(0)
    level = Level(2, (8, 9, 10), (8, 9, 10), 1)
    size, side = (15, 17, 19), 1.5
    ways = random.normal(0, 0.5, (2, 3, 8, 9, 10))
    fixed, moving = random.uniform(2, 12, (2, 5, 3))
    term = PointsTerm(torch.tensor(fixed), torch.tensor(moving), size, side, 0.1)
    moved = torch.tensor(ways, requires_grad=True)

    def half_way(points, way):
        places = points.T / 2
        shift = np.stack([map_coordinates(x, places, order=1) for x in way])
        return 2 * side * (places + shift)

    gap = half_way(fixed, ways[1]) - half_way(moving, ways[0])
    part = term.at(level)
    loss = part.loss(HalfWay(moved, (None, None)))
    assert loss.item() == pytest.approx((gap**2).sum(0).mean(), rel=1e-9)
    assert torch.autograd.gradcheck(lambda x: part.loss(HalfWay(x, (None, None))), moved)


@pytest.mark.parametrize("preset", ["default", "best"])
def test_points_go_where_images_would_not(pair, points, preset):
    fixed, moving = points
    options = {"threads": 1, "preset": preset} if preset == "best" else FAST
    result = register(
        source(pair.fixed), source(pair.moving), fixed_points=fixed, moving_points=moving, **options
    )
    found = result.details.points
    assert found.mean_mm_before == pytest.approx(tre(fixed, moving).mean())
    assert found.mean_mm_after == pytest.approx(tre(fixed, moving, result.transform).mean())
    assert found.mean_mm_after < 0.2 * found.mean_mm_before
    assert result.details.jacobian.min > 0.1
    assert result.report["settings"]["points_weight"] == POINTS_WEIGHT


def test_a_registration_with_points_may_become_less_similar():
    """The shift that the points ask for is the result, and the verdict says what it costs."""
    pair = synthetic_pair(amplitude=0.5)
    fixed = np.random.default_rng(1).uniform(-10, 10, (6, 3))
    shifted = np.add(fixed, [6.0, 0, 0])
    with pytest.warns(UserWarning, match="the similarity fell"):
        result = register(
            *map(source, (pair.fixed, pair.moving)),
            fixed_points=fixed,
            moving_points=shifted,
            points_weight=1,
            **FAST,
        )
    assert result.details.points.mean_mm_after < 2
    assert result.verdict.level == "doubtful"


def test_files_in_lps_are_what_arrays_in_ras_are(pair, points, tmp_path):
    paths = [write(tmp_path / f"{n}.csv", x) for n, x in zip("fm", points, strict=True)]
    images = source(pair.fixed), source(pair.moving)
    names = "fixed_points", "moving_points"
    one, other = (
        register(*images, **dict(zip(names, given, strict=True)), iterations=(8,), threads=1)
        for given in (points, paths)
    )
    assert np.abs(one.transform.displacement - other.transform.displacement).max() < 1e-3
    entry = other.report["inputs"]["fixed_points"]
    assert (entry["path"], entry["shape"]) == (str(paths[0]), [8, 3])
    assert one.report["inputs"]["moving_points"]["path"] is None


def test_a_table_uses_points_only_if_asked(pair, points, tmp_path):
    for name, volume in (("f", pair.fixed), ("m", pair.moving)):
        nifti.save_volume(tmp_path / f"{name}.nii.gz", volume.data, volume.grid)
    for name, where in zip("fm", points, strict=True):
        write(tmp_path / f"{name}.csv", where)
    table = tmp_path / "pairs.csv"
    table.write_text(
        "fixed,moving,fixed_points,moving_points\nf.nii.gz,m.nii.gz,f.csv,m.csv\n", encoding="utf-8"
    )
    options = {"iterations": (8,), "qc": False}
    (plain,) = register_pairs(table, tmp_path / "out", **options)
    assert plain.details.points is None
    for skipped in (False, True):
        (pulled,) = register_pairs(table, tmp_path / "out", points_weight=0.1, **options)
        assert pulled.skipped == skipped
    assert pulled.details.points.mean_mm_after < pulled.details.points.mean_mm_before
    report = json.loads((tmp_path / "out" / "m_to_f" / "report.json").read_text())
    assert report["points"]["count"] == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"moving_points": None}, "fixed_points needs moving_points"),
        ({"fixed_points": None}, "moving_points needs fixed_points"),
        (
            {"fixed_points": None, "moving_points": None, "points_weight": 1.0},
            "points_weight needs fixed_points",
        ),
        ({"moving_points": np.zeros((3, 3))}, "has 2 points and moving_points has 3"),
        ({"fixed_points": np.zeros((2, 2))}, r"points must have shape"),
        ({"fixed_points": np.zeros((0, 3))}, r"fixed_points must have shape \(N, 3\)"),
        ({"fixed_points": np.full((2, 3), np.nan)}, "points must be finite"),
        ({"fixed_points": "none.csv"}, r"none\.csv"),
        (
            {"moving_points": np.array([[0, 0, 0], [0, 99, 0]])},
            "moving_points: 1 of 2 lie outside the image, .* number 2$",
        ),
        ({"points_weight": 0.0}, "points_weight must be a number above 0"),
        ({"points_weight": "1"}, "points_weight must be a number above 0, .* got '1'"),
        ({"points_weight": float("nan")}, "points_weight must be a number above 0"),
    ],
)
def test_what_is_refused(pair, change, message):
    given = {"fixed_points": np.zeros((2, 3)), "moving_points": np.zeros((2, 3)), **change}
    with pytest.raises(InputError, match=message):
        register(source(pair.fixed), source(pair.moving), **given)


def test_points_that_drift_apart_are_a_reason():
    assert not point_reasons(PointScores(2, 2.0, 3.0, 1.0, 1.0))
    (reason,) = point_reasons(PointScores(2, 2.0, 3.0, 2.5, 3.0))
    assert reason.text == "the mean distance of the matching points rose from 2.00 to 2.50 mm"

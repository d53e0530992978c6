"""Whether a result can be trusted: every reason by itself, and results that are known."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import LABELS, register
from scipy.spatial.transform import Rotation
from synthetic import anatomy, oblique_grid, synthetic_pair

import lganet_fast
from lganet_fast import InputError
from lganet_fast.cli import main
from lganet_fast.registration import stages
from lganet_fast.registration.measures import Reach, SimilarityChange
from lganet_fast.registration.turns import Turn, rotations
from lganet_fast.registration.verdict import Measured, judge
from lganet_fast.report.contents import Folds, InverseConsistency, LabelRow, LabelScores
from lganet_fast.volumes import nifti

GOOD = Measured(
    similarity=SimilarityChange("lncc", 0.2, 0.2, 0.7, 1.0),
    affine=np.eye(4),
    doubts=(),
    turn=Turn(1.35, 1.2, 90.0),
    overlap=1.0,
    reach=Reach(14.0, 140.0, 0.0),
    folded_percent=0.0,
    smoothness=1.0,
    residual_mm=InverseConsistency(mean=0.001, p99=0.01, max=0.1, outside_percent=0.0),
    spacing=np.ones(3),
    labels=None,
)
ROWS = [LabelRow(n, 0.5, 0.6, 2.0, 1.0) for n in (7, 8)]
SCORES = LabelScores("nearest", 0.5, 0.6, 2.0, 1.0, 0, 0, [], [], [], ROWS)


def turned(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, 9], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


CASES = [
    ({"folds": Folds(9, 99, 0.02, [0.0] * 3, 1.0, 0.7, 0.19)}, "doubtful", "folds took .* to 0.19"),
    (
        {"similarity": SimilarityChange("lncc", 0.41, 0.41, 0.33, 0.99)},
        "doubtful",
        "fell from 0.41",
    ),
    ({"similarity": SimilarityChange("lncc", 0.41, 0.41, 0.41, 0.99)}, "doubtful", "did not rise"),
    ({"similarity": SimilarityChange("lncc", 0.5, 0.4, 0.45, 0.99)}, "doubtful", "0.5 to 0.45"),
    ({"similarity": SimilarityChange("mse", 0.02, 0.02, 0.03, 0.0)}, "doubtful", "0.02 to 0.03"),
    ({"similarity": SimilarityChange("lncc", 0.01, 0.01, 0.3, 1.0)}, "doubtful", "poor: 0.3"),
    ({"similarity": SimilarityChange("lncc", 0.01, 0.01, 0.05, 1.0)}, "bad", "poor: 0.05"),
    ({"similarity": SimilarityChange("mind", 0.1, 0.1, float("nan"), 0.0)}, "bad", "not a number"),
    ({"affine": np.diag([2.0, 2.0, 2.0, 1.0])}, "doubtful", "scales by 2"),
    ({"affine": np.diag([10.0, 10.0, 10.0, 1.0])}, "bad", "scales by 10"),
    ({"affine": np.diag([0.3, 0.3, 0.3, 1.0])}, "bad", "scales by 0.3"),
    ({"affine": np.diag([0.8, 0.8, 1.4, 1.0])}, "doubtful", "1.75 times as much"),
    ({"affine": np.diag([-1.0, 1.0, 1.0, 1.0])}, "bad", "mirrors"),
    ({"doubts": ("another pose fits",)}, "doubtful", "another pose fits"),
    ({"turn": Turn(1.2, 1.3, 180.0)}, "bad", "rotated by 180 degrees"),
    ({"turn": Turn(1.2, 1.3, 45.0)}, "doubtful", "rotated by 45 degrees"),
    ({"overlap": 0.2}, "doubtful", "only 20% of the fixed image"),
    ({"reach": Reach(60.0, 140.0, 0.0)}, "doubtful", "largest displacement, 60 mm"),
    ({"reach": Reach(10.0, 140.0, 3.0)}, "doubtful", "3.0% of the anatomy"),
    ({"folded_percent": 2.0}, "doubtful", "2.00% of voxels fold: raise smoothness above 1"),
    ({"folded_percent": 20.0}, "bad", "20.00% of voxels fold"),
    (
        {"residual_mm": InverseConsistency(0.5, 3.0, 9.0, 0.0)},
        "doubtful",
        "error to the moving image and back is 0.50 mm",
    ),
    (
        {"residual_mm": InverseConsistency(2.0, 3.0, 9.0, 0.0)},
        "bad",
        "error to the moving image and back is 2.00 mm",
    ),
    (
        {"residual_mm": InverseConsistency(np.nan, np.nan, 9.0, 0.0)},
        "doubtful",
        "no part of the moving",
    ),
    ({"labels": replace(SCORES, lost=[7])}, "doubtful", r"labels 7 \(1 of 2\) are lost"),
    ({"labels": replace(SCORES, mean_dice_after=0.4)}, "doubtful", "Dice fell from 0.500 to 0.400"),
]


@pytest.mark.parametrize(("change", "level", "text"), CASES)
def test_each_reason_by_itself(change, level, text):
    found = judge(replace(GOOD, **change))
    assert found.level == level
    assert len(found.reasons) == 1
    assert re.search(text, found.reasons[0])


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"similarity": SimilarityChange("lncc", 0.995, 0.995, 0.983, 0.995)},  # nothing to gain
        {"similarity": SimilarityChange("mse", 0.0, 0.0, 0.0, 0.0)},
        {"affine": turned(170)},
        {"affine": np.diag([0.7, 0.7, 0.75, 1.0])},  # a child's head
        {"turn": Turn(1.40, 1.42, 90.0)},
        {"labels": SCORES},
        {"folded_percent": 0.8},
    ],
)
def test_what_is_no_reason(change):
    assert str(judge(replace(GOOD, **change))) == "good"


def test_the_worst_reason_decides_and_comes_first():
    found = judge(replace(GOOD, overlap=0.1, folded_percent=30.0))
    assert found.level == "bad"
    assert ["fold" in found.reasons[0], "inside" in found.reasons[1]] == [True, True]
    assert str(found) == f"bad: {found.reasons[0]}; {found.reasons[1]}"


def test_the_rotations_of_a_cube_are_all_there_and_half_as_far():
    found = rotations()
    assert len({m.round(6).tobytes() for m in found}) == 50
    assert np.array_equal(found[0], np.eye(3))
    assert all(np.allclose(m @ m.T, np.eye(3)) and np.linalg.det(m) > 0 for m in found)
    angles = [round(np.degrees(Rotation.from_matrix(m).magnitude())) for m in found]
    assert Counter(angles) == {0: 1, 45: 26, 90: 6, 120: 8, 180: 9}


def source(volume):
    return volume.data, volume.grid.affine


@pytest.mark.filterwarnings("ignore::lganet_fast.RegistrationWarning")
@pytest.mark.parametrize("axis", [(0, 0, 1), (1, 2, 1)])
@pytest.mark.parametrize("degrees", [20, 45, 70])
def test_a_turn_that_is_too_much_for_a_search_is_told(axis, degrees):
    """Without affine alignment a search finds 20 degrees, and only a part of 45 or 70."""
    grid = oblique_grid((40, 40, 40), (1.8, 1.8, 1.8), 0)
    turn = Rotation.from_rotvec(np.array(axis) / np.linalg.norm(axis) * degrees, degrees=True)
    fixed, moving = (
        anatomy(points)[0].astype(np.float32)
        for points in (grid.world(), grid.world() @ turn.as_matrix())
    )
    result = lganet_fast.register((fixed, grid.affine), (moving, grid.affine), iterations=(12, 6))
    place = grid.world()[fixed > 0]
    error = np.linalg.norm(result.transform.map(place) - place @ turn.as_matrix().T, axis=1).mean()
    if degrees == 20:
        assert error < 2.5
        assert result.verdict.level == "good"
    else:
        assert error > 5
        assert result.verdict.level != "good"
        assert re.search(r"rotated by \d+ degrees, the moving", "; ".join(result.verdict.reasons))


def test_equal_images_are_left_alone_and_good():
    pair = synthetic_pair()
    result = lganet_fast.register(source(pair.fixed), source(pair.fixed), iterations=(6, 3))
    assert result.verdict.level == "good"
    assert np.abs(result.transform.displacement).max() < 1e-6


def test_a_search_that_loses_is_not_the_result(monkeypatch):
    pair = synthetic_pair()

    def worse(terms, like, *_, **__):
        return 3 * like.new_ones(1, 3, *((n + 1) // 2 for n in like.shape[2:])).cumsum(2).sin()

    monkeypatch.setattr(stages, "minimise", worse)
    with pytest.warns(lganet_fast.RegistrationWarning, match=r"fell from 0\.\d+ to 0\.\d+"):
        result = lganet_fast.register(source(pair.fixed), source(pair.moving))
    assert not result.transform.displacement.any()
    similarity = result.report["similarity"]
    assert similarity["after"] == similarity["before"] > similarity["found"]
    assert (result.report["verdict"], result.verdict.level) == ("doubtful", "doubtful")


def test_a_mask_of_background_is_refused():
    pair = synthetic_pair()
    mask = np.zeros(pair.fixed.grid.shape, np.uint8)
    mask[:2, :2, :2] = 1
    with pytest.raises(InputError, match="fixed_mask does not overlap the foreground of fixed"):
        lganet_fast.register(
            source(pair.fixed), source(pair.moving), fixed_mask=(mask, pair.fixed.grid.affine)
        )


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A pair with labels in the current folder."""
    grid = oblique_grid((24, 26, 22), (3.0, 2.8, 3.2), 10)
    pair = synthetic_pair(grid, grid)
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        volume = getattr(pair, name)
        nifti.save_volume(tmp_path / f"{name}.nii.gz", volume.data, grid)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_ends_with_the_verdict_and_strict_fails(files, capsys):
    assert register("--strict", *LABELS) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "verdict: good"
    labels = ["--fixed-labels", "moving_labels.nii.gz", *LABELS[2:]]  # equal before: can only fall
    assert register(*labels, out="a") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1].startswith(
        "verdict: doubtful: the mean Dice fell from 1.000"
    )
    assert printed.err.count("mean Dice fell") == 0
    assert register("--strict", "--quiet", *labels, out="b") == 3
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("mean Dice fell")) == ("", 1)
    report = json.loads(Path("b/report.json").read_text())
    assert report["verdict"] == "doubtful"
    assert "mean Dice fell" in report["reasons"][0]
    page = Path("b/qc.html").read_text()
    assert page.index("Verdict: doubtful") < page.index("Similarity")


def test_a_cohort_tells_whose_verdict_is_not_good(files, capsys):
    table = "name,fixed,moving,fixed_labels,moving_labels\n"
    table += "one,fixed.nii.gz,moving.nii.gz,,\n"
    table += "two,fixed.nii.gz,moving.nii.gz,moving_labels.nii.gz,moving_labels.nii.gz\n"
    Path("pairs.csv").write_text(table)
    words = ["register", "--pairs", "pairs.csv", "--out", "many", "--iterations", "6x3", "--no-qc"]
    for code, more in ((0, []), (3, ["--strict"])):
        assert main([*words, *more]) == code
        last = capsys.readouterr().out.splitlines()[-1]
        assert last == "verdict: doubtful: 1 doubtful (two), 1 good (one)"
    with open("many/cohort.csv", newline="") as file:
        found = {row["name"]: row for row in csv.DictReader(file)}
    assert [found[n]["verdict"] for n in ("one", "two")] == ["good", "doubtful"]
    assert "mean Dice fell" in found["two"]["reasons"]

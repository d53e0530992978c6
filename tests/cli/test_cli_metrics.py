"""`lganet-fast metrics` on files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from synthetic import oblique_grid, wave

from lganet_fast.cli import action_of, build_parser, main
from lganet_fast.errors import InputError, InputWarning
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.volumes.grid import Grid
from lganet_fast.volumes.nifti import save_volume
from lganet_fast.volumes.series import load_series

GRID = Grid((10, 9, 8), np.array([[-2.0, 0, 0, 30], [0, 1, 0, -4], [0, 0, 1.5, 7], [0, 0, 0, 1]]))
SHIFT = np.array([2.0, -1.0, 2.0])


def run(*arguments):
    args = build_parser().parse_args(["metrics", *map(str, arguments)])
    action_of(args)(args)


def scores(capsys, *arguments):
    run(*arguments, "--json", "-")
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def write_points(path, world):
    """ANTs's file: a header, and LPS mm."""
    np.savetxt(path, world * [-1, -1, 1], delimiter=",", header="x,y,z", comments="", fmt="%.9f")


@pytest.fixture
def labels(tmp_path):
    fixed, moved = np.zeros((2, *GRID.shape), np.uint8)
    fixed[2:6, 2:6, 2:6] = 3
    moved[3:7, 2:6, 2:6] = 3
    fixed[8, 7, 6] = 12
    paths = tmp_path / "fixed.nii.gz", tmp_path / "moved.nii.gz"
    for path, data in zip(paths, (fixed, moved), strict=True):
        save_volume(path, data, GRID)
    return paths


@pytest.fixture
def field(tmp_path):
    def write(shift, name):
        values = np.tile(np.float32(shift), (*GRID.shape, 1))
        DisplacementField(values, GRID).save(tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def landmarks(tmp_path):
    index = np.array([[2.0, 3, 4], [5, 5, 5], [7, 2, 3]])
    fixed = GRID.to_world(index)
    paths = tmp_path / "fixed.csv", tmp_path / "moving.csv"
    for path, points in zip(paths, (fixed, fixed + SHIFT), strict=True):
        write_points(path, points)
    return paths


def test_labels_are_scored_in_mm(capsys, labels):
    found = scores(capsys, "--fixed-labels", labels[0], "--moved-labels", labels[1])["labels"]
    assert found["per_label"] == [
        {"label": 3, "dice": 0.75, "hd95_mm": 2.0, "recall": 0.75, "precision": 0.75},
        {"label": 12, "dice": 0.0, "hd95_mm": None, "recall": 0.0, "precision": 0.0},
    ]
    assert found["mean_dice"] == 0.375
    assert found["mean_hd95_mm"] == 2.0
    assert found["labels_without_hd95"] == 1


def test_label_table_is_aligned(capsys, labels):
    run("--fixed-labels", labels[0], "--moved-labels", labels[1])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Label    Dice  HD95 (mm)  Recall  Precision"
    assert lines[1] == "3      0.7500     2.0000  0.7500     0.7500"
    assert lines[2] == "12     0.0000        nan  0.0000     0.0000"
    assert lines[3] == "mean   0.3750     2.0000  0.3750     0.3750"
    assert lines[4].startswith("HD95 is nan if a map lacks the label: 1")


def test_transform_and_its_inverse(capsys, tmp_path, field):
    mask = np.zeros(GRID.shape, np.uint8)
    mask[4, 4, 4] = 1
    save_volume(tmp_path / "mask.nii.gz", mask, GRID)
    forward, inverse = field(SHIFT, "warp.nii.gz"), field(-SHIFT + [0, 0.25, 0], "inv.nii.gz")
    options = ("--transform", forward, "--inverse-transform", inverse)
    found = scores(capsys, *options)
    assert found["transform"] == {
        "folded_percent": 0,
        "folded_percent_published": 0,
        "ndv_percent": 0,
        "ndv_mm3": 0,
        "folded_cells_percent": 0,
        "sdlogj": pytest.approx(0, abs=1e-9),
        "jacobian_min": pytest.approx(1),
        "jacobian_max": pytest.approx(1),
        "displacement_mm": {"mean": pytest.approx(3), "max": pytest.approx(3)},
    }
    residual = found["inverse_consistency_mm"]
    assert residual["mean"] == pytest.approx(0.25, abs=1e-5)
    assert residual["outside_percent"] > 0
    masked = scores(capsys, *options, "--mask", tmp_path / "mask.nii.gz")
    assert masked["inverse_consistency_mm"]["outside_percent"] == 0
    run(*options)
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "Inverse consistency, mean (mm) 0.2500" in [" ".join(line.split()) for line in lines]


def test_landmarks_before_and_after(capsys, field, landmarks):
    points = ("--fixed-points", landmarks[0], "--moving-points", landmarks[1])
    alone = scores(capsys, *points)["tre_mm"]
    assert alone["points"] == 3
    assert alone["before"] == {k: pytest.approx(3, abs=1e-5) for k in ("mean", "median", "max")}
    assert "after" not in alone
    found = scores(capsys, *points, "--transform", field(SHIFT, "warp.nii.gz"))["tre_mm"]
    assert found["after"]["max"] == pytest.approx(0, abs=1e-5)
    assert found["points_outside_transform"] == 0
    wrong = scores(capsys, *points, "--transform", field(-SHIFT, "wrong.nii.gz"))["tre_mm"]
    assert wrong["after"]["mean"] == pytest.approx(6, abs=1e-5)


def test_landmarks_outside_the_transform_are_counted(capsys, tmp_path, field, landmarks):
    write_points(tmp_path / "far.csv", np.array([[0.0, 0, 900], [29, -3, 8], [29, -3, 8]]))
    options = ("--fixed-points", tmp_path / "far.csv", "--moving-points", landmarks[1])
    run(*options, "--transform", field(SHIFT, "warp.nii.gz"))
    out = capsys.readouterr().out
    assert [line.split()[-1] for line in out.splitlines() if "outside" in line] == ["1"]
    assert "TRE after, mean (mm)" in out


def test_json_goes_to_a_file_beside_the_table(capsys, tmp_path, labels):
    target = tmp_path / "scores.json"
    run("--fixed-labels", labels[0], "--moved-labels", labels[1], "--json", target)
    assert capsys.readouterr().out.startswith("Label")
    assert json.loads(target.read_text())["labels"]["mean_dice"] == 0.375


@pytest.mark.parametrize("extension", ["csv", "txt"])
def test_landmarks_in_voxels(capsys, tmp_path, field, extension):
    """Bare columns, as of DIR-Lab and Learn2Reg, whose images have one grid, or each its own."""
    fixed = np.array([[2, 3, 4], [5, 5, 5], [7, 2, 3]])
    moving = fixed + np.array([1, -2, 1])
    paths = [tmp_path / f"{name}.{extension}" for name in ("f", "m")]
    for path, index in zip(paths, (fixed, moving), strict=True):
        np.savetxt(path, index, "%d", "," if extension == "csv" else "\t")
    words = ["--fixed-points", paths[0], "--moving-points", paths[1], "--units", "voxel"]
    truth = np.linalg.norm([2, 2, 1.5])
    found = scores(capsys, *words, "--transform", field([0, 0, 0], "w.nii.gz"))["tre_mm"]
    assert found["before"]["mean"] == pytest.approx(truth)
    assert found["after"]["mean"] == pytest.approx(truth)
    save_volume(tmp_path / "i.nii.gz", np.zeros(GRID.shape, np.uint8), GRID)
    twice = Grid(GRID.shape, GRID.affine @ np.diag([2.0, 2, 2, 1]))
    save_volume(tmp_path / "j.nii.gz", np.zeros(GRID.shape, np.uint8), twice)
    words += ["--fixed-grid", tmp_path / "i.nii.gz"]
    assert scores(capsys, *words)["tre_mm"]["before"]["mean"] == pytest.approx(truth)
    found = scores(capsys, *words, "--moving-grid", tmp_path / "j.nii.gz")["tre_mm"]["before"]
    gap = twice.to_world(moving) - GRID.to_world(fixed)
    assert found["max"] == pytest.approx(np.linalg.norm(gap, axis=1).max())


def test_jacobian_map(capsys, tmp_path):
    """Above 1 where the moving image's anatomy is larger; on the transform's grid."""
    grown = DisplacementField.from_affine(np.diag([1.2, 1.1, 1, 1]), GRID)
    grown.save(tmp_path / "w.nii.gz")
    words = ["--transform", tmp_path / "w.nii.gz", "--jacobian-map", tmp_path / "j.nii.gz"]
    run(*words)
    found = load_series(tmp_path / "j.nii.gz", "image")
    np.testing.assert_allclose(found.data, 1.32, rtol=1e-4)
    assert found.grid.matches(GRID)
    run(*words, "--log")
    logarithm = load_series(tmp_path / "j.nii.gz", "image").data
    np.testing.assert_allclose(logarithm, np.log(1.32), rtol=1e-3)
    flat = DisplacementField.from_affine(np.diag([-1.0, 1, 1, 1]), GRID)
    flat.save(tmp_path / "w.nii.gz")
    with pytest.warns(InputWarning, match="720 voxels are folded or nearly so"):
        run(*words, "--log")


def test_no_jacobian_map_is_left_when_the_scores_cannot_be_written(tmp_path):
    DisplacementField.from_affine(np.eye(4), GRID).save(tmp_path / "w.nii.gz")
    words = ["--transform", tmp_path / "w.nii.gz", "--jacobian-map", tmp_path / "j.nii.gz"]
    with pytest.raises(InputError, match="cannot write"):
        run(*words, "--json", tmp_path / "nowhere" / "x.json")
    with pytest.raises(InputError, match="must end in"):
        run(*words[:2], "--jacobian-map", tmp_path / "j.txt", "--json", tmp_path / "x.json")
    assert [path.name for path in tmp_path.iterdir()] == ["w.nii.gz"]


def test_jacobian_map_agrees_with_ants(tmp_path):
    ants = pytest.importorskip("ants")
    grid = oblique_grid((18, 16, 14), (1.0, 1.5, 3.0), 25)
    field = DisplacementField(wave(grid.world(), 6.0).astype(np.float32), grid)
    field.save(tmp_path / "w.nii.gz")
    save_volume(tmp_path / "f.nii.gz", np.zeros(grid.shape, np.uint8), grid)
    run("--transform", tmp_path / "w.nii.gz", "--jacobian-map", tmp_path / "j.nrrd")
    ours = load_series(tmp_path / "j.nrrd", "image").data[..., 0]
    image = ants.image_read(str(tmp_path / "f.nii.gz"))
    theirs = ants.create_jacobian_determinant_image(image, str(tmp_path / "w.nii.gz")).numpy()
    middle = (slice(2, -2),) * 3
    np.testing.assert_allclose(ours[middle], theirs[middle], atol=0.02)


def test_mask_measures_where_it_lies(capsys, tmp_path):
    """Neighbours along X change places in one half, which central differences miss."""
    values = np.zeros((*GRID.shape, 3), np.float32)
    values[:5, ..., 0] = np.where(np.arange(5) % 2, 1.4, -1.4)[:, None, None]
    DisplacementField(values, GRID).save(tmp_path / "w.nii.gz")
    words = ("--transform", tmp_path / "w.nii.gz", "--mask", tmp_path / "k.nii.gz")
    found = []
    for part in (slice(0, 4), slice(7, None)):
        mask = np.zeros(GRID.shape, np.uint8)
        mask[part] = 1
        save_volume(tmp_path / "k.nii.gz", mask, GRID)
        found.append(scores(capsys, *words)["transform"])
    folds, smooth = found
    assert folds["ndv_percent"] > 15
    assert folds["displacement_mm"]["max"] == pytest.approx(1.4)
    assert smooth["ndv_percent"] == smooth["folded_percent"] == 0
    assert smooth["displacement_mm"]["max"] == 0
    save_volume(tmp_path / "k.nii.gz", mask, Grid(GRID.shape, np.diag([3.0, 3, 3, 1])))
    with pytest.raises(InputError, match=r"mask .* must be on its image's grid"):
        run(*words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to measure: give --fixed-labels and --moved-labels, --transform, or"),
        (["--fixed-labels", "a"], "--fixed-labels needs --moved-labels"),
        (["--moved-labels", "a"], "--moved-labels needs --fixed-labels"),
        (["--moving-points", "a"], "--moving-points needs --fixed-points"),
        (["--inverse-transform", "a"], "--inverse-transform needs --transform"),
        (
            ["--fixed-labels", "a", "--moved-labels", "a", "--jacobian-map", "b"],
            "needs --transform",
        ),
        (["--transform", "a", "--log"], "--log needs --jacobian-map"),
        (["--fixed-points", "a", "--moving-points", "a", "--moving-grid", "b"], "needs --units"),
        (["--fixed-points", "a", "--moving-points", "a", "--units", "voxel"], "needs --fixed-grid"),
        (["--fixed-labels", "a", "--moved-labels", "a", "--mask", "b"], "--mask needs --transform"),
        (["--transform", "missing.nii.gz"], "missing.nii.gz"),
        (["--fixed-points", "missing.csv", "--moving-points", "b"], "missing.csv"),
    ],
)
def test_options_that_do_not_fit_are_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        run(*options)
    assert "\n" not in str(caught.value)


def test_files_that_do_not_fit_are_one_line(tmp_path, labels, landmarks):
    other = tmp_path / "other.nii.gz"
    save_volume(other, np.ones((4, 4, 4), np.uint8), Grid((4, 4, 4), np.eye(4)))
    with pytest.raises(InputError, match=r"moved labels .*other.nii.gz is on 4 x 4 x 4"):
        run("--fixed-labels", labels[0], "--moved-labels", other)
    empty = tmp_path / "empty.nii.gz"
    save_volume(empty, np.zeros(GRID.shape, np.uint8), GRID)
    with pytest.raises(InputError, match="have no label but 0"):
        run("--fixed-labels", empty, "--moved-labels", empty)
    (tmp_path / "bare.csv").write_text("1,2,3\n")
    with pytest.raises(InputError, match=r"bare.csv have no header x,y,z: add it for LPS mm"):
        run("--fixed-points", tmp_path / "bare.csv", "--moving-points", landmarks[1])
    write_points(tmp_path / "two.csv", np.zeros((2, 3)))
    with pytest.raises(InputError, match=r"fixed.csv has 3 points and .*two.csv has 2"):
        run("--fixed-points", landmarks[0], "--moving-points", tmp_path / "two.csv")


def test_command_ends_with_code_2(capsys):
    assert main(["metrics"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lganet-fast: error: nothing to measure")
    assert error.count("\n") == 1

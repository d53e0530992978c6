"""`lganet-fast apply` against SimpleITK and the Python calls, and its errors."""

from __future__ import annotations

import os

import nibabel as nib
import numpy as np
import pytest
from synthetic import oblique_grid, synthetic_pair, wave

from lganet_fast.cli import main
from lganet_fast.errors import InputError
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.volumes import nifti, points
from lganet_fast.volumes.grid import Grid

FIXED = oblique_grid((23, 25, 16), (2.4, 2.0, 3.4), 20)
MOVING = oblique_grid((27, 22, 24), (2.0, 2.6, 2.3), -35)
FLIP = np.array([-1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def field():
    return DisplacementField(wave(FIXED.world(), 4.0).astype(np.float32), FIXED)


@pytest.fixture(scope="module")
def pair():
    return synthetic_pair(FIXED, MOVING, amplitude=4.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pair, field):
    folder = tmp_path_factory.mktemp("in")
    field.save(folder / "warp.nii.gz")
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        volume = getattr(pair, name)
        nifti.save_volume(folder / f"{name}.nii.gz", volume.data, volume.grid)
    random = np.random.default_rng(5)
    index = random.uniform(4, np.array(FIXED.shape) - 5, (40, 3))
    fixed = FIXED.to_world(index)
    moving = field.map(fixed)
    for name, world in (("fixed", fixed), ("moving", moving)):
        rows = [f"{i},{x:.6f},{y:.6f},{z:.6f},p{i}" for i, (x, y, z) in enumerate(world * FLIP)]
        (folder / f"{name}.csv").write_text("\n".join(["id,x,y,z,name", *rows]) + "\n")
    grids = {"fixed": (FIXED, fixed), "moving": (MOVING, moving)}
    for name, (grid, world) in grids.items():
        np.savetxt(folder / f"{name}_voxels.csv", grid.to_index(world), "%.6f", ",")
    return folder


@pytest.fixture
def run(folder, tmp_path, capsys, monkeypatch):
    """Run apply on files of `folder`; the output's path, the exit code and what was printed."""
    monkeypatch.chdir(folder)

    def call(*words, out="out.nii.gz", transform="warp.nii.gz"):
        path = tmp_path / out
        code = main(["apply", "--transform", transform, "--out", str(path), *words])
        return path, code, capsys.readouterr().err

    return call


def array(path):
    return np.asanyarray(nib.load(path).dataobj)


def test_image(run, field, pair):
    path, code, err = run("--image", "moving.nii.gz")
    assert (code, err) == (0, "")
    np.testing.assert_allclose(array(path), field.apply(pair.moving).data, atol=1e-5)
    np.testing.assert_allclose(nib.load(path).affine, FIXED.affine, atol=1e-5)
    core = np.linalg.norm(FIXED.world(), axis=-1) < 15
    assert np.corrcoef(array(path)[core], pair.fixed.data[core])[0, 1] > 0.9


def test_labels(run, field, pair):
    path, code, _ = run("--labels", "moving_labels.nii.gz")
    assert code == 0
    assert array(path).dtype == np.uint8
    nearest = field.apply(pair.moving_labels, interpolation="nearest").data
    assert (array(path) != nearest).mean() < 1e-3
    path, code, _ = run("--labels", "moving_labels.nii.gz", "--interpolation", "label")
    assert code == 0
    linear = field.apply(pair.moving_labels, interpolation="label").data
    assert (array(path) != linear).mean() < 1e-3
    assert 0.001 < (linear != nearest).mean() < 0.2


def test_inverse_moves_the_fixed_image_back(run, field, pair):
    words = ["--inverse", "--image", "fixed.nii.gz", "--reference", "moving.nii.gz"]
    path, code, _ = run(*words)
    assert code == 0
    assert nib.load(path).shape == MOVING.shape
    expected = field.invert(MOVING).apply(pair.fixed).data
    np.testing.assert_allclose(array(path), expected, atol=1e-4)
    core = np.linalg.norm(MOVING.world(), axis=-1) < 15
    assert np.corrcoef(array(path)[core], pair.moving.data[core])[0, 1] > 0.9


def test_reference(run, field, pair):
    path, code, _ = run("--image", "moving.nii.gz", "--reference", "moving.nii.gz")
    assert code == 0
    np.testing.assert_allclose(array(path), field.apply(pair.moving, MOVING).data, atol=1e-4)


def test_points_both_ways(run, folder):
    """Points move as the image does: moving ones onto the fixed side, with --inverse back."""
    for words, source, target in (((), "moving", "fixed"), (("--inverse",), "fixed", "moving")):
        path, code, err = run("--points", f"{source}.csv", *words, out="out.csv")
        assert (code, err) == (0, "")
        np.testing.assert_allclose(
            points.read_points(path), points.read_points(folder / f"{target}.csv"), atol=1e-3
        )
        lines = path.read_text().splitlines()
        assert lines[0] == "id,x,y,z,name"
        assert [line.split(",")[0] + line.split(",")[4] for line in lines[1:4]] == [
            "0p0",
            "1p1",
            "2p2",
        ]


def test_points_agree_with_simpleitk(run, folder):
    sitk = pytest.importorskip("SimpleITK")

    warp = sitk.ReadImage(str(folder / "warp.nii.gz"), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(warp)
    lps = np.genfromtxt(folder / "fixed.csv", delimiter=",", skip_header=1, usecols=(1, 2, 3))
    path, code, _ = run("--points", "fixed.csv", "--inverse", out="out.csv")
    assert code == 0
    ours = np.genfromtxt(path, delimiter=",", skip_header=1, usecols=(1, 2, 3))
    theirs = np.array([transform.TransformPoint(p) for p in lps.tolist()])
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_points_in_voxels(run, folder):
    units = ["--units", "voxel", "--moving-grid", "moving.nii.gz"]
    for words, source, target in (([], "moving", "fixed"), (["--inverse"], "fixed", "moving")):
        path, code, _ = run("--points", f"{source}_voxels.csv", *units, *words, out="out.csv")
        assert code == 0
        expected = np.loadtxt(folder / f"{target}_voxels.csv", delimiter=",")
        np.testing.assert_allclose(np.loadtxt(path, delimiter=","), expected, atol=1e-3)


def test_points_in_ras(run, folder, tmp_path):
    lps = np.genfromtxt(folder / "moving.csv", delimiter=",", skip_header=1, usecols=(1, 2, 3))
    np.savetxt(tmp_path / "ras.csv", lps * FLIP, "%.6f", ",", header="x,y,z", comments="")
    path, code, _ = run("--points", str(tmp_path / "ras.csv"), "--units", "ras", out="out.csv")
    assert code == 0
    found = np.genfromtxt(path, delimiter=",", skip_header=1)
    np.testing.assert_allclose(found, points.read_points(folder / "fixed.csv"), atol=1e-3)


def test_warns_of_points_outside_and_without_inverse(run, tmp_path, field):
    (tmp_path / "p.csv").write_text("x,y,z\n0,0,0\n900,0,0\n0,-800,3\n")
    _, code, err = run("--points", str(tmp_path / "p.csv"), out="out.csv")
    assert code == 0
    assert "warning: 2 of 3 points lie outside the transform's grid" in err
    collapse = np.broadcast_to(-FIXED.world()[..., :1] * [1, 0, 0], (*FIXED.shape, 3))
    DisplacementField(collapse.astype(np.float32), FIXED).save(tmp_path / "flat.nii")
    (tmp_path / "p.csv").write_text("x,y,z\n1,0,0\n")
    _, code, err = run(
        "--points", str(tmp_path / "p.csv"), out="out.csv", transform=str(tmp_path / "flat.nii")
    )
    assert code == 0
    assert "warning: 1 of 1 points have no inverse to within 0.01 mm" in err


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_value_outside(run, tmp_path, dtype, interpolation):
    """CT: what lies outside the image is air, not water, as SimpleITK's default pixel value."""
    sitk = pytest.importorskip("SimpleITK")
    image = np.random.default_rng(1).integers(0, 900, (9, 8, 7)).astype(dtype)
    grid = oblique_grid((9, 8, 7), (2.0, 2.6, 2.3), -35)
    nib.save(nib.Nifti1Image(image, grid.affine), tmp_path / "ct.nii")
    words = ["--image", str(tmp_path / "ct.nii"), "--default-value", "-1000"]
    path, code, err = run(*words, "--interpolation", interpolation)
    assert (code, err) == (0, "")
    method = sitk.sitkLinear if interpolation == "linear" else sitk.sitkNearestNeighbor
    warp = sitk.ReadImage("warp.nii.gz", sitk.sitkVectorFloat64)
    truth = sitk.Resample(
        sitk.ReadImage(str(tmp_path / "ct.nii"), sitk.sitkFloat32),
        sitk.ReadImage("fixed.nii.gz"),
        sitk.DisplacementFieldTransform(warp),
        method,
        -1000.0,
    )
    gap = np.abs(array(path) - sitk.GetArrayFromImage(truth).T)
    assert (gap > 0.5).mean() < 2e-3
    assert (array(path) == -1000).mean() > 0.3


def test_value_outside_must_fit(run):
    labels = ["--labels", "moving_labels.nii.gz", "--default-value"]
    path, code, _ = run(*labels, "7")
    assert code == 0
    assert 7 in array(path)
    for value in ("0.5", "1e12"):
        _, code, err = run(*labels, value)
        assert (code, "default must be a value of int32" in err) == (2, True)
    _, code, err = run(*labels, "-1000")
    assert (code, "--default-value for --labels must be a label, from 0 on" in err) == (2, True)


def test_warns_where_a_field_ends_with_a_step(run, tmp_path):
    """A field of a part of the fixed grid shows things twice beyond its edge, as in ITK."""
    grid = Grid((6, 12, 12), np.eye(4))
    whole = Grid((12, 12, 12), np.eye(4))
    nifti.save_volume(tmp_path / "m.nii", np.arange(12.0**3).reshape(12, 12, 12), whole)
    for shift, warned in (([3, 0, 0], True), ([0, 0, 0], False)):
        field = np.full((*grid.shape, 3), shift, np.float32)
        DisplacementField(field, grid).save(tmp_path / "small.nii")
        words = ["--image", str(tmp_path / "m.nii"), "--reference", str(tmp_path / "m.nii")]
        _, code, err = run(*words, transform=str(tmp_path / "small.nii"))
        assert code == 0
        assert ("50.0 % of the result lies outside the grid of a transform" in err) == warned


@pytest.mark.parametrize("extension", [".fcsv", ".mrk.json"])
def test_points_of_slicer(run, folder, tmp_path, extension):
    """Into 3D Slicer's file, and from it into CSV."""
    path, code, _ = run("--points", "moving.csv", out=f"o{extension}")
    assert code == 0
    fixed = points.read_points(folder / "fixed.csv")
    np.testing.assert_allclose(points.read_points(path), fixed, atol=1e-3)
    assert points.read_table(path).rows[3][0] == "p3"
    back, code, _ = run("--points", str(path), "--inverse", out="back.csv")
    assert code == 0
    moving = points.read_points(folder / "moving.csv")
    np.testing.assert_allclose(points.read_points(back), moving, atol=2e-3)


def test_warns_of_an_empty_result(run, tmp_path, pair):
    affine = MOVING.affine.copy()
    affine[:3, 3] += 500
    nib.save(nib.Nifti1Image(pair.moving.data, affine), tmp_path / "far.nii")
    _, code, err = run("--image", str(tmp_path / "far.nii"))
    assert code == 0
    assert "warning: the result is 0 everywhere: is image" in err
    assert "on the moving side" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image", "none.nii"], "image none.nii does not exist"),
        (["--image", "moving.nii.gz", "--interpolation", "label"], "must be linear or nearest"),
        (["--labels", "moving_labels.nii.gz", "--interpolation", "linear"], "nearest or label"),
        (["--labels", "moving.nii.gz"], "must contain whole numbers"),
        (["--image", "moving.nii.gz", "--inverse"], "--inverse needs --reference"),
        (["--image", "moving.nii.gz", "--units", "ras"], "--units is for --points"),
        (["--image", "moving.nii.gz", "--reference", "none.nii"], "reference none.nii does not"),
    ],
)
def test_image_errors(run, words, message):
    path, code, err = run(*words)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert os.listdir(path.parent) == []


def test_output_errors(run):
    for out, message in (("o.png", "must end in .nii"), ("no/o.nii", "cannot write")):
        path, code, err = run("--image", "moving.nii.gz", out=out)
        assert (code, message in err) == (2, True)
    path, code, err = run("--points", "moving.csv", out="o.png")
    assert (code, "must end in .csv" in err) == (2, True)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["moving_voxels.csv"], "have no header x,y,z: add it for LPS mm"),
        (["moving_voxels.csv", "--units", "voxel"], "needs --moving-grid"),
        (["moving.csv", "--moving-grid", "moving.nii.gz"], "--moving-grid is for --units voxel"),
        (["moving.csv", "--reference", "moving.nii.gz"], "--reference is not for --points"),
        (["moving.csv", "--interpolation", "nearest"], "--interpolation is not for --points"),
        (["none.csv"], "points none.csv cannot be read: No such file"),
    ],
)
def test_point_errors(run, words, message):
    path, code, err = run("--points", *words, out="out.csv")
    assert code == 2
    assert message in err
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "contains no point"),
        ("x,y,z\n", "contains no point"),
        ("a,b,c\n1,2,3\n", "line 1: no columns x, y and z in a,b,c"),
        ("x,y,z\n1,2,3\n\n1,2\n", "line 4: 2 columns, not 3"),
        ("x,y,z\n1,2,3\n1,2,three\n", "line 3: 'three' is not a number"),
        ("x,y,z\n1,nan,3\n", "line 2: 'nan' is not a number"),
        ("1,2,3\n1,inf,3\n", "line 2: 'inf' is not a number"),
        ("1,2,3,4\n", "line 1: 4 columns, not 3"),
        ("1;2;3\n", "line 1: no columns x, y and z"),
        ("x,y,z\n1,\xff,3\n", "cannot be read"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    path = tmp_path / "p.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message) as caught:
        points.read_table(path)
    assert str(path) in str(caught.value)


def test_csv_keeps_quotes_spaces_and_marks(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes('\ufeffname, X ,Y,Z\r\n"a, b",1,2,3\r\n'.encode())
    table = points.read_table(path)
    np.testing.assert_array_equal(table.points, [[1, 2, 3]])
    points.write_table(path, table, table.points + 0.5)
    assert path.read_text() == 'name, X ,Y,Z\n"a, b",1.500000,2.500000,3.500000\n'


def test_read_points_needs_a_header(tmp_path):
    (tmp_path / "p.csv").write_text("1,2,3\n")
    with pytest.raises(InputError, match="have no header"):
        points.read_points(tmp_path / "p.csv")
    (tmp_path / "p.csv").write_text("x,y,z\n1,2,3\n")
    np.testing.assert_array_equal(points.read_points(tmp_path / "p.csv"), [[-1, -2, 3]])

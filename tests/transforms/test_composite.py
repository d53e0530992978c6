"""Composite transforms against SimpleITK, ANTs and nitransforms: order, inverses, resampling."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from synthetic import oblique_grid, synthetic_pair, wave

from lganet_fast.cli import main
from lganet_fast.errors import InputError
from lganet_fast.transforms.composite import Affine, CompositeTransform, Inverse
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.volumes import nifti

FIXED = oblique_grid((20, 22, 18), (2.4, 2.0, 2.8), 20)
MOVING = oblique_grid((24, 20, 22), (2.0, 2.6, 2.3), -35)
FLIP = np.array([-1.0, -1.0, 1.0])
MATRIX = np.array([[1.05, 0.1, 0, 3], [-0.1, 0.98, 0.02, -2], [0, 0.03, 1.02, 1], [0, 0, 0, 1]])
POINTS = FIXED.to_world(np.random.default_rng(0).uniform(4, 14, (60, 3)))


@pytest.fixture(scope="module")
def field():
    return DisplacementField(wave(FIXED.world(), 4.0).astype(np.float32), FIXED)


@pytest.fixture(scope="module")
def other():
    return DisplacementField(wave(MOVING.world(), -3.0).astype(np.float32), MOVING)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, field, other):
    sitk = pytest.importorskip("SimpleITK")
    folder = tmp_path_factory.mktemp("in")
    field.save(folder / "w.nii.gz")
    other.save(folder / "v.h5")
    linear = sitk.AffineTransform(3)
    flip = np.diag([*FLIP, 1.0])
    own = flip @ MATRIX @ flip
    linear.SetMatrix(own[:3, :3].ravel().tolist())
    linear.SetTranslation(own[:3, 3].tolist())
    sitk.WriteTransform(linear, str(folder / "a.mat"))
    pair = synthetic_pair(FIXED, MOVING, amplitude=4.0)
    nifti.save_volume(folder / "fixed.nii.gz", pair.fixed.data, FIXED)
    nifti.save_volume(folder / "moving.nii.gz", pair.moving.data, MOVING)
    return folder


def itk_points(transform, points):
    return np.array([transform.TransformPoint(p) for p in (points * FLIP).tolist()]) * FLIP


def test_order_is_that_of_the_list(field):
    chain = CompositeTransform([field, Affine(MATRIX)])
    expected = Affine(MATRIX).map(field.map(POINTS))
    np.testing.assert_allclose(chain.map(POINTS), expected, atol=1e-9)
    back = CompositeTransform([Affine(MATRIX), field])
    np.testing.assert_allclose(back.map(POINTS), field.map(Affine(MATRIX).map(POINTS)), atol=1e-9)
    assert np.abs(back.map(POINTS) - expected).max() > 0.1


def test_order_is_that_of_ants(folder):
    ants = pytest.importorskip("ants")
    pd = pytest.importorskip("pandas")
    names = ["w.nii.gz", "a.mat"]
    chain = CompositeTransform.load([folder / name for name in names])
    frame = pd.DataFrame(POINTS * FLIP, columns=list("xyz"))
    paths = [str(folder / name) for name in names]
    theirs = ants.apply_transforms_to_points(3, frame, paths)[["x", "y", "z"]].to_numpy() * FLIP
    np.testing.assert_allclose(chain.map(POINTS), theirs, atol=1e-4)


@pytest.mark.parametrize("field_first", [True, False])
def test_all_tools_read_it_alike(tmp_path, field, field_first):
    """Every part is kept, and ITK, ANTs and nitransforms map points within 1e-5 mm of ours."""
    sitk, ants = pytest.importorskip("SimpleITK"), pytest.importorskip("ants")
    from nitransforms.manip import load as load_chain

    parts = [field, Affine(MATRIX)]
    chain = CompositeTransform(parts if field_first else parts[::-1])
    path = tmp_path / "c.h5"
    chain.save(path)
    ours = chain.map(POINTS)
    composite = sitk.ReadTransform(str(path))
    assert sitk.CompositeTransform(composite).GetNumberOfTransforms() == 2
    np.testing.assert_allclose(itk_points(composite, POINTS), ours, atol=1e-5)
    read = ants.read_transform(str(path))
    theirs = np.array([read.apply_to_point(p) for p in (POINTS * FLIP).tolist()]) * FLIP
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    back = CompositeTransform.load([path])
    assert [type(part) for part in back.parts] == [type(part) for part in chain.parts]
    np.testing.assert_allclose(back.map(POINTS), ours, atol=1e-6)
    index = np.random.default_rng(1).integers(4, 14, (40, 3))  # voxels: it splines in between
    voxels = FIXED.to_world(index) if field_first else POINTS[:0]
    if field_first:
        found = load_chain(path, fmt="itk").map(voxels)
        np.testing.assert_allclose(found, chain.map(voxels), atol=1e-5)


def test_apart_is_the_same_map(field):
    chain = CompositeTransform.apart(field, MATRIX)
    assert [type(part) for part in chain.parts] == [DisplacementField, Affine]
    np.testing.assert_allclose(chain.map(POINTS), field.map(POINTS), atol=1e-5)
    np.testing.assert_allclose(chain.on(FIXED).displacement, field.displacement, atol=1e-5)
    far = np.array([[500.0, 0, 0]])
    np.testing.assert_allclose(chain.map(far), Affine(MATRIX).map(far))


@pytest.mark.parametrize("grid", [FIXED, MOVING], ids=["own", "other"])
def test_on_a_grid_is_exact_at_its_voxels(field, other, grid):
    parts = [field, Affine(MATRIX), Inverse(other), Affine(np.linalg.inv(MATRIX))]
    chain = CompositeTransform(parts)
    points = grid.world()[6:-6:2, 6:-6:2, 6:-6:2].reshape(-1, 3)
    ours = chain.on(grid).displacement[6:-6:2, 6:-6:2, 6:-6:2].reshape(-1, 3) + points
    np.testing.assert_allclose(ours, chain.map(points), atol=3e-3)  # of the inverse's tolerance
    forward = CompositeTransform(parts[:2])
    ours = forward.on(grid).displacement[6:-6:2, 6:-6:2, 6:-6:2].reshape(-1, 3) + points
    np.testing.assert_allclose(ours, forward.map(points), atol=2e-5)


def test_inverse_undoes(field, other):
    chain = CompositeTransform([field, Affine(MATRIX), Inverse(other)])
    there, within = chain.trace(POINTS)
    assert within.all()
    np.testing.assert_allclose(chain.inverse().map(there), POINTS, atol=5e-3)
    assert not chain.trace([[900.0, 0, 0]])[1].any()


def test_one_interpolation(folder, tmp_path, monkeypatch):
    """Apply with three transforms, one inverted, against SimpleITK's resampling of the whole."""
    sitk = pytest.importorskip("SimpleITK")
    monkeypatch.chdir(folder)
    out = tmp_path / "o.nii.gz"
    words = ["apply", "--transform", "a.mat", "[v.h5,inverse]", "w.nii.gz"]
    words += ["--image", "moving.nii.gz", "--reference", "fixed.nii.gz", "--out", str(out)]
    assert main(words) == 0
    chain = CompositeTransform.load(["a.mat", "[v.h5,inverse]", "w.nii.gz"])
    lps = (chain.map(FIXED.world().reshape(-1, 3)) - FIXED.world().reshape(-1, 3)) * FLIP
    whole = DisplacementField((lps * FLIP).reshape(*FIXED.shape, 3).astype(np.float32), FIXED)
    whole.save(tmp_path / "whole.nii.gz")
    warp = sitk.ReadImage(str(tmp_path / "whole.nii.gz"), sitk.sitkVectorFloat64)
    truth = sitk.Resample(
        sitk.ReadImage("moving.nii.gz"),
        sitk.ReadImage("fixed.nii.gz"),
        sitk.DisplacementFieldTransform(warp),
    )
    gap = np.abs(np.asanyarray(nib.load(out).dataobj) - sitk.GetArrayFromImage(truth).T)
    assert gap.mean() < 1e-4
    assert np.quantile(gap, 0.99) < 2e-3


@pytest.mark.parametrize("name", ["a.mat", "a.tfm", "a.txt", "a.h5"])
def test_linear_files_alone(folder, tmp_path, monkeypatch, name):
    sitk = pytest.importorskip("SimpleITK")
    monkeypatch.chdir(folder)
    linear = sitk.ReadTransform("a.mat")
    sitk.WriteTransform(linear, str(tmp_path / name))
    image = ["--image", "moving.nii.gz", "--out", str(tmp_path / "o.nii.gz")]
    words = ["apply", "--transform", str(tmp_path / name), *image]
    assert main(words) == 2
    assert main([*words, "--reference", "fixed.nii.gz"]) == 0
    truth = sitk.Resample(sitk.ReadImage("moving.nii.gz"), sitk.ReadImage("fixed.nii.gz"), linear)
    found = np.asanyarray(nib.load(tmp_path / "o.nii.gz").dataobj)
    assert np.abs(found - sitk.GetArrayFromImage(truth).T).mean() < 1e-5
    words = ["convert", str(tmp_path / name), str(tmp_path / "w.nii.gz")]
    assert main(words) == 2
    assert main([*words, "--fixed", "fixed.nii.gz"]) == 0
    field = DisplacementField.load(tmp_path / "w.nii.gz")
    np.testing.assert_allclose(field.map(POINTS), Affine(MATRIX).map(POINTS), atol=1e-4)


def test_convert_puts_together_and_apart(folder, tmp_path, monkeypatch, field):
    monkeypatch.chdir(folder)
    out = str(tmp_path / "c.h5")
    assert main(["convert", "w.nii.gz", "a.mat", out]) == 0
    chain = CompositeTransform.load([out])
    assert [type(part) for part in chain.parts] == [DisplacementField, Affine]
    assert main(["convert", "w.nii.gz", "a.mat", str(tmp_path / "one.nii.gz")]) == 0
    one = DisplacementField.load(tmp_path / "one.nii.gz")
    np.testing.assert_allclose(one.map(POINTS), chain.map(POINTS), atol=1e-4)
    (tmp_path / "report.json").write_text(json.dumps({"affine_matrix_ras_mm": MATRIX.tolist()}))
    for linear in ("a.mat", str(tmp_path / "report.json")):
        assert main(["convert", "w.nii.gz", out, "--linear", linear]) == 0
        parts = CompositeTransform.load([out]).parts
        np.testing.assert_allclose(parts[1].matrix, MATRIX, atol=1e-9)
        found = CompositeTransform(parts).map(POINTS)
        np.testing.assert_allclose(found, field.map(POINTS), atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["convert", "a.mat", "[w.nii.gz,inverse]", "o.h5"], "hold no inverse of a field"),
        (["convert", "a.mat", "w.nii.gz", "o.nii", "--from", "itk"], "--from is for one field"),
        (["convert", "w.nii.gz", "o.nii", "--linear", "a.mat"], "--linear is for .h5"),
        (["convert", "a.mat", "w.nii.gz", "o.nii"], "stores no grid: give the fixed image"),
        (["convert", "none.mat", "w.nii.gz", "o.nii"], "none.mat does not exist"),
    ],
)
def test_errors(folder, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(folder)
    assert main([str(tmp_path / w) if w.startswith("o.") else w for w in words]) == 2
    assert message in capsys.readouterr().err


def test_other_kinds_are_refused(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    spline = sitk.BSplineTransformInitializer(sitk.Image([9, 9, 9], sitk.sitkUInt8), [2, 2, 2])
    sitk.WriteTransform(sitk.CompositeTransform([spline]), str(tmp_path / "b.h5"))
    with pytest.raises(InputError, match="holds a BSplineTransform: convert it to a field first"):
        CompositeTransform.load([tmp_path / "b.h5"])
    np.savetxt(tmp_path / "fsl.mat", np.eye(4))
    with pytest.raises(InputError, match="it is FSL's, which needs both images"):
        CompositeTransform.load([tmp_path / "fsl.mat", tmp_path / "fsl.mat"], FIXED, MOVING)
    CompositeTransform.load([tmp_path / "fsl.mat"], FIXED, MOVING)
    with pytest.raises(InputError, match="at least one part"):
        CompositeTransform([])
    with pytest.raises(InputError, match="singular"):
        Affine(np.diag([1.0, 1, 0, 1]))

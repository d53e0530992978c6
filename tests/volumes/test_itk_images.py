"""NRRD, MetaImage and DICOM: headers and values as SimpleITK and nibabel have them, round trips."""

from __future__ import annotations

import locale
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from synthetic import oblique_grid

from lganet_fast.cli import main
from lganet_fast.errors import InputError
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.volumes import nifti
from lganet_fast.volumes.grid import LPS, Grid
from lganet_fast.volumes.series import load_series

sitk = pytest.importorskip("SimpleITK")
GRID = oblique_grid((7, 6, 5), (1.0, 0.8, 2.5), 25)
LEFT = Grid((7, 6, 5), np.array([[-1.0, 0, 0, 9], [0, 0, -2, 3], [0, 1.5, 0, -4], [0, 0, 0, 1]]))
KINDS = ("nrrd", "nhdr", "mha", "mhd")


@pytest.fixture
def data():
    return np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)


def itk_image(array, grid):
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetOrigin((LPS @ grid.affine[:3, 3]).tolist())
    image.SetSpacing(grid.spacing.tolist())
    image.SetDirection((LPS @ grid.affine[:3, :3] / grid.spacing).ravel().tolist())
    return image


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", [GRID, LEFT], ids=["oblique", "left-handed"])
@pytest.mark.parametrize("packed", [False, True])
def test_reads_what_itk_writes(tmp_path, data, kind, grid, packed):
    """The same volume by nibabel in NIfTI and by SimpleITK in its formats."""
    nib.save(nib.Nifti1Image(data, grid.affine), tmp_path / "a.nii.gz")
    sitk.WriteImage(itk_image(data, grid), str(tmp_path / f"a.{kind}"), packed)
    one = nifti.load_image(tmp_path / "a.nii.gz", "fixed")
    other = nifti.load_image(tmp_path / f"a.{kind}", "fixed")
    np.testing.assert_array_equal(other.data, one.data)
    np.testing.assert_allclose(other.grid.affine, one.grid.affine, atol=1e-5)
    np.testing.assert_allclose(other.grid.affine, grid.affine, atol=1e-9)
    assert nifti.orientation(other.grid) == nifti.orientation(grid)


@pytest.mark.parametrize("kind", ["nrrd", "mha"])
@pytest.mark.parametrize("dtype", [np.float64, np.uint8, np.int16, np.uint16, np.int32])
def test_round_trip(tmp_path, data, kind, dtype):
    """SimpleITK and this package read what is written; the same data give the same bytes."""
    array = (np.abs(data) * 50).astype(dtype)
    paths = [tmp_path / f"{name}.{kind}" for name in "ab"]
    for path in paths:
        nifti.save_volume(path, array, GRID)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    image = sitk.ReadImage(str(paths[0]))
    np.testing.assert_allclose(sitk.GetArrayFromImage(image).T, array, rtol=1e-6)
    np.testing.assert_allclose(image.GetOrigin(), LPS @ GRID.affine[:3, 3], atol=1e-12)
    np.testing.assert_allclose(image.GetSpacing(), GRID.spacing, atol=1e-12)
    found = load_series(paths[0], "image")
    np.testing.assert_allclose(found.data[..., 0], array, rtol=1e-6)
    np.testing.assert_allclose(found.grid.affine, GRID.affine, atol=1e-12)


@pytest.mark.parametrize("kind", ["nrrd", "mha"])
def test_series_and_labels(tmp_path, data, kind):
    many = np.stack([data, data * 2, data * 3], -1)
    nifti.save_volume(tmp_path / f"t.{kind}", many, GRID, 2.0, "sec")
    found = load_series(tmp_path / f"t.{kind}", "image")
    np.testing.assert_array_equal(found.data, many)
    np.testing.assert_allclose(found.grid.affine, GRID.affine, atol=1e-12)
    with pytest.raises(InputError, match="3 time points, one is needed"):
        nifti.load_image(tmp_path / f"t.{kind}", "fixed")
    labels = (data > 0).astype(np.int32) * 300
    nifti.save_volume(tmp_path / f"l.{kind}", labels, GRID)
    assert sitk.ReadImage(str(tmp_path / f"l.{kind}")).GetPixelID() == sitk.sitkInt16
    np.testing.assert_array_equal(
        nifti.load_labels(tmp_path / f"l.{kind}", "labels", GRID).data, labels
    )
    mask = nifti.load_mask(tmp_path / f"l.{kind}", "mask", GRID)
    np.testing.assert_array_equal(mask.data, labels > 0)


def test_nrrd_says_its_space(tmp_path, data):
    """RAS and LPS headers of one volume; a big-endian file."""
    for space, sign in (("right-anterior-superior", 1), ("left-posterior-superior", -1)):
        flip = np.diag([sign, sign, 1])
        axes = " ".join(
            f"({','.join(f'{x:.17g}' for x in flip @ a)})" for a in GRID.affine[:3, :3].T
        )
        origin = ",".join(f"{x:.17g}" for x in flip @ GRID.affine[:3, 3])
        header = (
            f"NRRD0004\ntype: float\ndimension: 3\nspace: {space}\nsizes: 7 6 5\n"
            f"space directions: {axes}\nkinds: domain domain domain\nendian: big\n"
            f"encoding: raw\nspace origin: ({origin})\n\n"
        )
        path = tmp_path / "a.nrrd"
        path.write_bytes(header.encode() + data.T.astype(">f4").tobytes())
        found = nifti.load_image(path, "fixed")
        np.testing.assert_array_equal(found.data, data)
        np.testing.assert_allclose(found.grid.affine, GRID.affine, atol=1e-9)


def write_slices(folder, array, grid, *, slope=1.0, offset=0.0, series="1.2.3", left_out=()):
    """A DICOM series of whole numbers, a file per slice, in an order that is not that of names."""
    folder.mkdir(exist_ok=True)
    direction = LPS @ grid.affine[:3, :3] / grid.spacing
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in set(range(array.shape[2])) - set(left_out):
        image = sitk.GetImageFromArray(np.ascontiguousarray(array[:, :, k].T[None]))
        image.SetSpacing(grid.spacing.tolist())
        place = LPS @ grid.to_world([0, 0, k])
        tags = {
            "0008|0060": "CT",
            "0020|000d": "1.2.9",
            "0020|000e": series,
            "0008|0018": f"{series}.{k + 1}",
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{x:.9f}" for x in place),
            "0020|0037": "\\".join(f"{x:.9f}" for x in direction[:, :2].T.ravel()),
            "0028|1052": f"{offset:g}",
            "0028|1053": f"{slope:g}",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{series}_{(k * 7) % 11:02d}.dcm"))
        used = locale.setlocale(locale.LC_ALL)
        writer.Execute(image)  # sets the locale to "C"
        locale.setlocale(locale.LC_ALL, used)


@pytest.fixture
def stored(data):
    return np.round(data * 100).astype(np.int16)


def test_dicom_folder(tmp_path, stored):
    """Order, position and intensity of a series, against SimpleITK's reader of series."""
    stored = (stored * 2 - 1000).astype(np.int16)  # divided by the writer, as a scanner does
    write_slices(tmp_path / "ct", stored, GRID, slope=2, offset=-1000)
    found = nifti.load_image(tmp_path / "ct", "fixed")
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "ct"))
    truth = sitk.ReadImage(names)
    np.testing.assert_array_equal(found.data, sitk.GetArrayFromImage(truth).T)
    np.testing.assert_array_equal(found.data, stored)
    np.testing.assert_allclose(found.grid.affine, GRID.affine, atol=1e-6)
    np.testing.assert_allclose(LPS @ truth.GetOrigin(), found.grid.affine[:3, 3], atol=1e-6)
    assert len(nifti.describe(tmp_path / "ct")["sha256"]) == 64


def test_dicom_keeps_a_tilted_gantry(tmp_path, stored):
    sheared = GRID.affine.copy()
    sheared[:3, 2] += 0.5 * sheared[:3, 1]
    grid = Grid(GRID.shape, sheared)
    write_slices(tmp_path / "ct", stored, grid)
    found = nifti.load_grid(tmp_path / "ct", "fixed")
    np.testing.assert_allclose(found.affine, sheared, atol=1e-6)


def test_dicom_errors(tmp_path, stored):
    folder = tmp_path / "ct"
    folder.mkdir()
    (folder / "readme.txt").write_text("nothing")
    with pytest.raises(InputError, match=r"ct is not a file, and a folder without a DICOM series"):
        nifti.load_image(folder, "fixed")
    write_slices(folder, stored, GRID, left_out=[2])
    with pytest.raises(InputError, match=r"its 4 slices are not evenly spaced.*is one missing"):
        nifti.load_image(folder, "fixed")
    write_slices(folder, stored, GRID, series="1.2.4")
    with pytest.raises(InputError, match=r"has 2 DICOM series, of .* files: give"):
        nifti.load_image(folder, "fixed")


def test_a_single_slice_is_a_2d_image(tmp_path, stored):
    write_slices(tmp_path / "ct", stored[:, :, :1], GRID)
    for path in (tmp_path / "ct", next((tmp_path / "ct").iterdir())):
        assert nifti.load_image(path, "fixed").data.shape == (7, 6, 1)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd", "a.nhdr"])
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_files_are_refused_in_a_line(tmp_path, data, name, packed):
    sitk.WriteImage(itk_image(data, GRID), str(tmp_path / name), packed)
    values = [p for p in tmp_path.iterdir() if p.name != name] or [tmp_path / name]
    whole = values[0].read_bytes()
    values[0].write_bytes(whole[: len(whole) - 200])
    with pytest.raises(InputError, match=rf"fixed .*{name} cannot be read"):
        nifti.load_image(tmp_path / name, "fixed")
    (tmp_path / name).write_text("no image at all")
    with pytest.raises(InputError, match=f"{name} cannot be read as an image: damaged, or not"):
        nifti.load_image(tmp_path / name, "fixed")


def test_other_values_are_refused(tmp_path, data):
    colours = sitk.GetImageFromArray(np.zeros((5, 6, 7, 3), np.uint8), isVector=True)
    sitk.WriteImage(colours, str(tmp_path / "a.mha"))
    with pytest.raises(InputError, match="3 values per voxel, one is needed"):
        nifti.load_image(tmp_path / "a.mha", "fixed")
    flat = sitk.GetImageFromArray(data[:, :, 0].T)
    sitk.WriteImage(flat, str(tmp_path / "a.nrrd"))
    assert nifti.load_image(tmp_path / "a.nrrd", "fixed").data.shape == (7, 6, 1)
    with pytest.raises(InputError, match="values would be NaN"):
        nifti.save_volume(tmp_path / "b.nrrd", data * np.nan, GRID)
    with pytest.raises(InputError, match=r"must end in .nii or .nii.gz or .nrrd or .mha"):
        nifti.save_volume(tmp_path / "b.mhd", data, GRID)
    assert not (tmp_path / "b.nrrd").exists()


def test_without_simpleitk(tmp_path, data, monkeypatch):
    nifti.save_volume(tmp_path / "a.nrrd", data, GRID)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    extra = r"needs SimpleITK: pip install .lganet_fast\[itk\]."
    for path in ("a.nrrd", "."):
        with pytest.raises(InputError, match=extra):
            nifti.load_image(tmp_path / path, "fixed")
    with pytest.raises(InputError, match=extra):
        nifti.save_volume(tmp_path / "b.mha", data, GRID)


def test_the_files_with_the_values_count(tmp_path, data):
    """The digest of a header and its values changes with the values."""
    for kind in ("mhd", "nhdr"):
        path = tmp_path / f"a.{kind}"
        digests = []
        for array in (data, data + 1):
            sitk.WriteImage(itk_image(array, GRID), str(path))
            digests.append(nifti.describe(path)["sha256"])
        assert digests[0] != digests[1]


@pytest.mark.parametrize("kind", ["nrrd", "mha"])
def test_fields(tmp_path, kind, data):
    """A displacement field as an image of vectors, as ITK has it."""
    shift = np.stack([data, data[::-1], data[:, ::-1]], -1)
    path = tmp_path / f"w.{kind}"
    DisplacementField(shift, GRID).save(path)
    transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    field = DisplacementField.load(path)
    np.testing.assert_array_equal(field.displacement, shift)
    point = GRID.to_world([3.2, 2.7, 1.4])
    moved = LPS @ transform.TransformPoint((LPS @ point).tolist())
    np.testing.assert_allclose(field.map(point), moved, atol=1e-5)
    with pytest.raises(InputError, match=r"must end in .nii or .nii.gz"):
        DisplacementField(shift, GRID).save(path, "slicer")


def test_commands(tmp_path, data, monkeypatch):
    """Every command that reads images reads them, and apply writes them."""
    monkeypatch.chdir(tmp_path)
    labels = (data > 0).astype(np.uint8)
    for kind in ("nrrd", "mha"):
        sitk.WriteImage(itk_image(data, GRID), f"f.{kind}")
        sitk.WriteImage(itk_image(labels, GRID), f"l.{kind}")
    DisplacementField(np.zeros((*GRID.shape, 3), np.float32), GRID).save("w.mha")
    for source, target in (("f.nrrd", "o.mha"), ("f.mha", "o.nrrd"), ("f.mha", "o.nii.gz")):
        words = ["--transform", "w.mha", "--image", source, "--reference", "f.mha", "--out", target]
        assert main(["apply", *words]) == 0
        found = nifti.load_image(target, "image")
        np.testing.assert_allclose(found.data, data, atol=1e-5)
        np.testing.assert_allclose(found.grid.affine, GRID.affine, atol=1e-5)
    assert main(["apply", "--transform", "w.mha", "--labels", "l.nrrd", "--out", "ol.nrrd"]) == 0
    words = ["--fixed-labels", "l.mha", "--moved-labels", "ol.nrrd", "--mask", "l.nrrd"]
    assert main(["metrics", *words, "--transform", "w.mha", "--json", "m.json"]) == 0
    assert '"mean_dice": 1.0' in Path("m.json").read_text()
    assert main(["convert", "w.mha", "v.npz", "--to", "npz", "--moving", "f.nrrd"]) == 0
    assert main(["convert", "w.mha", "v.nii.gz"]) == 0
    field = nib.load("v.nii.gz")
    assert field.shape == (*GRID.shape, 1, 3)

"""Where headers say that voxels lie: units, both forms, what tools disagree about."""

from __future__ import annotations

import struct
import warnings

import nibabel as nib
import numpy as np
import pytest
from synthetic import oblique_grid

from lganet_fast.errors import InputError, InputWarning
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.volumes import nifti

GRID = oblique_grid((7, 6, 5), (1.0, 0.8, 2.5), 25)
DATA = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)


def written(path, sform=(GRID.affine, 1), qform=(GRID.affine, 1), units=2):
    """A NIfTI file of just these forms; nibabel's own writer changes them."""
    image = nib.Nifti1Image(DATA, GRID.affine)
    header = image.header
    header.set_sform(*sform)
    header.set_qform(*qform)
    header["xyzt_units"] = units
    nib.save(image, path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<2h", content, 252, qform[1], sform[1])
    path.write_bytes(content)
    return path


def said(path):
    with pytest.warns(InputWarning) as caught:
        volume = nifti.load_image(path, "fixed")
    (line,) = (str(one.message) for one in caught)
    assert line.startswith(f"fixed {path}: ")
    return line, volume


@pytest.mark.parametrize(
    ("units", "factor"), [(0, 1), (1, 1e3), (2, 1), (3, 1e-3), (26, 1), (7, 1)]
)
def test_units_as_itk_reads_them(tmp_path, units, factor):
    sitk = pytest.importorskip("SimpleITK")
    path = written(tmp_path / "a.nii", units=units)
    grid = nifti.load_grid(path, "fixed")
    np.testing.assert_allclose(grid.spacing, GRID.spacing * factor, rtol=1e-5)
    if units != 7:
        np.testing.assert_allclose(sitk.ReadImage(str(path)).GetSpacing(), grid.spacing, rtol=1e-4)
    nifti.save_volume(tmp_path / "b.nii", DATA, grid)
    assert nib.load(tmp_path / "b.nii").header.get_xyzt_units()[0] == "mm"
    assert nifti.load_grid(tmp_path / "b.nii", "fixed").matches(grid)


def test_a_field_counts_in_the_units_of_its_header_too(tmp_path):
    field = DisplacementField(np.ones((*GRID.shape, 3), np.float32), GRID)
    field.save(tmp_path / "t.nii")
    content = bytearray((tmp_path / "t.nii").read_bytes())
    content[123] = 3
    (tmp_path / "t.nii").write_bytes(content)
    small = DisplacementField.load(tmp_path / "t.nii")
    np.testing.assert_allclose(small.grid.spacing, GRID.spacing / 1e3, rtol=1e-5)
    np.testing.assert_array_equal(small.displacement, field.displacement)


def test_forms_that_agree_say_nothing_and_are_kept(tmp_path):
    path = written(tmp_path / "a.nii", sform=(GRID.affine, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grid = nifti.load_image(path, "fixed").grid
    nifti.save_volume(tmp_path / "b.nii", DATA, grid)
    header = nib.load(tmp_path / "b.nii").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 4)


def test_forms_that_differ_are_named_and_kept(tmp_path):
    shifted = GRID.affine.copy()
    shifted[0, 3] += 12
    line, volume = said(written(tmp_path / "a.nii", qform=(shifted, 2)))
    assert "qform and sform differ by up to 12 mm: the sform is used" in line
    np.testing.assert_allclose(volume.grid.affine, GRID.affine, atol=1e-4)
    nifti.save_volume(tmp_path / "b.nii", DATA, volume.grid)
    header = nib.load(tmp_path / "b.nii").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (2, 1)
    np.testing.assert_allclose(header.get_qform(), shifted, atol=1e-4)
    # A transform lies where the image was taken to lie, whatever tool reads it.
    DisplacementField(np.zeros((*GRID.shape, 3), np.float32), volume.grid).save(tmp_path / "t.nii")
    header = nib.load(tmp_path / "t.nii").header
    np.testing.assert_allclose(header.get_qform(), GRID.affine, atol=1e-4)


def test_a_mirrored_form_is_named(tmp_path):
    mirrored = GRID.affine @ np.diag([-1, 1, 1, 1])
    line, _ = said(written(tmp_path / "a.nii", qform=(mirrored, 1)))
    assert "disagree about left and right" in line


def test_no_form_at_all(tmp_path):
    path = written(tmp_path / "a.nii", (GRID.affine, 0), (GRID.affine, 0))
    line, volume = said(path)
    assert "neither qform nor sform is set: its orientation is unknown; it is read as LAS" in line
    nifti.save_volume(tmp_path / "b.nii", DATA, volume.grid)
    one, other = (nib.load(tmp_path / name).header for name in ("a.nii", "b.nii"))
    assert (int(other["qform_code"]), int(other["sform_code"])) == (0, 0)
    np.testing.assert_allclose(one.get_best_affine(), other.get_best_affine(), atol=1e-5)


def test_an_analyze_file(tmp_path):
    nib.save(nib.AnalyzeImage(DATA, np.diag([-1.0, 1, 1, 1])), tmp_path / "a.img")
    line, _ = said(tmp_path / "a.img")
    assert "does not record left and right" in line


def test_what_nibabel_says_is_said_with_the_name_and_once(tmp_path, capfd):
    path = written(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 80, -1.0)
    path.write_bytes(content)
    line, _ = said(path)
    assert "pixdim[1,2,3] should be positive" in line
    assert capfd.readouterr().err == ""


def test_nan_is_background(tmp_path):
    for lowest, background in ((2.0, 0.0), (-1000.0, -1000.0)):
        data = np.abs(DATA) + 3
        data[0, 0, 0], data[1, 1, :2] = lowest, np.nan
        nib.save(nib.Nifti1Image(data, GRID.affine), tmp_path / "a.nii")
        with pytest.warns(InputWarning, match="2 voxels that are NaN, of 210: read as background"):
            found = nifti.load_image(tmp_path / "a.nii", "moving").data
        np.testing.assert_array_equal(found, np.where(np.isnan(data), background, data))
    with pytest.raises(InputError, match="210 voxels that are NaN"):
        nifti.load_image((np.full(GRID.shape, np.nan), GRID.affine), "moving")


@pytest.mark.parametrize("kind", [np.uint8, np.int16])
def test_labels_stored_as_scaled_integers(tmp_path, kind):
    labels = np.random.default_rng(0).integers(0, 4, GRID.shape)
    image = nib.Nifti1Image(labels.astype(np.float64), GRID.affine)
    image.set_data_dtype(kind)
    nib.save(image, tmp_path / "a.nii.gz")
    assert nib.load(tmp_path / "a.nii.gz").dataobj.slope != 1
    np.testing.assert_array_equal(nifti.load_labels(tmp_path / "a.nii.gz", "labels").data, labels)
    np.testing.assert_array_equal(nifti.load_mask(tmp_path / "a.nii.gz", "mask").data, labels > 0)
    for odd in (0.001, 1.5, 7.01):
        with pytest.raises(InputError, match="must contain whole numbers"):
            nifti.load_labels((np.where(labels == 1, odd, labels), GRID.affine), "labels")

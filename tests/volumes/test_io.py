"""Volumes in and out: what is accepted, what is refused and how, and files whole or not at all."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os

import nibabel as nib
import numpy as np
import pytest
from synthetic import oblique_grid

from lganet_fast.errors import InputError
from lganet_fast.runtime import files
from lganet_fast.runtime.files import atomic, staged_folder
from lganet_fast.volumes import nifti
from lganet_fast.volumes.grid import Grid

GRID = oblique_grid((7, 6, 5), (1.0, 0.8, 2.5), 25)


@pytest.fixture
def data():
    return np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)


def save(path, array, affine=GRID.affine, image=nib.Nifti1Image):
    nib.save(image(array, affine), path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz"])
def test_reads_formats_alike(tmp_path, data, name):
    kind = nib.MGHImage if name.endswith("mgz") else nib.Nifti1Image
    volume = nifti.load_image(str(save(tmp_path / name, data, image=kind)), "fixed")
    np.testing.assert_array_equal(volume.data, data)
    assert volume.data.dtype == np.float32
    np.testing.assert_allclose(volume.grid.affine, GRID.affine, atol=1e-5)
    assert volume.name == f"fixed {tmp_path / name}"


def test_memory_and_file_agree(tmp_path, data):
    path = save(tmp_path / "a.nii", data)
    for source in (path, nib.load(path), (data, GRID.affine)):
        volume = nifti.load_image(source, "fixed")
        np.testing.assert_array_equal(volume.data, data)
        assert volume.grid.matches(GRID)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.int64, np.float64, bool])
def test_array_types(data, dtype):
    array = (data * 10 > 0) if dtype is bool else np.abs(data * 10).astype(dtype)
    volume = nifti.load_image((array, GRID.affine), "fixed")
    np.testing.assert_allclose(volume.data, array.astype(float), rtol=1e-6)


def test_scaled_integers_and_fourth_axis(tmp_path, data):
    image = nib.Nifti1Image(data[..., None], GRID.affine)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "a.nii.gz")
    assert nib.load(tmp_path / "a.nii.gz").dataobj.slope != 1
    volume = nifti.load_image(tmp_path / "a.nii.gz", "fixed")
    assert volume.data.shape == GRID.shape
    np.testing.assert_allclose(volume.data, data, atol=2e-4)


def test_sform_before_qform(tmp_path, data):
    other = np.diag([3.0, 3, 3, 1])
    image = nib.Nifti1Image(data, GRID.affine)
    image.set_sform(other, 1)
    image.set_qform(GRID.affine, 1)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(nifti.load_grid(tmp_path / "a.nii", "fixed").affine, other)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(
        nifti.load_grid(tmp_path / "a.nii", "fixed").affine, GRID.affine, atol=1e-4
    )


def rgb():
    return np.zeros(GRID.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])


def with_nan():
    array = np.arange(210.0).reshape(GRID.shape)
    array[0, 0, :2] = np.nan
    array[1, 1, 1] = np.inf
    return array


BAD_IMAGES = {
    "4": (np.arange(4.0), "at least 2 voxels along 2 axes"),
    "9 x 1 x 1": (np.random.default_rng(0).normal(size=(9, 1, 1)), "at least 2 voxels along 2"),
    "time": (np.zeros((*GRID.shape, 4)), "4 time points"),
    "vectors": (np.zeros((*GRID.shape, 1, 3)), "3 values per voxel"),
    "rgb": (rgb(), "colours"),
    "complex": (np.zeros(GRID.shape, np.complex64), "complex"),
    "nan": (with_nan(), "3 voxels that are NaN or infinite, of 210"),
    "constant": (np.full(GRID.shape, 7.0), "every voxel is 7"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_refuses_images(tmp_path, name):
    array, message = BAD_IMAGES[name]
    path = save(tmp_path / "a.nii.gz", array)
    with pytest.raises(InputError, match=message) as caught:
        nifti.load_image(path, "moving")
    assert str(caught.value).startswith(f"moving {path}")
    assert "\n" not in str(caught.value)


def test_refuses_files(tmp_path, data):
    def refused(path, message):
        with pytest.raises(InputError, match=message) as caught:
            nifti.load_image(path, "moving")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "none.nii", "does not exist")
    refused(tmp_path, "not a file")
    (tmp_path / "empty.nii.gz").touch()
    refused(tmp_path / "empty.nii.gz", "is empty")
    (tmp_path / "text.nii").write_text("not an image\n" * 100)
    refused(tmp_path / "text.nii", "cannot be read")
    whole = save(tmp_path / "whole.nii.gz", data).read_bytes()
    for keep in (200, len(whole) // 2, len(whole) - 40):
        (tmp_path / "cut.nii.gz").write_bytes(whole[:keep])
        refused(tmp_path / "cut.nii.gz", "cannot be read")
    plain = gzip.decompress(whole)
    (tmp_path / "cut.nii").write_bytes(plain[:-50])
    refused(tmp_path / "cut.nii", "cannot be read")
    surface = nib.GiftiImage(darrays=[nib.gifti.GiftiDataArray(np.zeros((4, 3), np.float32))])
    nib.save(surface, tmp_path / "surface.gii")
    refused(tmp_path / "surface.gii", "GiftiImage, not a volume")


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.diag([1.0, 1, 0, 1]), "singular"),
        (np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        (np.diag([1.0, np.nan, 1, 1]), "not finite"),
        (np.diag([1.0, 1, 1, 2]), "last row"),
        (np.eye(3), r"shape \(4, 4\)"),
        (None, r"shape \(4, 4\)"),
        ("abc", r"shape \(4, 4\)"),
    ],
)
def test_refuses_affines(data, affine, message):
    with pytest.raises(InputError, match=f"^fixed .*{message}"):
        nifti.load_image((data, affine), "fixed")


def test_singular_affine_in_a_file(tmp_path, data):
    image = nib.Nifti1Image(data, None)
    image.header["sform_code"] = 1  # its rows are all zero
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(InputError, match="singular"):
        nifti.load_image(tmp_path / "a.nii", "fixed")


def test_refuses_other_sources(data):
    for source in (data, None, 3, [data, GRID.affine]):
        with pytest.raises(InputError, match=r"pair \(array, affine\)"):
            nifti.load_image(source, "fixed")
    with pytest.raises(InputError, match="object values"):
        nifti.load_image((np.full(GRID.shape, "a", object), GRID.affine), "fixed")
    with pytest.raises(InputError, match="it is empty"):
        nifti.load_image((np.zeros((3, 0, 3)), GRID.affine), "fixed")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64, bool])
def test_labels(tmp_path, data, dtype):
    array = (data > 0).astype(dtype)
    labels = nifti.load_labels((array, GRID.affine), "labels", GRID)
    assert labels.data.dtype == np.int32
    np.testing.assert_array_equal(labels.data, data > 0)


def test_refuses_labels(data):
    def refused(array, message, grid=None):
        with pytest.raises(InputError, match=message):
            nifti.load_labels((array, GRID.affine), "moving labels", grid)

    refused(np.where(data > 0, 2.5, 0), "whole numbers, found 2.5")
    refused(np.where(data > 0, -3, 1), "from 0 on, found -3")
    refused(np.where(data > 0, np.nan, 1), "NaN")
    refused(np.full(GRID.shape, 2**31), "largest label is 2147483647")
    other = Grid(GRID.shape, GRID.affine + np.outer([0, 0, 1, 0], [0, 0, 0, 1]))
    refused(np.ones(GRID.shape, int), r"moving labels is on 7 x 6 x 5 voxels of .* grid, 7", other)
    refused(np.zeros(GRID.shape, int), "grid", Grid((7, 6, 6), GRID.affine))


def test_mask(data):
    mask = nifti.load_mask((np.where(data > 0, 4, 0), GRID.affine), "fixed mask", GRID)
    assert mask.data.dtype == bool
    np.testing.assert_array_equal(mask.data, data > 0)
    with pytest.raises(InputError, match="fixed mask is empty"):
        nifti.load_mask((np.zeros(GRID.shape), GRID.affine), "fixed mask")


def test_describe(tmp_path, data):
    path = save(tmp_path / "a.nii.gz", data, np.diag([-1.0, 2.0, 1.5, 1]))
    assert nifti.describe(path, "fixed") == {
        "path": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "shape": [7, 6, 5],
        "spacing_mm": [1.0, 2.0, 1.5],
        "orientation": "LAS",
    }
    assert nifti.describe((data, np.eye(4)))["path"] is None
    assert nifti.describe((data, np.eye(4)))["sha256"] is None


@pytest.mark.parametrize(
    ("array", "stored"),
    [
        (np.array([0.5, 1e6]), np.float32),
        (np.array([0, 255]), np.uint8),
        (np.array([0, 256]), np.int16),
        (np.array([-1, 3], np.int8), np.int16),
        (np.array([0, 32768], np.uint16), np.int32),
        (np.array([0, 2**31]), np.int64),
        (np.array([False, True]), np.uint8),
    ],
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_save_volume(tmp_path, array, stored, name):
    data = np.resize(array, GRID.shape)
    nifti.save_volume(tmp_path / name, data, GRID)
    image = nib.load(tmp_path / name)
    assert image.get_data_dtype() == stored
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), data)
    header = image.header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(image.get_qform(), GRID.affine, atol=1e-4)
    np.testing.assert_allclose(image.get_sform(), GRID.affine, atol=1e-6)


def test_sheared_grid_has_no_qform(tmp_path, data):
    affine = np.eye(4)
    affine[0, 1] = 0.4
    nifti.save_volume(tmp_path / "a.nii", data, Grid(GRID.shape, affine))
    image = nib.load(tmp_path / "a.nii")
    assert int(image.header["qform_code"]) == 0
    np.testing.assert_allclose(image.affine, affine, atol=1e-6)


def test_bytes_repeat_under_any_name(tmp_path, data, monkeypatch):
    nifti.save_volume(tmp_path / "a.nii.gz", data, GRID)
    monkeypatch.setattr("time.time", lambda: 2e9)
    nifti.save_volume(tmp_path / "other.nii.gz", data, GRID)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "other.nii.gz").read_bytes()


def test_refuses_to_save(tmp_path, data):
    for name in ("a.mhd", "a", ".nii", "a.nii.bz2"):
        with pytest.raises(InputError, match=r"must end in \.nii or \.nii\.gz"):
            nifti.save_volume(tmp_path / name, data, GRID)
    with pytest.raises(InputError, match=r"cannot write .*No such file"):
        nifti.save_volume(tmp_path / "none" / "a.nii", data, GRID)
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        nifti.save_volume(tmp_path / "folder.nii", data, GRID)
    assert os.listdir(tmp_path) == ["folder.nii"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_atomic_leaves_the_old_file(tmp_path, failure):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail():
        with atomic(target) as temporary:
            assert temporary.parent == tmp_path
            assert temporary.suffix == ".txt"
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk(tmp_path, data, monkeypatch):
    monkeypatch.setattr(nib.Nifti1Image, "to_stream", full_disk)
    with pytest.raises(InputError, match=r"cannot write .*a\.nii: No space left on device"):
        nifti.save_volume(tmp_path / "a.nii", data, GRID)

    def fill():
        with staged_folder(tmp_path / "out") as folder:
            (folder / "a").touch()
            full_disk()

    with pytest.raises(InputError, match=r"cannot write into .*No space left"):
        fill()
    assert os.listdir(tmp_path) == []


def test_staged_folder_new(tmp_path):
    out = tmp_path / "deep" / "er" / "out"
    with staged_folder(out) as folder:
        (folder / "a").write_text("1")
        assert not out.exists()
    assert [p.name for p in out.iterdir()] == ["a"]
    assert os.listdir(out.parent) == ["out"]


def test_staged_folder_replaces_what_it_knows(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a", "labels", "mine"):
        (out / name).write_text("old")
    with staged_folder(out, ("a", "labels", "report")) as folder:
        (folder / "a").write_text("new")
        assert (out / "a").read_text() == "old"
    assert sorted(os.listdir(out)) == ["a", "mine"]
    assert (out / "a").read_text() == "new"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, InputError("no"), OSError(errno.EIO, "x")])
@pytest.mark.parametrize("exists", [True, False])
def test_staged_folder_leaves_nothing(tmp_path, failure, exists):
    out = tmp_path / "deep" / "out"
    if exists:
        out.mkdir(parents=True)
        (out / "a").write_text("old")

    def fail():
        with staged_folder(out, ("a", "b")) as folder:
            (folder / "a").write_text("new")
            raise failure

    with pytest.raises(failure if isinstance(failure, type) else type(failure)):
        fail()
    if exists:
        assert os.listdir(out) == ["a"]
        assert (out / "a").read_text() == "old"
    else:
        assert os.listdir(tmp_path) == []


def test_staged_folder_refuses(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "sub"):
        with pytest.raises(InputError, match="cannot write into"), staged_folder(out):
            pytest.fail("entered")

    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.Path, "mkdir", denied)
    with (
        pytest.raises(InputError, match=r"out: Permission denied"),
        staged_folder(tmp_path / "out"),
    ):
        pytest.fail("entered")

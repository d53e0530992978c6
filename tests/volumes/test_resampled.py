"""What is only resampled: series, constant images and integers of any size; options given twice."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from lganet_fast.cli import main
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.volumes.grid import Grid

SHAPE = (9, 8, 7)
GRID = Grid(SHAPE, np.diag([2.0, 1.0, 1.5, 1.0]))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a transform by two voxels along the first axis."""
    monkeypatch.chdir(tmp_path)
    shift = np.broadcast_to(np.float32([4, 0, 0]), (*SHAPE, 3)).copy()
    DisplacementField(shift, GRID).save("w.nii")
    return tmp_path


def apply(data, *words, step=None):
    image = nib.Nifti1Image(data, GRID.affine, dtype=data.dtype)
    if step:
        image.header.set_xyzt_units("mm", step[1])
        image.header["pixdim"][4] = step[0]
    nib.save(image, "i.nii.gz")
    code = main(["apply", "--transform", "w.nii", "--image", "i.nii.gz", "--out", "o.nii", *words])
    return code, nib.load("o.nii") if code == 0 else None


def moved(data):
    out = np.zeros_like(data)
    out[:-2] = data[2:]
    return out


@pytest.mark.parametrize("count", [2, 5])
def test_a_series_is_moved_volume_by_volume(folder, count):
    data = np.random.default_rng(0).random((*SHAPE, count)).astype(np.float32)
    code, out = apply(data, step=(2.5, "msec"))
    assert code == 0
    np.testing.assert_allclose(out.get_fdata(), moved(data), atol=1e-6)
    assert out.header["pixdim"][4] == 2.5
    assert out.header.get_xyzt_units() == ("mm", "msec")


@pytest.mark.parametrize("kind", [np.int32, np.uint16, np.int64])
def test_integers_are_kept(folder, kind):
    data = np.random.default_rng(0).integers(0, np.iinfo(np.uint16).max, SHAPE).astype(kind)
    data[4, 4, 4] = min(np.iinfo(kind).max, 2**31 - 1)  # no float32
    code, out = apply(data, "--interpolation", "nearest")
    assert code == 0
    assert out.get_data_dtype().kind in "iu"
    np.testing.assert_array_equal(np.asanyarray(out.dataobj), moved(data))


def test_a_constant_image_shows_what_is_covered(folder):
    code, out = apply(np.ones(SHAPE, np.float32))
    assert code == 0
    np.testing.assert_array_equal(out.get_fdata(), moved(np.ones(SHAPE)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.full(SHAPE, np.inf), "NaN or infinite"),
        (np.full(SHAPE, 1e39), "beyond float32"),
        (np.zeros((*SHAPE, 1, 3)), "3 values per voxel"),
        (np.zeros((*SHAPE, 2, 2)), "4 time points"),
    ],
)
def test_what_cannot_be_resampled(folder, capsys, data, message):
    assert apply(data)[0] == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--transform", "w.nii"], ["--out", "p.nii"], ["--out=p.nii"]])
def test_an_option_given_twice_is_refused(folder, capsys, words):
    with pytest.raises(SystemExit, match="2"):
        apply(np.ones(SHAPE, np.float32), *words)
    assert "may be given once only" in capsys.readouterr().err


def test_an_input_is_not_overwritten(folder, capsys):
    code = main(["apply", "--transform", "w.nii", "--image", "w.nii", "--out", "w.nii"])
    assert code == 2
    assert "it is an input" in capsys.readouterr().err

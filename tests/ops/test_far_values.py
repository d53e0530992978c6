"""Finite numbers that are beyond float32 or beyond any volume: refused, and never written."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

import lganet_fast
from lganet_fast.errors import InputError
from lganet_fast.registration.settings import check_settings
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.transforms.formats import VECTOR
from lganet_fast.volumes import nifti
from lganet_fast.volumes.grid import Grid
from lganet_fast.volumes.points import read_table, write_table

GRID = Grid((8, 8, 8), np.eye(4))
SIDES = {
    **{f"{side}_affine": np.eye(4) for side in ("fixed", "moving")},
    **{f"{side}_shape": np.array([8] * 3) for side in ("fixed", "moving")},
}


def still():
    return DisplacementField(np.zeros((8, 8, 8, 3), np.float32), GRID)


@pytest.mark.parametrize("far", [1e39, 1e30, 2e8, np.inf])
def test_a_transform_that_moves_beyond_any_volume(tmp_path, far):
    flow = np.zeros((8, 8, 8, 3))
    flow[3, 3, 3] = far
    np.savez(tmp_path / "x.npz", flow=flow, **SIDES)
    image = nib.Nifti1Image(flow[:, :, :, None], np.eye(4))
    image.header.set_intent(VECTOR)
    nib.save(image, tmp_path / "x.nii")
    for name in ("x.npz", "x.nii"):
        with pytest.raises(InputError, match=r"moves by more than 1e|3 numbers that are NaN"):
            DisplacementField.load(tmp_path / name)


@pytest.mark.parametrize("far", [1e308, 2e8, np.inf, np.nan])
def test_points_beyond_any_volume(tmp_path, far):
    for there in (still().map, still().map_inverse):
        with pytest.raises(InputError, match="points must be finite and within 1e"):
            there([[far, 0, 0]])
    (tmp_path / "p.csv").write_text(f"x,y,z\n0,0,0\n0,{far},0\n")
    with pytest.raises(InputError, match=r"line 3: .* is not a number within 1e"):
        read_table(tmp_path / "p.csv")


def test_points_of_another_shape():
    with pytest.raises(InputError, match="points must have shape"):
        still().map([[0, 0]])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("far", [1e39, 1e38, 2e15, -1e16])
def test_images_of_values_beyond_reason(dtype, far):
    data = np.zeros(GRID.shape)
    data[3, 3, 3] = far
    if dtype == np.float32 and far == 1e39:
        pytest.skip("no float32")
    with pytest.raises(InputError, match="fixed has values beyond 1e"):
        nifti.load_image((data.astype(dtype), np.eye(4)), "fixed")


@pytest.mark.parametrize("scale", [1e-30, 1e14])
def test_the_scale_of_the_values_does_not_matter(scale):
    place = GRID.world() - 3.5
    ball, shifted = (np.clip(4 - np.linalg.norm(place - s, axis=-1), 0, 2) for s in (0, 0.5))
    fields = [
        lganet_fast.register(
            (ball * k, np.eye(4)), (shifted * k, np.eye(4)), iterations=(5,), threads=1
        ).transform.displacement
        for k in (1, scale)
    ]
    np.testing.assert_allclose(fields[1], fields[0], atol=1e-3)


@pytest.mark.parametrize("affine", [np.diag([1, 1, 1e9, 1]), np.diag([1, 1e-7, 1, 1])])
def test_voxels_beyond_reason(affine):
    with pytest.raises(InputError, match="affine"):
        nifti.load_image((np.arange(512.0).reshape(GRID.shape), affine), "fixed")


@pytest.mark.parametrize("strength", [1e30, -1, float("nan"), float("inf")])
def test_a_smoothness_that_overflows(strength):
    with pytest.raises(InputError, match="smoothness must be a number from 0 to 1e"):
        check_settings(smoothness=strength)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.npz", "a.h5"])
def test_nothing_that_is_not_finite_is_written(tmp_path, name):
    if name.endswith("h5"):
        pytest.importorskip("SimpleITK")
    field = still()
    field.displacement[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="would be NaN or infinite"):
        field.save(tmp_path / name, format="npz" if name == "a.npz" else None, moving=GRID)
    assert not list(tmp_path.iterdir())


def test_no_image_or_point_that_is_not_finite_is_written(tmp_path):
    with pytest.raises(InputError, match="would be NaN or infinite"):
        nifti.save_volume(tmp_path / "a.nii", np.full(GRID.shape, np.inf), GRID)
    (tmp_path / "p.csv").write_text("x,y,z\n0,0,0\n")
    with pytest.raises(InputError, match="a point is NaN"):
        write_table(tmp_path / "q.csv", read_table(tmp_path / "p.csv"), np.full((1, 3), np.nan))

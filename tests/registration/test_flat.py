"""2D images: registered in their plane, written as volumes of one slice."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from lganet_fast import DisplacementField, InputError, register
from lganet_fast.cli import main
from lganet_fast.losses.dissimilarity import SIMILARITIES
from lganet_fast.metrics.scores import folded_percent
from lganet_fast.metrics.surface_distance import hd95
from lganet_fast.registration.objective import measure_for
from lganet_fast.volumes import nifti
from lganet_fast.volumes.grid import Grid

SIDE, MM = 56, 0.8
FAST = {"iterations": (20, 20, 10), "threads": 1}
LOOSE = np.array([[0, -MM, 0, 9], [MM, 0, 0, -4], [0, 0, 5.0, 2], [0, 0, 0, 1.0]])  # turned, thick


def shift(x, y):
    """Displacement in voxels of fixed places: at most 3."""
    return 3 * np.sin(y / 11 + 0.4), 3 * np.cos(x / 12)


def picture(x, y):
    random = gaussian_filter(np.random.default_rng(0).standard_normal((SIDE, SIDE)), 2)
    value = map_coordinates(random / np.abs(random).max(), [x, y], order=3, mode="nearest")
    inside = np.hypot(x - SIDE / 2, y - SIDE / 2) < 22
    labels = np.where(inside, 1 + (value > 0), 0)
    return np.where(inside, 0.55 + 0.4 * value, 0).astype(np.float32), labels.astype(np.uint8)


@pytest.fixture(scope="module")
def pair():
    """(image, labels) of both sides, (X, Y), and the mask of the fixed foreground."""
    x, y = np.meshgrid(*[np.arange(SIDE, dtype=float)] * 2, indexing="ij")
    at = x, y
    for _ in range(40):
        moved = shift(*at)
        at = x - moved[0], y - moved[1]
    return picture(x, y), picture(*at)


def error(field, pair):
    """Mean error in voxels over the fixed foreground, before and after."""
    x, y = np.meshgrid(*[np.arange(SIDE, dtype=float)] * 2, indexing="ij")
    truth = np.stack(shift(x, y), -1)
    inside = pair[0][0] > 0
    found = np.squeeze(field.displacement) @ np.linalg.inv(LOOSE[:3, :3]).T
    flat = found[..., :2][inside] - truth[inside]
    return np.linalg.norm(truth[inside], axis=-1).mean(), np.linalg.norm(flat, axis=-1).mean()


@pytest.mark.parametrize("similarity", ["lncc", "mse", "mind"])
def test_recovers_a_known_map_in_the_plane(pair, similarity):
    (fixed, fixed_labels), (moving, moving_labels) = pair
    result = register(
        (fixed, LOOSE),
        (moving[..., None], LOOSE),
        fixed_labels=(fixed_labels, LOOSE),
        moving_labels=(moving_labels, LOOSE),
        similarity=similarity,
        **FAST,
    )
    before, after = error(result.transform, pair)
    assert after < 0.35 * before
    for field in (result.transform, result.inverse):
        assert field.grid.shape == (SIDE, SIDE, 1)
        assert not field.displacement[..., 2].any()  # through the plane
    assert result.warped.data.shape == (SIDE, SIDE, 1)
    labels = result.details.labels
    assert labels.mean_dice_after > labels.mean_dice_before + 0.1
    assert labels.mean_hd95_mm_after < labels.mean_hd95_mm_before
    assert result.details.inverse_consistency_mm.mean < 0.02
    assert folded_percent(result.transform.jacobian_determinant()) == 0
    assert result.verdict.level == "good", result.verdict


def test_the_plane_may_lie_across_any_axis(pair):
    """The same images stored as (1, X, Y) and (X, 1, Y): the same field."""
    (fixed, _), (moving, _) = pair
    plain = register((fixed, LOOSE), (moving, LOOSE), **FAST)
    orders = ([2, 0, 1], (None, slice(None), slice(None))), ([0, 2, 1], (slice(None), None))
    for order, place in orders:
        affine = LOOSE.copy()
        affine[:, :3] = LOOSE[:, order]
        other = register((fixed[place], affine), (moving, LOOSE), **FAST)
        apart = np.squeeze(other.transform.displacement) - np.squeeze(plain.transform.displacement)
        assert np.abs(apart).max() < 0.05


def test_guides_and_masks_in_the_plane(pair):
    (fixed, fixed_labels), (moving, moving_labels) = pair
    grid = Grid((SIDE, SIDE, 1), LOOSE)
    points = np.array([[20.0, 30, 0], [30, 24, 0.3]])
    there = points + np.stack([*shift(points[:, 0], points[:, 1]), [0, 0]], -1)
    result = register(
        (fixed, LOOSE),
        (moving, LOOSE),
        fixed_labels=(fixed_labels, LOOSE),
        moving_labels=(moving_labels, LOOSE),
        guide_labels=1,
        moving_mask=(np.ones_like(moving_labels), LOOSE),
        fixed_points=grid.to_world(points),
        moving_points=grid.to_world(there),
        **FAST,
    )
    assert result.details.points.mean_mm_after < 0.4 * result.details.points.mean_mm_before
    assert not result.transform.displacement[..., 2].any()
    before, after = error(result.transform, pair)
    assert after < 0.35 * before


@pytest.mark.parametrize("similarity", list(SIMILARITIES))
def test_the_measure_is_that_of_equal_planes(similarity):
    """As the middle of a thick volume of equal planes has it, wherever the flat axis is."""
    images = torch.rand(2, 1, 1, 12, 13, generator=torch.Generator().manual_seed(0))
    measure = SIMILARITIES[similarity]
    solid = [x[..., None].expand(1, 1, 12, 13, 9).contiguous() for x in images]
    thick = map(measure.features, measure.channels(*solid))
    weight = torch.zeros(1, 1, 12, 13, 9)
    weight[..., 4] = 1
    wanted = measure.loss(*thick, weight)
    for axis in (2, 3, 4):
        flat = [x.unsqueeze(axis) for x in images]
        own = measure_for(similarity, flat[0].shape[2:])
        found = own.loss(*map(own.features, own.channels(*flat)), None)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_hd95_of_a_flat_map_is_that_of_its_outline():
    one = np.zeros((20, 20, 1), int)
    other = one.copy()
    one[4:14, 4:14] = 1
    other[4:14, 7:17] = 1
    assert hd95(one, other, (1, 1, 9))[1] == 3
    np.testing.assert_equal(hd95(one[None, :, :, 0], other[None, :, :, 0], (9, 1, 1))[1], 3)


def test_files_are_volumes_of_one_slice(pair, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, (image, labels) in zip(("fixed", "moving"), pair, strict=True):
        nib.save(nib.Nifti1Image(image, LOOSE), f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(labels[..., None], LOOSE), f"{name}_labels.nii.gz")
    words = ["--fixed", "fixed.nii.gz", "--moving", "moving.nii.gz", "--out", "out"]
    labels = ["--fixed-labels", "fixed_labels.nii.gz", "--moving-labels", "moving_labels.nii.gz"]
    assert main(["register", *words, *labels, "--iterations", "10x5"]) == 0
    assert nib.load("out/warped.nii.gz").shape == (SIDE, SIDE, 1)
    assert nib.load("out/warp.nii.gz").shape == (SIDE, SIDE, 1, 1, 3)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["inputs"]["fixed"]["shape"] == [SIDE, SIDE, 1]
    assert "Axial" in (tmp_path / "out" / "qc.html").read_text()
    field = DisplacementField.load("out/warp.nii.gz")
    again = field.apply(nifti.load_image("moving.nii.gz", "moving"))
    written = nib.load("out/warped.nii.gz").get_fdata()
    np.testing.assert_allclose(again.data, written, atol=1e-5)
    itk = pytest.importorskip("SimpleITK")
    field.save("warp.h5")
    transform, still = itk.ReadTransform("warp.h5"), itk.ReadImage("out/warped.nii.gz")
    assert still.GetSize() == (SIDE, SIDE, 1)
    nifti.save_volume("deep.nii.gz", nifti.load_image("moving.nii.gz", "moving").data, field.grid)
    moving = itk.ReadImage("deep.nii.gz")
    theirs = itk.GetArrayFromImage(itk.Resample(moving, still, transform))
    np.testing.assert_allclose(theirs[0].T, written[..., 0], atol=1e-3)


ELSEWHERE = LOOSE + np.array([[0] * 4, [0] * 4, [0, 0, 0, 1], [0] * 4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"moving": (np.stack([np.eye(9)] * 4, -1), LOOSE)}, "fixed is 2D and moving is 3D"),
        ({"moving": (np.eye(9), ELSEWHERE)}, "2D images in different planes, up to 1 mm apart"),
        ({"initial": "rigid"}, "initial rigid is for 3D images"),
    ],
)
def test_what_is_refused(change, message):
    image = np.eye(9), LOOSE
    given = {"fixed": image, "moving": image, **change}
    with pytest.raises(InputError, match=message):
        register(**given)

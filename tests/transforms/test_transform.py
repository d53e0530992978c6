"""The displacement field against SimpleITK, nitransforms, ANTs, scipy and closed forms."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from synthetic import oblique_grid, synthetic_pair, wave

from lganet_fast.errors import InputError
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.volumes import nifti
from lganet_fast.volumes.grid import Grid, Volume
from lganet_fast.volumes.sampling import sample, sample_labels

FIXED = oblique_grid((33, 40, 21), (1.9, 1.5, 3.1), 20)
MOVING = oblique_grid((44, 30, 37), (1.4, 2.2, 1.7), -35)


def field_on(grid, amplitude=4.0):
    return DisplacementField(wave(grid.world(), amplitude).astype(np.float32), grid)


@pytest.fixture(scope="module")
def pair():
    return synthetic_pair(FIXED, MOVING, amplitude=4.0)


@pytest.fixture(scope="module")
def field():
    return field_on(FIXED)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, pair, field):
    folder = tmp_path_factory.mktemp("saved")
    field.save(folder / "warp.nii.gz")
    for name in ("fixed", "moving", "moving_labels"):
        volume = getattr(pair, name)
        nifti.save_volume(folder / f"{name}.nii.gz", volume.data, volume.grid)
    return folder


def interior(field, moving):
    """Voxels whose point in the moving volume is surrounded by its voxels."""
    index = moving.to_index(field.map(field.grid.world()))
    return ((index >= 0) & (index <= np.array(moving.shape) - 1)).all(-1)


def assert_same_image(ours, theirs, where):
    gap = np.abs(ours - theirs)[where]
    assert where.mean() > 0.4
    assert gap.mean() < 1e-5 * np.ptp(ours)
    assert gap.max() < 1e-3 * np.ptp(ours)


def itk_resample(folder, name, interpolator):
    sitk = pytest.importorskip("SimpleITK")

    warp = sitk.ReadImage(str(folder / "warp.nii.gz"), sitk.sitkVectorFloat64)
    return sitk.GetArrayFromImage(
        sitk.Resample(
            sitk.ReadImage(str(folder / f"{name}.nii.gz")),
            sitk.ReadImage(str(folder / "fixed.nii.gz")),
            sitk.DisplacementFieldTransform(warp),
            interpolator,
        )
    ).T


def test_simpleitk_resamples_alike(saved, pair, field):
    sitk = pytest.importorskip("SimpleITK")

    ours = field.apply(pair.moving).data
    theirs = itk_resample(saved, "moving", sitk.sitkLinear)
    assert_same_image(ours, theirs, np.ones(FIXED.shape, bool))
    labels = field.apply(pair.moving_labels, interpolation="nearest").data
    theirs = itk_resample(saved, "moving_labels", sitk.sitkNearestNeighbor)
    assert len(np.unique(labels)) > 3
    assert (labels != theirs).mean() < 1e-4
    # The test can fail: the identity does not resample the image like this.
    still = DisplacementField(np.zeros_like(field.displacement), FIXED).apply(pair.moving).data
    assert np.abs(still - ours).mean() > 0.02


def test_simpleitk_maps_points_alike(saved, field):
    sitk = pytest.importorskip("SimpleITK")

    warp = sitk.ReadImage(str(saved / "warp.nii.gz"), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(warp)
    random = np.random.default_rng(1)
    index = random.uniform(-2, np.array(FIXED.shape) + 1, (300, 3))
    points = FIXED.to_world(index)
    flip = np.array([-1, -1, 1])
    theirs = [transform.TransformPoint(p) for p in (points * flip).tolist()]
    np.testing.assert_allclose(field.map(points), np.array(theirs) * flip, atol=1e-3)


def test_nitransforms_resamples_alike(saved, pair, field):
    from nitransforms.nonlinear import DenseFieldTransform
    from nitransforms.resampling import apply

    transform = DenseFieldTransform.from_filename(saved / "warp.nii.gz", fmt="itk")
    where = interior(field, MOVING)
    reference = str(saved / "fixed.nii.gz")
    theirs = apply(transform, nib.load(saved / "moving.nii.gz"), reference, order=1)
    ours = field.apply(pair.moving).data
    assert_same_image(ours, np.asanyarray(theirs.dataobj), where)
    theirs = apply(transform, nib.load(saved / "moving_labels.nii.gz"), reference, order=0)
    labels = field.apply(pair.moving_labels, interpolation="nearest").data
    assert (labels != np.asanyarray(theirs.dataobj))[where].mean() < 1e-3
    points = FIXED.world()[3:-3:5, 3:-3:5, 3:-3:5].reshape(-1, 3)
    np.testing.assert_allclose(transform.map(points), field.map(points), atol=1e-3)


def test_ants_resamples_alike(saved, pair, field):
    ants = pytest.importorskip("ants")
    fixed, moving = (ants.image_read(str(saved / f"{n}.nii.gz")) for n in ("fixed", "moving"))
    warp = [str(saved / "warp.nii.gz")]
    theirs = ants.apply_transforms(fixed, moving, warp, interpolator="linear").numpy()
    assert_same_image(field.apply(pair.moving).data, theirs, interior(field, MOVING))


def test_recovers_the_known_pair(pair, field):
    warped = field.apply(pair.moving).data
    core = np.linalg.norm(FIXED.world(), axis=-1) < 15
    before = field_on(FIXED, 0.0).apply(pair.moving).data
    gap = np.abs(warped - pair.fixed.data)[core].mean()
    assert gap < 0.25 * np.abs(before - pair.fixed.data)[core].mean()


def test_other_reference_grid(pair, field):
    coarse = oblique_grid((11, 12, 9), (4.0, 3.5, 5.0), 50)
    points = coarse.world()
    index = np.moveaxis(MOVING.to_index(field.map(points)), -1, 0)
    expected = map_coordinates(pair.moving.data.astype(float), index, order=1)
    where = (index >= 0).all(0) & (index <= np.array(MOVING.shape)[:, None, None, None] - 1).all(0)
    result = field.apply(pair.moving, coarse)
    assert result.grid is coarse
    np.testing.assert_allclose(result.data[where], expected[where], atol=5e-6)


def test_slabs_change_nothing(monkeypatch, pair, field):
    whole = field.apply(pair.moving).data, field.invert(MOVING).displacement
    monkeypatch.setattr("lganet_fast.volumes.grid.SLAB", 3000)
    # Not to the bit: matrix products round differently with the number of points.
    np.testing.assert_allclose(field.apply(pair.moving).data, whole[0], atol=1e-5)
    np.testing.assert_allclose(field.invert(MOVING).displacement, whole[1], atol=2e-3)


def test_label_interpolation_against_one_hot(pair, field):
    random = np.random.default_rng(2)
    labels = random.integers(0, 5, MOVING.shape).astype(np.int32) * 7
    index = MOVING.to_index(field.map(FIXED.world()))
    values = np.unique(labels)
    weights = np.stack([sample(labels == v, index, padding="border") for v in values])
    expected = values[weights.argmax(0)]
    outside = ~((index >= -0.5) & (index < np.array(MOVING.shape) - 0.5)).all(-1)
    expected[outside] = 0
    assert outside.any()
    found = field.apply(Volume(labels, MOVING, "labels"), interpolation="label").data
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


def test_label_ties_take_the_lowest():
    labels = np.array([5, 2, 9, 9], np.int32).reshape(4, 1, 1)
    index = np.array(
        [[0.5, 0, 0], [1.5, 0, 0], [0.4, 0, 0], [2.5, 0, 0], [-0.6, 0, 0], [3.4, 0, 0]]
    )
    np.testing.assert_array_equal(sample_labels(labels, index), [2, 2, 5, 9, 0, 9])


def test_nearest_rounds_halves_up_and_keeps_the_type():
    grid = Grid((6, 2, 2), np.eye(4))
    data = np.arange(24, dtype=np.int16).reshape(6, 2, 2)
    half = np.full((6, 2, 2, 3), 0, np.float32)
    half[..., 0] = 0.5
    found = DisplacementField(half, grid).apply(Volume(data, grid, "x"), interpolation="nearest")
    assert found.data.dtype == np.int16
    np.testing.assert_array_equal(found.data[:5], data[1:])
    assert (found.data[5] == 0).all()
    with pytest.raises(InputError, match="linear, nearest, label, got 'cubic'"):
        DisplacementField(half, grid).apply(Volume(data, grid, "x"), interpolation="cubic")


def test_refuses_shape_and_type():
    with pytest.raises(InputError, match=r"shape \(33, 40, 21, 3\), got \(3, 33, 40, 21\)"):
        DisplacementField(np.zeros((3, *FIXED.shape), np.float32), FIXED)
    with pytest.raises(InputError, match="float32, got float64"):
        DisplacementField(np.zeros((*FIXED.shape, 3)), FIXED)
    with pytest.raises(InputError, match="flow must have shape"):
        DisplacementField.from_voxels(np.zeros((3, *FIXED.shape)), FIXED, MOVING)


def test_voxels_by_their_definition(field):
    flow = field.voxels(MOVING)
    for p in ([0, 0, 0], [5, 17, 20], [32, 39, 3]):
        world = FIXED.affine[:3, :3] @ p + FIXED.affine[:3, 3] + field.displacement[tuple(p)]
        target = MOVING.affine[:3, :3] @ (p + flow[tuple(p)]) + MOVING.affine[:3, 3]
        np.testing.assert_allclose(target, world, atol=1e-4)
    back = DisplacementField.from_voxels(flow, FIXED, MOVING)
    np.testing.assert_allclose(back.displacement, field.displacement, atol=2e-5)


def test_compose(field):
    second = field_on(MOVING, 2.0)
    points = FIXED.world()
    both = second.compose(field)
    assert both.grid is FIXED
    expected = second.map(points + field.displacement)
    np.testing.assert_allclose(points + both.displacement, expected, atol=1e-4)


def test_jacobian_of_a_linear_map():
    matrix = np.array([[1.2, 0.1, 0], [0, 0.9, 0.2], [0.05, 0, 1.1]])
    displacement = (FIXED.world() @ (matrix - np.eye(3)).T).astype(np.float32)
    det = DisplacementField(displacement, FIXED).jacobian_determinant()
    np.testing.assert_allclose(det, np.linalg.det(matrix), atol=1e-4)


def residual(field, points, targets):
    """|x + d(x) - y| with d extended by its edge values."""
    moved = points + sample(field.displacement, field.grid.to_index(points), padding="border")
    return np.linalg.norm(moved - targets, axis=-1)


def rough_field(seed, least, grid=FIXED):
    """A random smooth field, scaled until its smallest Jacobian determinant is near `least`."""
    random = np.random.default_rng(seed)
    noise = gaussian_filter(random.normal(size=(*grid.shape, 3)), (2.5, 2.5, 2.5, 0))
    low, high = 0.0, 2000.0
    for _ in range(25):
        middle = (low + high) / 2
        trial = DisplacementField((noise * middle).astype(np.float32), grid)
        smallest = cell_determinants(trial).min()
        low, high = (middle, high) if smallest > least else (low, middle)
    return DisplacementField((noise * low).astype(np.float32), grid)


def cell_determinants(field):
    """Determinants at the eight corners of every cell: there a trilinear map folds first."""
    points = field.grid.world() + field.displacement
    linear = np.linalg.det(field.grid.affine[:3, :3])
    out = []
    for corner in np.ndindex(2, 2, 2):
        edges = []
        for axis in range(3):
            step = np.diff(points, axis=axis)
            rest = [slice(c, n - 1 + c) for c, n in zip(corner, field.grid.shape, strict=True)]
            rest[axis] = slice(None)
            edges.append(step[tuple(rest)])
        out.append(np.linalg.det(np.stack(edges, -1)) / linear)
    return np.stack(out)


@pytest.mark.parametrize(("seed", "least"), [(0, 0.3), (1, 0.05), (2, 0.02)])
def test_inverts_rough_fields(seed, least):
    field = rough_field(seed, least)
    assert 0 < cell_determinants(field).min() < 2 * least
    inverse = field.invert()
    targets = FIXED.world()
    assert residual(field, targets + inverse.displacement, targets).max() < 1e-3
    assert np.abs(inverse.displacement).max() > 1


def test_inverse_recovers_points_and_uses_a_guess(field):
    random = np.random.default_rng(4)
    points = FIXED.to_world(random.uniform(1, np.array(FIXED.shape) - 2, (500, 3)))
    np.testing.assert_allclose(field.map_inverse(field.map(points)), points, atol=1e-3)
    alone = field.invert(MOVING)
    assert alone.grid is MOVING
    again = field.invert(MOVING, guess=alone)
    np.testing.assert_allclose(again.displacement, alone.displacement, atol=2e-3)


@pytest.mark.parametrize("degrees", [0, 120, 180])
def test_inverts_large_affine_parts(degrees):
    turn = oblique_grid((2, 2, 2), (1.15, 0.9, 1.05), degrees).affine[:3, :3]
    points = FIXED.world()
    linear = points @ turn.T + [60, -45, 80]
    displacement = linear + wave(points, 2.0) - points
    field = DisplacementField(displacement.astype(np.float32), FIXED)
    inside = points[4:-4, 4:-4, 4:-4].reshape(-1, 3)
    targets = field.map(inside)
    found = field.map_inverse(targets)
    assert np.linalg.norm(field.map(found) - targets, axis=-1).max() < 1e-3
    np.testing.assert_allclose(found, inside, atol=3e-3)


def test_points_outside_follow_the_map(field):
    far = FIXED.to_world(np.array([[-30.0, 5, 5], [200, 200, 200]]))
    np.testing.assert_array_equal(field.map(far), far)
    np.testing.assert_array_equal(field.map_inverse(far), far)
    assert field.map_inverse(np.zeros((0, 3))).shape == (0, 3)
    assert field.map_inverse(np.zeros((2, 1, 3))).shape == (2, 1, 3)


def test_folded_field_still_ends(field):
    folded = DisplacementField(field.displacement * 12, FIXED)
    assert folded.jacobian_determinant().min() < 0
    assert np.isfinite(folded.invert().displacement).all()


def test_one_plane_grid():
    grid = Grid((6, 5, 1), np.eye(4))
    flat = DisplacementField(np.full((6, 5, 1, 3), (1.0, 0.5, 0), np.float32), grid)
    np.testing.assert_allclose(flat.invert().displacement, -flat.displacement, atol=1e-4)


def test_a_tensor_serves_as_an_array_does(pair, field):
    vectors = torch.from_numpy(field.displacement).permute(3, 0, 1, 2)[None].contiguous()
    other = DisplacementField(vectors, field.grid)
    assert np.array_equal(other.displacement, field.displacement)
    assert np.array_equal(other.apply(pair.moving).data, field.apply(pair.moving).data)
    nearest = [f.apply(pair.moving_labels, interpolation="nearest").data for f in (other, field)]
    assert np.array_equal(*nearest)
    np.testing.assert_allclose(
        DisplacementField(vectors, field.grid).jacobian_determinant(),
        field.jacobian_determinant(),
        atol=1e-12,
    )
    assert np.array_equal(other.invert(MOVING).displacement, field.invert(MOVING).displacement)
    with pytest.raises(InputError, match=r"\(1, 3, 33"):
        DisplacementField(vectors[:, :, 1:], field.grid)

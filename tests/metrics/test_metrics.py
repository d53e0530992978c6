"""Metrics against brute force, scipy and hand computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from lganet_fast.errors import InputError
from lganet_fast.metrics import scores
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.transforms.jacobian import jacobian_determinant
from lganet_fast.volumes.grid import Grid

SPACING = (1.0, 0.7, 2.5)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def oblique(rng, shape=(9, 8, 7), spacing=SPACING):
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing
    affine[:3, 3] = rng.normal(size=3) * 50
    return Grid(shape, affine)


def blobs(rng, shape=(20, 17, 15), count=4):
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), 2) for _ in range(count)]
    return np.argmax(noise, 0).astype(np.int32)


def smooth_field(rng, grid, size=1.5):
    noise = rng.normal(size=(*grid.shape, 3))
    field = ndimage.gaussian_filter(noise, (3, 3, 3, 0))
    return DisplacementField((field * size / np.abs(field).max()).astype(np.float32), grid)


def surface_distances(a, b, spacing):
    """Both directed lists of distances, by comparing every surface voxel with every other."""
    points = []
    for mask in (a, b):
        padded = np.pad(mask, 1)
        faces = [np.roll(padded, step, axis) for axis in range(3) for step in (-1, 1)]
        edge = padded & ~np.logical_and.reduce(faces)
        points.append((np.argwhere(edge) - 1) * np.asarray(spacing))
    distances = cdist(*points)
    return distances.min(1), distances.min(0)


def test_dice_counts_voxels(rng):
    a, b = blobs(rng), blobs(rng)
    for label, value in scores.dice(a, b).items():
        x, y = a == label, b == label
        assert value == pytest.approx(2 * (x & y).sum() / (x.sum() + y.sum()))
    assert list(scores.dice(a, b)) == [1, 2, 3]


def test_overlap_gives_recall_and_precision():
    truth, found = np.zeros((2, 4, 4, 1), int)
    truth[:2] = 5
    found[1:, :2] = 5
    counts = scores.overlap(truth, found)[5]
    assert (counts.reference, counts.other, counts.both) == (8, 6, 2)
    assert counts.recall == 2 / 8
    assert counts.precision == 2 / 6
    assert counts.dice == 4 / 14


def test_label_in_one_map_scores_zero_and_in_none_nan():
    a, b = np.zeros((2, 3, 3, 3), int)
    a[0] = 4
    counts = scores.overlap(a, b, labels=[4, 9])
    assert (counts[4].dice, counts[4].recall, counts[4].precision) == (0, 0, 0)
    assert all(math.isnan(v) for v in (counts[9].dice, counts[9].recall, counts[9].precision))
    assert all(math.isnan(v) for v in scores.hd95(a, b, (1, 1, 1), [4, 9]).values())


def test_empty_maps_have_no_labels():
    empty = np.zeros((3, 3, 3), np.uint8)
    assert scores.dice(empty, empty) == {}
    assert scores.hd95(empty, empty, (1, 1, 1)) == {}


def test_labels_may_be_chosen_large_and_unsigned(rng):
    a = blobs(rng).astype(np.uint8) * np.uint8(80)
    b = np.where(a == 80, 2_000_000_000, a.astype(np.int64))
    assert scores.dice(a, b, [240, 80]) == {80: 0.0, 240: 1.0}
    assert 2_000_000_000 in scores.hd95(a, b, SPACING)


def test_hd95_matches_brute_force(rng):
    a, b = blobs(rng), blobs(rng)
    pooled = scores.hd95(a, b, SPACING)
    directed = scores.hd95(a, b, SPACING, profile="monai")
    for label in (1, 2, 3):
        there, back = surface_distances(a == label, b == label, SPACING)
        assert pooled[label] == pytest.approx(np.percentile(np.r_[there, back], 95))
        assert directed[label] == pytest.approx(max(np.percentile(d, 95) for d in (there, back)))


def test_hd95_matches_distance_transform(rng):
    a, b = blobs(rng, (30, 31, 29), 2) == 1, blobs(rng, (30, 31, 29), 2) == 1
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
    far = [ndimage.distance_transform_edt(~edge, sampling=SPACING) for edge in edges]
    expected = np.percentile(np.r_[far[1][edges[0]], far[0][edges[1]]], 95)
    assert scores.hd95(a.astype(int), b.astype(int), SPACING)[1] == pytest.approx(expected)


def test_hd95_of_a_shifted_plate_is_the_shift_in_mm():
    a, b = np.zeros((2, 12, 10, 10), int)
    a[2], b[7] = 1, 1
    assert scores.hd95(a, b, (2.0, 1.0, 1.0)) == {1: 10.0}
    assert scores.hd95(a, a, (2.0, 1.0, 1.0)) == {1: 0.0}


def test_profiles_differ_where_one_surface_is_small():
    a, b = np.zeros((2, 40, 40, 3), int)
    a[2:38, 2:38] = 1
    b[20, 20, 1] = 1
    there, back = surface_distances(a == 1, b == 1, (1, 1, 1))
    assert scores.hd95(a, b, (1, 1, 1))[1] == pytest.approx(np.percentile(np.r_[there, back], 95))
    b[2:38, 2] = 1
    assert scores.hd95(a, b, (1, 1, 1))[1] < scores.hd95(a, b, (1, 1, 1), profile="monai")[1]


@pytest.mark.parametrize("call", [scores.dice, lambda a, b: scores.hd95(a, b, (1, 1, 1))])
def test_maps_of_two_shapes_are_refused(call):
    with pytest.raises(InputError, match=r"one shape, got \(2, 2, 2\) and \(2, 2, 3\)"):
        call(np.zeros((2, 2, 2), int), np.zeros((2, 2, 3), int))


def test_unknown_profile_is_refused():
    with pytest.raises(InputError, match="one of medpy, paper, monai, learn2reg, got 'nope'"):
        scores.hd95(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), (1, 1, 1), profile="nope")


@pytest.mark.parametrize("difference", ["central", "forward"])
def test_jacobian_of_an_affine_map_is_its_determinant(rng, difference):
    grid = oblique(rng)
    matrix = np.eye(3) + 0.3 * rng.normal(size=(3, 3))
    displacement = grid.world() @ (matrix - np.eye(3)).T + 4
    det = jacobian_determinant(displacement, grid, difference)
    assert det.shape == ((9, 8, 7) if difference == "central" else (8, 7, 6))
    np.testing.assert_allclose(det, np.linalg.det(matrix), rtol=1e-9)


def test_jacobian_of_a_rotation_and_of_a_mirror(rng):
    grid = oblique(rng)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    for matrix, expected in ((rotation, 1), (rotation @ np.diag([-1, 1, 1]), -1)):
        det = jacobian_determinant(grid.world() @ (matrix - np.eye(3)).T, grid)
        np.testing.assert_allclose(det, expected, rtol=1e-9)


@pytest.mark.parametrize("slab", [1, 150, 10**6])
def test_jacobian_matches_numpy_gradients(rng, slab, monkeypatch):
    monkeypatch.setattr("lganet_fast.volumes.grid.SLAB", slab)
    grid = oblique(rng)
    displacement = rng.normal(size=(*grid.shape, 3))
    steps = displacement @ np.linalg.inv(grid.affine[:3, :3]).T
    rows = [np.stack(np.gradient(steps[..., c]), -1) for c in range(3)]
    expected = np.linalg.det(np.stack(rows, -2) + np.eye(3))
    np.testing.assert_allclose(jacobian_determinant(displacement, grid), expected, atol=1e-9)
    rows = [
        np.stack([np.diff(steps[..., c], axis=a)[:8, :7, :6] for a in range(3)], -1)
        for c in range(3)
    ]
    expected = np.linalg.det(np.stack(rows, -2) + np.eye(3))
    forward = jacobian_determinant(displacement, grid, "forward")
    np.testing.assert_allclose(forward, expected, atol=1e-9)


def test_jacobian_of_one_plane_counts_that_axis_as_constant():
    grid = Grid((1, 5, 4), np.diag([2.0, 1, 1, 1]))
    displacement = np.zeros((1, 5, 4, 3))
    displacement[..., 1] = 0.5 * np.arange(5)[:, None]
    for difference, shape in (("central", (1, 5, 4)), ("forward", (1, 4, 3))):
        det = jacobian_determinant(displacement, grid, difference)
        assert det.shape == shape
        np.testing.assert_allclose(det, 1.5)


def test_jacobian_refuses_what_does_not_fit():
    grid = Grid((3, 3, 3), np.eye(4))
    with pytest.raises(InputError, match=r"shape \(3, 3, 3, 3\), got \(3, 3, 3\)"):
        jacobian_determinant(np.zeros((3, 3, 3)), grid)
    with pytest.raises(InputError, match="central or forward, got 'both'"):
        jacobian_determinant(np.zeros((3, 3, 3, 3)), grid, "both")


def test_folded_share_of_a_known_fold():
    grid = Grid((10, 5, 5), np.diag([2.0, 1.0, 1.0, 1.0]))
    displacement = np.zeros((10, 5, 5, 3), np.float32)
    displacement[4:, ..., 0] = -6  # three voxels back: x + d falls by 4 mm between 3 and 4
    det = jacobian_determinant(displacement, grid)
    np.testing.assert_allclose(det[3:5], -0.5)
    assert scores.folded_percent(det) == pytest.approx(20)
    assert scores.folded_percent_published(displacement, grid) == pytest.approx(100 / 9)


def test_zero_determinant_folds_by_default_and_not_as_published():
    grid = Grid((6, 4, 4), np.eye(4))
    displacement = -grid.world() * [1, 0, 0]
    assert scores.folded_percent(jacobian_determinant(displacement, grid)) == 100
    assert scores.folded_percent_published(displacement, grid) == 0


def test_sdlogj_is_the_spread_of_the_logarithm():
    det = np.array([0.5, 1.0, 2.0, -4.0]).reshape(2, 2, 1)
    logs = [math.log(3.5), math.log(4), math.log(5), math.log(1e-9)]
    assert scores.sdlogj(det) == pytest.approx(np.std(logs))
    assert scores.sdlogj(np.ones((3, 3, 3))) == pytest.approx(0, abs=1e-12)


def test_inverse_consistency_of_a_translation_is_zero_inside():
    grid = Grid((8, 7, 6), np.diag([-1.0, 2.0, 3.0, 1.0]))
    shift = np.tile(np.float32([2, 0, 0]), (*grid.shape, 1))
    found = scores.inverse_consistency(
        DisplacementField(shift, grid), DisplacementField(-shift, grid)
    )
    assert found["max"] < 1e-6
    assert found["outside_percent"] == pytest.approx(25)


def test_inverse_consistency_measures_a_known_miss_inside_the_mask(rng):
    grid = oblique(rng, (12, 11, 10))
    still = DisplacementField(np.zeros((*grid.shape, 3), np.float32), grid)
    wrong = np.zeros((*grid.shape, 3), np.float32)
    wrong[6, 5, 5] = [0.3, 0, 0.4]
    mask = np.zeros(grid.shape, bool)
    mask[6, 5, 4:6] = True
    found = scores.inverse_consistency(still, DisplacementField(wrong, grid), mask)
    assert found["mean"] == pytest.approx(0.25, abs=1e-6)
    assert found["max"] == pytest.approx(0.5, abs=1e-6)
    assert found["p99"] == pytest.approx(0.495, abs=1e-6)
    assert found["outside_percent"] == 0


@pytest.mark.parametrize("slab", [200, 10**6])
def test_inverse_consistency_follows_both_fields(rng, slab, monkeypatch):
    monkeypatch.setattr("lganet_fast.volumes.grid.SLAB", slab)
    forward = smooth_field(rng, oblique(rng, (12, 11, 10)))
    inverse = smooth_field(rng, Grid((9, 10, 11), forward.grid.affine))
    sent = inverse.grid.world() + inverse.displacement
    index = forward.grid.to_index(sent)
    known = ((index >= -0.5) & (index < np.array(forward.grid.shape) - 0.5)).all(-1)
    channels = [
        ndimage.map_coordinates(
            forward.displacement[..., c].astype(float), index[known].T, order=1, mode="nearest"
        )
        for c in range(3)
    ]
    miss = np.linalg.norm(
        sent[known] + np.stack(channels, -1) - inverse.grid.world()[known], axis=-1
    )
    found = scores.inverse_consistency(forward, inverse)
    assert found["mean"] == pytest.approx(miss.mean(), abs=1e-5)
    assert found["p99"] == pytest.approx(np.percentile(miss, 99), abs=1e-5)
    assert found["max"] == pytest.approx(miss.max(), abs=1e-5)
    assert found["outside_percent"] == pytest.approx(100 * (1 - known.mean()))


def test_inverse_consistency_of_nothing_is_nan(rng):
    grid = Grid((4, 4, 4), np.eye(4))
    still = DisplacementField(np.zeros((4, 4, 4, 3), np.float32), grid)
    away = DisplacementField(np.full((4, 4, 4, 3), 99, np.float32), grid)
    assert math.isnan(scores.inverse_consistency(still, still, np.zeros(grid.shape))["mean"])
    found = scores.inverse_consistency(still, away)
    assert math.isnan(found["max"])
    assert found["outside_percent"] == 100
    with pytest.raises(InputError, match=r"mask must have shape \(4, 4, 4\), got \(2, 2, 2\)"):
        scores.inverse_consistency(still, still, np.ones((2, 2, 2)))


def test_tre_before_and_after_a_translation(rng):
    grid = Grid((8, 8, 8), np.diag([2.0, 2.0, 2.0, 1.0]))
    shift = np.float32([1, -2, 2])
    field = DisplacementField(np.tile(shift, (8, 8, 8, 1)), grid)
    fixed = rng.uniform(1, 13, (5, 3))
    np.testing.assert_allclose(scores.tre(fixed, fixed + shift), 3)
    np.testing.assert_allclose(scores.tre(fixed, fixed + shift, field), 0, atol=1e-6)
    np.testing.assert_allclose(scores.tre(fixed, fixed - shift, field), 6, rtol=1e-6)
    with pytest.raises(InputError, match=r"\(N, 3\), got \(5, 3\) fixed and \(4, 3\) moving"):
        scores.tre(fixed, fixed[:4])


def test_the_mean_of_what_is_known_leaves_nan_out():
    assert scores.mean_known([1.0, float("nan"), 3.0]) == 2.0
    assert math.isnan(scores.mean_known([float("nan")]))
    assert math.isnan(scores.mean_known({}.values()))

"""Linear alignment from any pose: made-up anatomy under known maps, and real brains."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic import oblique_grid

from lganet_fast.registration.linear import align
from lganet_fast.registration.linear.maps import about, basis, degrees, rotations, stepped
from lganet_fast.registration.linear.search import axes_onto_each_other
from lganet_fast.volumes.grid import Grid, Volume
from lganet_fast.volumes.nifti import load_image

AXIS = np.array([0.5, -0.3, 0.8]) / np.linalg.norm([0.5, -0.3, 0.8])
FIXED = oblique_grid((46, 54, 44), (4.0, 4.0, 4.0), 0)
MOVING = oblique_grid((54, 56, 40), (4.0, 3.6, 5.0), 25)

PARTS = [  # centre and radii in mm, and intensity
    ([0, 0, 0], [62, 78, 55], 0.6),
    ([0, -45, -38], [40, 26, 22], 0.85),
    ([12, 10, 5], [12, 30, 14], 0.2),
    ([-14, 12, 6], [10, 26, 12], 0.2),
    ([25, 45, 20], [18, 15, 16], 1.0),
    ([-30, -30, 25], [20, 18, 14], 0.4),
]


def head(points):
    """A brain-like thing at points (..., 3) in mm: no rotation takes it onto itself."""
    value = np.zeros(points.shape[:-1])
    for centre, radii, level in PARTS:
        part = (1 - (((points - centre) / radii) ** 2).sum(-1)) * 4
        value += (level - value) * part.clip(0, 1)
    return value


def turned(angle, shift=(0.0, 0.0, 0.0), scale=1.0, axis=AXIS):
    turn = Rotation.from_rotvec(np.radians(angle) * np.asarray(axis)).as_matrix()
    return about(scale * turn, np.zeros(3), np.asarray(shift))


def pair(matrix, contrast=None, moving=MOVING, noise=0.01):
    """The head, and what it looks like after a map, on a grid about where that takes it."""
    random = np.random.default_rng(0)
    there = Grid(moving.shape, turned(0, matrix[:3, 3]) @ moving.affine)
    back = np.linalg.inv(matrix)
    images = [head(FIXED.world()), head(there.world() @ back[:3, :3].T + back[:3, 3])]
    if contrast:
        images[1] = contrast(images[1])
    fixed, found = (
        Volume((i + noise * random.standard_normal(i.shape)).astype(np.float32), g, "image")
        for i, g in zip(images, (FIXED, there), strict=True)
    )
    return fixed, found


def miss(found, wanted):
    """By how many mm in the mean, over the head, and degrees two maps differ."""
    points = FIXED.world()[head(FIXED.world()) > 0]
    apart = points @ (found - wanted)[:3, :3].T + (found - wanted)[:3, 3]
    turn = found[:3, :3] @ np.linalg.inv(wanted[:3, :3])
    return np.linalg.norm(apart, axis=1).mean(), degrees(turn)


def half(volume, axis, upper):
    """The volume without half of its field of view."""
    n = volume.grid.shape[axis]
    part = slice(n // 2, n) if upper else slice(0, n // 2)
    data = volume.data[tuple(part if a == axis else slice(None) for a in range(3))]
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.to_world(np.eye(3)[axis] * part.start)
    return Volume(np.ascontiguousarray(data), Grid(data.shape, affine), "image")


@pytest.mark.parametrize("angle", [0, 30, 90, 180])
@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 0, 1), AXIS])
def test_any_turn_and_a_far_shift(angle, axis):
    matrix = turned(angle, (60, -60, 52), axis=axis)
    found = align(*pair(matrix), "rigid")
    mm, turn = miss(found.matrix, matrix)
    assert mm < 1
    assert turn < 1
    assert not found.doubts
    np.testing.assert_allclose(found.matrix[:3, :3] @ found.matrix[:3, :3].T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("scale", [1.3, 0.77])
@pytest.mark.parametrize("kind", ["similarity", "affine"])
def test_another_size(kind, scale):
    matrix = turned(70, (10, 20, -15), scale)
    moving = Grid(tuple(int(n * 1.3) for n in MOVING.shape), np.diag([1, 1, 1, 1.0]))
    moving = oblique_grid(moving.shape, (4.0, 3.6, 5.0), 25)
    found = align(*pair(matrix, moving=moving), kind)
    mm, turn = miss(found.matrix, matrix)
    assert mm < 1
    assert turn < 1


def test_an_affine_map_with_shear():
    matrix = turned(40, (5, 5, 5)) @ np.array(
        [[1.1, 0.05, 0, 0], [0, 0.92, 0.04, 0], [0, 0, 1.05, 0], [0, 0, 0, 1]]
    )
    found = align(*pair(matrix))
    assert miss(found.matrix, matrix)[0] < 1


def inverted(x):
    """Dark where the head is bright; the background stays black."""
    return (x / 0.2).clip(0, 1) * (1.1 - x) ** 1.3


def not_monotonic(x):
    """Bright at one intensity alone."""
    return (x / 0.2).clip(0, 1) * (np.exp(-(((x - 0.6) / 0.2) ** 2)) + 0.1)


@pytest.mark.parametrize("contrast", [inverted, not_monotonic])
@pytest.mark.parametrize("angle", [20, 140])
def test_another_contrast(contrast, angle):
    matrix = turned(angle, (10, 20, 30))
    mm, turn = miss(align(*pair(matrix, contrast), "rigid").matrix, matrix)
    assert mm < 1
    assert turn < 1


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_the_field_of_view_gone(axis, upper):
    matrix = turned(15, (10, 20, 0))
    fixed, moving = pair(matrix)
    mm, turn = miss(align(fixed, half(moving, axis, upper), "rigid").matrix, matrix)
    assert mm < 1
    assert turn < 1


def test_half_the_field_of_view_of_the_fixed_image_gone():
    matrix = turned(100, (10, 20, 0))
    fixed, moving = pair(matrix)
    mm, turn = miss(align(half(fixed, 1, True), moving, "rigid").matrix, matrix)
    assert mm < 1
    assert turn < 1


def test_a_mask_keeps_what_is_wrong_from_counting():
    matrix = turned(30)
    fixed, moving = pair(matrix)
    sick = (FIXED.world()[..., 1] > 30) & (fixed.data > 0.1)
    data = np.where(sick, 1.4 * FIXED.world()[..., 0] % 1, fixed.data).astype(np.float32)
    mask = Volume((~sick).astype(np.uint8), FIXED, "mask")
    mm, _ = miss(
        align(Volume(data, FIXED, "image"), moving, "rigid", masks=(mask, None)).matrix, matrix
    )
    assert mm < 1


@pytest.mark.parametrize("side", [1, 2, 4])
def test_a_mask_of_a_few_voxels_is_no_crash(side):
    fixed, moving = pair(turned(10))
    data = np.zeros(FIXED.shape, np.uint8)
    centre = tuple(slice(n // 2, n // 2 + side) for n in FIXED.shape)
    data[centre] = 1
    found = align(fixed, moving, "rigid", masks=(Volume(data, FIXED, "mask"), None))
    assert np.isfinite(found.matrix).all()


def test_so_does_a_mask_of_the_moving_image():
    matrix = turned(30)
    fixed, moving = pair(matrix)
    places = MOVING.world()
    sick = (places[..., 1] > places[moving.data > 0.1][:, 1].mean() + 25) & (moving.data > 0.1)
    data = np.where(sick, 1.4 * places[..., 0] % 1, moving.data).astype(np.float32)
    mask = Volume((~sick).astype(np.uint8), MOVING, "mask")
    naive, masked = (
        miss(align(fixed, Volume(data, MOVING, "image"), "rigid", masks=(None, m)).matrix, matrix)
        for m in (None, mask)
    )
    assert masked[0] < 1
    assert masked[0] < 0.5 * naive[0]


def test_repeats_exactly():
    fixed, moving = pair(turned(50))
    first, second = (align(fixed, moving).matrix for _ in range(2))
    assert np.array_equal(first, second)


def test_centre_and_moments():
    matrix = turned(160, (30, -20, 40))
    fixed, moving = pair(matrix)
    centre = align(fixed, moving, "center")
    assert np.array_equal(centre.matrix[:3, :3], np.eye(3))
    middle = FIXED.world()[head(FIXED.world()) > 0].mean(0)
    where = centre.matrix[:3, :3] @ middle + centre.matrix[:3, 3]
    np.testing.assert_allclose(where, matrix[:3, :3] @ middle + matrix[:3, 3], atol=3)
    assert np.array_equal(align(fixed, moving, "identity").matrix, np.eye(4))
    assert miss(align(fixed, moving, "moments").matrix, matrix)[1] < 10


def test_says_where_several_poses_fit():
    """A ball with a small mark may be turned any way."""
    radius = np.linalg.norm(FIXED.world(), axis=-1)
    ball = Volume(np.where(radius < 60, 1 - radius / 120, 0).astype(np.float32), FIXED, "image")
    found = align(ball, ball, "rigid")
    assert any("another pose" in line for line in found.doubts)
    assert degrees(found.matrix[:3, :3]) < 1  # the headers decide


def test_says_where_nothing_fits():
    fixed, _ = pair(np.eye(4))
    noise = np.random.default_rng(1).uniform(0, 1, MOVING.shape).astype(np.float32)
    assert align(fixed, Volume(noise, MOVING, "image"), "rigid").doubts


def test_refuses_another_kind():
    with pytest.raises(ValueError, match="kind must be one of identity"):
        align(*pair(np.eye(4)), "nonlinear")


def test_rotations_leave_no_gap():
    grid = Rotation.from_matrix(rotations(768))
    random = Rotation.random(200, random_state=0)
    nearest = [np.degrees((one.inv() * grid).magnitude().min()) for one in random]
    assert max(nearest) < 32
    np.testing.assert_allclose(np.linalg.det(rotations(768)), 1)


def test_moments_have_every_sign_and_order():
    spread = np.diag([1.0, 2.0, 3.0])
    maps = axes_onto_each_other((np.zeros(3), spread), (np.ones(3), spread))
    assert len({tuple(np.round(m, 6).ravel()) for m in maps}) == 24
    assert all(np.linalg.det(m[:3, :3]) > 0 for m in maps)


def test_step_of_a_turn():
    change = (basis("rigid")[:, 3:] @ (2.5 * AXIS)).reshape(3, 4)
    turn = Rotation.from_rotvec(2.5 * AXIS).as_matrix()
    found = stepped(np.eye(4), change, AXIS)
    np.testing.assert_allclose(found, about(turn, AXIS, AXIS), atol=1e-12)


@pytest.mark.skipif("LPBA40_ROOT" not in os.environ, reason="LPBA40_ROOT names no data")
@pytest.mark.parametrize("angle", [35, 100, 175])
def test_another_brain_from_any_pose(angle):
    root = Path(os.environ["LPBA40_ROOT"])
    fixed = load_image(root / "fixed.nii.gz", "fixed")
    moving = load_image(root / "test" / "S02.delineation.skullstripped.nii.gz", "moving")
    straight = align(fixed, moving, "rigid")
    centre = moving.grid.to_world(np.array(moving.grid.shape) / 2)
    turn = Rotation.from_rotvec(np.radians(angle) * AXIS).as_matrix()
    pose = about(turn, centre, centre + np.array([60.0, -50, 60]))
    posed = Volume(moving.data, Grid(moving.grid.shape, pose @ moving.grid.affine), "moving")
    found = align(fixed, posed, "rigid")
    assert not found.doubts
    points = fixed.grid.world()[::8, ::8, ::8][fixed.data[::8, ::8, ::8] > 0]
    apart = points @ (found.matrix - pose @ straight.matrix)[:3, :3].T
    apart += (found.matrix - pose @ straight.matrix)[:3, 3]
    assert np.linalg.norm(apart, axis=1).mean() < 1
    assert degrees(straight.matrix[:3, :3]) < 20

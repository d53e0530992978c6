"""Metrics against the packages whose definitions they follow, on random and degenerate maps."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage

from lganet_fast.evaluation.scores import label_rows, landmark_errors, regularity
from lganet_fast.metrics import scores

SPACING = (1.0, 0.7, 2.5)


def smooth(seed, shape=(18, 16, 14)):
    rng = np.random.default_rng(seed)
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), 2) for _ in range(3)]
    return np.argmax(noise, 0)


def rough(seed, shape=(9, 8, 7)):
    return np.random.default_rng(seed).integers(0, 2, shape)


def one_voxel(seed, shape=(7, 8, 9)):
    out = np.zeros(shape, int)
    out[tuple(np.random.default_rng(seed).integers(0, 7, 3))] = 1
    return out


def whole(seed, shape=(6, 5, 4)):
    return np.ones(shape, int)


def nested(seed, shape=(12, 12, 12)):
    out = np.zeros(shape, int)
    edge = 1 + seed % 2 * 3
    out[edge:-edge, edge:-edge, edge:-edge] = 1
    return out


def lattice(seed, shape=(8, 8, 8)):
    return (np.indices(shape).sum(0) + seed) % 2


MAKERS = [smooth, rough, one_voxel, whole, nested, lattice]


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__)
def maps(request):
    """Pairs of label maps of one kind, not empty."""
    return [(request.param(2 * n), request.param(2 * n + 1)) for n in range(3)]


def labels_of(a, b):
    return sorted((set(a.flat) & set(b.flat)) - {0})


def test_hd95_is_medpys(maps):
    binary = pytest.importorskip("medpy.metric.binary")
    for a, b in maps:
        found = scores.hd95(a, b, SPACING)
        for label in labels_of(a, b):
            wanted = binary.hd95(b == label, a == label, voxelspacing=SPACING)
            assert found[label] == pytest.approx(wanted, abs=1e-9)


def test_overlap_is_medpys(maps):
    binary = pytest.importorskip("medpy.metric.binary")
    for a, b in maps:
        for label, counts in scores.overlap(a, b).items():
            x, y = a == label, b == label
            assert counts.dice == pytest.approx(binary.dc(y, x))
            assert counts.recall == pytest.approx(binary.recall(y, x))
            assert counts.precision == pytest.approx(binary.precision(y, x))


def test_hd95_is_monais(maps):
    warnings.filterwarnings("ignore", category=FutureWarning)  # MONAI's, of its own
    module = pytest.importorskip("monai.metrics")
    for a, b in maps:
        found = scores.hd95(a, b, SPACING, profile="monai")
        for label in labels_of(a, b):
            x, y = (torch.from_numpy(m == label)[None, None].float() for m in (a, b))
            wanted = module.compute_hausdorff_distance(
                y, x, include_background=True, percentile=95, spacing=SPACING
            )
            assert found[label] == pytest.approx(float(wanted), rel=1e-6)


def test_hd95_is_learn2regs(maps, monkeypatch):
    module = pytest.importorskip("surface_distance")
    for name in ("filters", "morphology"):  # SciPy's old names, which DeepMind's package reads
        monkeypatch.setattr(ndimage, name, ndimage, raising=False)
    for a, b in maps:
        found = scores.hd95(a, b, SPACING, profile="learn2reg")
        for label in labels_of(a, b):
            distances = module.compute_surface_distances(a == label, b == label, np.ones(3))
            wanted = module.compute_robust_hausdorff(distances, 95)
            assert found[label] == pytest.approx(wanted, abs=1e-9)


def test_surface_area_of_a_ball_is_about_that_of_the_sphere():
    from lganet_fast.metrics.surface_distance import _between_voxels

    radius = 20.0
    axes = np.indices((48, 48, 48)) - 23.5
    ball = ((axes**2).sum(0) <= radius**2).astype(int)
    points, areas = _between_voxels(ball, 1)[0]
    assert areas.sum() == pytest.approx(4 * math.pi * radius**2, rel=0.1)
    assert np.abs(points - 0.5 - 24.0).max() <= radius + 1


def test_overlap_and_hd95_are_simpleitks():
    sitk = pytest.importorskip("SimpleITK")
    a, b = smooth(0), smooth(1)
    images = [sitk.GetImageFromArray(x.astype(np.uint8)) for x in (a, b)]
    measure = sitk.LabelOverlapMeasuresImageFilter()
    measure.Execute(images[1], images[0])  # what is scored, then the truth
    for label, counts in scores.overlap(a, b).items():
        assert counts.dice == pytest.approx(measure.GetDiceCoefficient(label))
        assert counts.recall == pytest.approx(1 - measure.GetFalseNegativeError(label))
        assert counts.precision == pytest.approx(1 - measure.GetFalseDiscoveryRate(label))
    for label in labels_of(a, b):
        edges, distances = [], []
        for image in images:
            mask = sitk.ConstantPad(image == label, (1, 1, 1), (1, 1, 1), 0)
            edge = sitk.LabelContour(mask, fullyConnected=False)
            edges.append(sitk.GetArrayFromImage(edge) > 0)
            edge.SetSpacing(SPACING[::-1])
            far = sitk.SignedMaurerDistanceMap(edge, squaredDistance=False, useImageSpacing=True)
            distances.append(np.abs(sitk.GetArrayFromImage(far)))
        pooled = np.r_[distances[1][edges[0]], distances[0][edges[1]]]
        wanted = np.percentile(pooled, 95)
        assert scores.hd95(a, b, SPACING)[label] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("profile", ["medpy", "monai", "learn2reg"])
def test_a_label_that_one_map_lacks_has_no_hd95(profile):
    a, b = np.zeros((2, 5, 5, 5), int)
    a[1:3, 1:3, 1:3] = 4
    found = scores.hd95(a, b, SPACING, [4, 9], profile)
    assert math.isnan(found[4])
    assert math.isnan(found[9])


def test_published_rule_counts_lost_labels_as_five():
    a, b = np.zeros((2, 30, 8, 8), int)
    a[2:12], b[11:21] = 1, 1  # Dice 0.1
    a[22:24, :4], b[26:28, :4] = 2, 2  # Dice 0
    a[29, 0, 0] = 3  # not in b
    usual, published = (scores.hd95(a, b, (1, 1, 1), profile=p) for p in ("medpy", "paper"))
    assert published[1] == usual[1] > 5
    assert usual[2] < 5
    assert (published[2], published[3]) == (5, 5)


def test_labels_that_cannot_be_registered_are_nan_but_in_the_published_profile():
    fixed, moving, moved = np.zeros((3, 6, 6, 6), int)
    fixed[1:4], moving[2:5], moved[1:4] = 1, 1, 1
    fixed[0, 0], moving[0, 0] = 2, 2  # lost on the way
    fixed[5, 5] = 3  # never there
    for profile, lost, absent in (
        ("medpy", math.nan, (math.nan,) * 4),
        ("learn2reg", math.nan, (math.nan,) * 4),
        ("paper", 5.0, (0.0, 5.0, 0.0, 0.0)),
    ):
        rows = label_rows(fixed, moving, moved, np.ones(3), profile)
        values = [tuple(row.values()) for row in rows]
        assert values[0] == (1, 1.0, 0.0, 1.0, 1.0)
        np.testing.assert_equal(values[1], (2, 0.0, lost, 0.0, 0.0))
        np.testing.assert_equal(values[2], (3, *absent))
    chosen = label_rows(fixed, moving, moved, np.ones(3), "paper", [7, 1, 1])
    assert [row["label"] for row in chosen] == [1, 7]


def reference_determinant(flow):
    gradients = np.stack([np.stack(np.gradient(flow[..., c]), -1) for c in range(3)], -2)
    return np.linalg.det(gradients + np.eye(3))


def test_folding_and_spread_by_profile():
    rng = np.random.default_rng(3)
    flow = ndimage.gaussian_filter(rng.normal(size=(14, 13, 12, 3)), (1, 1, 1, 0)) * 9
    det = reference_determinant(flow)
    inner = det[2:-2, 2:-2, 2:-2]
    steps = [
        np.stack([np.diff(flow[..., c], axis=a)[:13, :12, :11] for a in range(3)], -1)
        for c in range(3)
    ]
    forward = np.linalg.det(np.stack(steps, -2) + np.eye(3))
    logs = [np.log((d + 3).clip(1e-9, 1e9)).std() for d in (det, inner)]
    for profile, folded, spread in (
        ("paper", forward < 0, logs[0]),
        ("medpy", det <= 0, logs[0]),
        ("monai", det <= 0, logs[0]),
        ("learn2reg", inner <= 0, logs[1]),
    ):
        found = regularity(flow, profile)
        assert found["njd_percent"] == pytest.approx(100 * folded.mean())
        assert found["sdlogj"] == pytest.approx(spread)
    assert len({regularity(flow, p)["njd_percent"] for p in ("paper", "medpy", "learn2reg")}) == 3


def test_landmark_error_reads_the_flow_between_voxels():
    rng = np.random.default_rng(4)
    flow = rng.normal(size=(8, 9, 10, 3))
    fixed, moving = rng.uniform(0, 7, (2, 6, 3))
    u = [ndimage.map_coordinates(flow[..., c], fixed.T, order=1) for c in range(3)]
    wanted = np.linalg.norm((fixed + np.stack(u, -1) - moving) * SPACING, axis=-1)
    found = landmark_errors(flow, fixed, moving, np.array(SPACING))
    np.testing.assert_allclose(found, wanted)

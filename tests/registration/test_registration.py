"""register(): a pair in, a Registration out."""

from __future__ import annotations

import gzip
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from synthetic import mean_error, oblique_grid, source, synthetic_pair

import lganet_fast
from lganet_fast import InputError, RegistrationWarning, register
from lganet_fast.metrics.scores import dice
from lganet_fast.registration import measures, optimiser, stages
from lganet_fast.registration.settings import OUTPUTS, Sources, check_settings
from lganet_fast.runtime import machine
from lganet_fast.volumes.grid import Grid

FAST = {"iterations": (15, 15, 6), "threads": 1}


def save(path, volume):
    data = volume.data
    data = data.astype(np.uint8) if data.dtype.kind == "i" else data
    nib.save(nib.Nifti1Image(data, volume.grid.affine), path)
    return path


@pytest.fixture(scope="module")
def oblique():
    """Oblique, anisotropic, of different shapes and spacings."""
    fixed = oblique_grid((40, 34, 44), (1.7, 2.1, 1.6), 12)
    moving = oblique_grid((46, 40, 25), (1.5, 1.9, 3.0), -20)
    return synthetic_pair(fixed, moving)


@pytest.fixture(scope="module")
def registered(oblique, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    paths = {
        name: save(folder / f"{name}.nii.gz", getattr(oblique, name))
        for name in ("fixed", "moving", "fixed_labels", "moving_labels")
    }
    out = folder / "out"
    labels = {name: paths[name] for name in ("fixed_labels", "moving_labels")}
    result = register(paths["fixed"], paths["moving"], out=out, **labels, **FAST)
    return result, out, paths


def test_recovers_the_known_map_on_oblique_grids(oblique, registered):
    result, _, _ = registered
    error, before = mean_error(result, oblique, oblique.fixed.data > 0)
    assert error < 0.35 * before
    core = np.linalg.norm(oblique.fixed.grid.world(), axis=-1) < 18
    error, before = mean_error(result, oblique, core)
    assert error < 0.25 * before


def test_writes_everything_and_the_report_tells_the_truth(oblique, registered):
    _, out, paths = registered
    assert sorted(p.name for p in out.iterdir()) == sorted(OUTPUTS)
    report = json.loads((out / "report.json").read_text())
    labels = nib.load(out / "warped_labels.nii.gz")
    scores = dice(oblique.fixed_labels.data, np.asarray(labels.dataobj))
    assert report["labels"]["mean_dice_after"] == pytest.approx(np.mean(list(scores.values())))
    assert report["labels"]["mean_dice_after"] > report["labels"]["mean_dice_before"] + 0.1
    assert report["similarity"]["after"] > report["similarity"]["before"]
    assert report["jacobian"]["folded_percent"] < 0.1
    assert report["inputs"]["moving"]["path"] == str(paths["moving"])
    assert len(report["inputs"]["moving"]["sha256"]) == 64
    assert report["settings"]["iterations"] == list(FAST["iterations"])
    assert report["backend"]["operations"]["warp"] in ("reference", "native")
    stages = dict(report["seconds"])
    assert stages.pop("total") == pytest.approx(sum(stages.values()), abs=0.01)
    assert report["peak_memory_mb"] > 100
    assert report["versions"]["lganet_fast"] == lganet_fast.__version__
    assert nib.load(out / "warped.nii.gz").shape == oblique.fixed.data.shape
    assert nib.load(out / "inverse_warp.nii.gz").shape[:3] == oblique.moving.data.shape


def test_warped_is_the_moving_image_through_the_saved_field(oblique, registered):
    result, out, _ = registered
    loaded = lganet_fast.DisplacementField.load(out / "warp.nii.gz")
    again = loaded.apply(oblique.moving)
    written = np.asarray(nib.load(out / "warped.nii.gz").dataobj)
    assert np.abs(again.data - written).max() < 1e-4
    assert np.array_equal(result.warped.data, written)


def test_inverse_returns_points(oblique, registered):
    result, _, _ = registered
    points = oblique.moving.grid.world()[oblique.moving.data > 0]
    back = result.transform.map(result.inverse.map(points))
    residual = np.linalg.norm(back - points, axis=-1)
    assert residual.mean() < 0.02
    assert np.percentile(residual, 99) < 0.1


def test_a_second_run_gives_the_same_bytes(registered, tmp_path):
    _, out, paths = registered
    labels = {name: paths[name] for name in ("fixed_labels", "moving_labels")}
    register(paths["fixed"], paths["moving"], out=tmp_path / "again", **labels, **FAST)
    for name in OUTPUTS:
        if name != "report.json":  # holds seconds
            assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes(), name


def test_arrays_and_nibabel_images_give_what_files_give(oblique, registered):
    result, _, _ = registered
    moving = nib.Nifti1Image(*source(oblique.moving))
    other = register(source(oblique.fixed), moving, **FAST)
    assert np.array_equal(other.transform.displacement, result.transform.displacement)
    assert np.array_equal(other.inverse.displacement, result.inverse.displacement)
    assert other.warped_labels is None
    assert other.report["labels"] is None


def test_affine_first(tmp_path):
    pair = synthetic_pair(amplitude=2.0)
    moved = pair.moving.grid.affine.copy()
    moved[:3, 3] += [30, -20, 25]
    result = register(source(pair.fixed), (pair.moving.data, moved), affine=True, **FAST)
    points = pair.fixed.grid.world()[pair.fixed.data > 0]
    error = result.transform.map(points) - (pair.to_moving(points) + np.array([30, -20, 25]))
    assert np.linalg.norm(error, axis=-1).mean() < 0.8


def test_a_transform_of_another_tool_first(tmp_path):
    pair = synthetic_pair(amplitude=2.0)
    shift = np.eye(4)
    shift[:3, 3] = 30, -20, 25
    moving = pair.moving.data, shift @ pair.moving.grid.affine
    np.savetxt(tmp_path / "shift.txt", shift)
    result = register(source(pair.fixed), moving, initial=tmp_path / "shift.txt", **FAST)
    np.testing.assert_allclose(result.report["affine_matrix_ras_mm"], shift)
    points = pair.fixed.grid.world()[pair.fixed.data > 0]
    error = result.transform.map(points) - (pair.to_moving(points) + shift[:3, 3])
    assert np.linalg.norm(error, axis=-1).mean() < 0.8


def test_refuses_a_start_that_is_neither_kind_nor_file():
    pair = synthetic_pair()
    images = source(pair.fixed), source(pair.moving)
    with pytest.raises(InputError, match=r"initial must be one of identity, center, .*'nothing'"):
        register(*images, initial="nothing")
    with pytest.raises(InputError, match="affine is short for initial affine"):
        register(*images, initial="rigid", affine=True)


def test_other_similarities_and_precision():
    pair = synthetic_pair()
    inverted = np.where(pair.moving.data > 0, 1.2 - pair.moving.data, 0).astype(np.float32)
    for data, options in (
        (inverted, {"similarity": "mind"}),
        (pair.moving.data, {"similarity": "mse", "precision": "float64"}),
    ):
        result = register(source(pair.fixed), (data, pair.moving.grid.affine), **options, **FAST)
        error, before = mean_error(result, pair, pair.fixed.data > 0)
        assert error < 0.5 * before, options


def test_mutual_information_of_another_contrast():
    pair = synthetic_pair()
    inverted = np.where(pair.moving.data > 0, 1.2 - pair.moving.data, 0).astype(np.float32)
    moving = inverted, pair.moving.grid.affine
    result = register(source(pair.fixed), moving, similarity="mi", **FAST)
    error, before = mean_error(result, pair, pair.fixed.data > 0)
    assert error < 0.6 * before


def test_anatomy_cut_by_the_border_is_registered_to_the_edge():
    grid = oblique_grid((28, 40, 40), (1.8, 1.8, 1.8), 0)
    pair = synthetic_pair(grid, grid)
    result = register(source(pair.fixed), source(pair.moving), **FAST)
    edge = np.zeros(grid.shape, bool)
    edge[1:3] = True
    error, before = mean_error(result, pair, edge & (pair.fixed.data > 0))
    assert error < 0.6 * before


def flipped(volume):
    """The same anatomy stored with its first axis reversed."""
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.to_world([volume.grid.shape[0] - 1, 0, 0])
    affine[:3, 0] *= -1
    return volume.data[::-1].copy(), affine


def test_orientation_changes_nothing_but_is_mentioned():
    pair = synthetic_pair()
    plain = register(source(pair.fixed), source(pair.moving), **FAST)
    with pytest.warns(RegistrationWarning, match="orientation differs: fixed RAS, moving LAS"):
        other = register(source(pair.fixed), flipped(pair.moving), **FAST)
    difference = plain.transform.displacement - other.transform.displacement
    assert np.abs(difference).max() < 0.05
    assert "orientation" in other.report["warnings"][0]


def test_warns_of_spacing_and_little_overlap():
    pair = synthetic_pair()
    coarse = oblique_grid((40, 40, 9), (1.8, 1.8, 8.1), 0)
    with pytest.warns(RegistrationWarning, match="spacing differs 4.5-fold"):
        register(source(pair.fixed), source(synthetic_pair(pair.fixed.grid, coarse).moving), **FAST)
    away = pair.moving.grid.affine.copy()
    away[0, 3] += 62
    with pytest.warns(RegistrationWarning, match="% of the fixed image lies inside"):
        register(source(pair.fixed), (pair.moving.data, away), **FAST)


def test_folds_are_counted_and_told():
    """A rough velocity is beyond what the squarings keep free of folds."""
    pair, settings = synthetic_pair(), check_settings(smoothness=0.5)
    sources = Sources(source(pair.fixed), source(pair.moving))
    given = stages.read(sources, settings)
    initial = stages.align(given.pair, settings, torch.device("cpu"))
    start = stages.prepare(given.pair, initial.matrix, torch.device("cpu"), settings.dtype)
    rough = torch.randn(1, 3, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    velocity = 4 * rough * optimiser.taper((12, 12, 12), 3)
    change = measures.similarity_change(velocity, start, start, settings.similarity)
    found = stages.Found(start, start, velocity, change, [])
    moved = stages.transform(given.pair, initial, found, settings)
    quality = stages.measure(given, initial, found, moved, settings, lambda: None)
    folded = 100 * (moved.transform.jacobian_determinant() <= 0).mean()
    assert folded > 1
    assert quality.jacobian.folded_percent == pytest.approx(folded)
    told = f"{folded:.2f}% of voxels fold: raise smoothness above 0.5"
    assert told in quality.verdict.reasons
    assert quality.verdict.level != "good"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity": "nmi"}, "similarity must be one of lncc, mse, mind, mi, got 'nmi'"),
        ({"precision": "int8"}, "precision must be one of"),
        ({"iterations": ()}, "iterations must be"),
        ({"iterations": (0, 0)}, "iterations must be"),
        ({"iterations": (5, -1)}, "iterations must be"),
        ({"smoothness": -1.0}, "smoothness must be"),
        ({"smoothness": float("nan")}, "smoothness must be"),
        ({"device": "abacus"}, "device must be auto or one of cpu"),
        ({"smoothness": "1"}, "smoothness must be a number from 0 to 1e.06, got '1'"),
        ({"guide_labels": None}, "guide_labels must be a number from 0 .* got None"),
        ({"no_folds": "no"}, "no_folds must be True or False, got 'no'"),
        ({"threads": 0}, "threads must be a whole number from 1 to 1024, got 0"),
        ({"threads": 1.5}, "threads must be a whole number from 1 to 1024, got 1.5"),
        ({"iterations": 3}, "iterations must be 1 to 8 whole numbers .*; got 3"),
        ({"iterations": "40x40"}, "iterations must be 1 to 8 whole numbers .*; got '40x40'"),
        ({"initial": None}, "initial must be text or a path, got None"),
        ({"checkpoint": 3}, "checkpoint must be text or a path, got 3"),
        ({"checkpoint": b"a.pth"}, "checkpoint must be text or a path, got b'a.pth'"),
        ({"out": 3}, "out must be text or a path, got 3"),
    ],
)
def test_refuses_settings_by_name(options, message):
    pair = synthetic_pair()
    with pytest.raises(InputError, match=message):
        register(source(pair.fixed), source(pair.moving), **options)


def test_refuses_images_that_do_not_meet():
    pair = synthetic_pair()
    away = pair.moving.grid.affine.copy()
    away[0, 3] += 500
    with pytest.raises(InputError, match="do not overlap in world space"):
        register(source(pair.fixed), (pair.moving.data, away))


def test_refuses_labels_on_another_grid_and_leaves_nothing(tmp_path):
    pair = synthetic_pair()
    labels = (pair.fixed_labels.data[1:], pair.fixed.grid.affine)
    out = tmp_path / "deep" / "out"
    with pytest.raises(InputError, match="fixed_labels is on 39 x 40 x 40 voxels"):
        register(source(pair.fixed), source(pair.moving), fixed_labels=labels, out=out)
    assert list(tmp_path.iterdir()) == []


def test_truncated_file_leaves_an_older_result_alone(registered, tmp_path):
    _, _, paths = registered
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(gzip.compress(paths["fixed"].read_bytes())[:2000])
    out = tmp_path / "out"
    out.mkdir()
    (out / "warped.nii.gz").write_text("older")
    with pytest.raises(InputError, match=r"fixed .*broken.nii.gz"):
        register(broken, paths["moving"], out=out)
    assert [p.name for p in out.iterdir()] == ["warped.nii.gz"]
    assert (out / "warped.nii.gz").read_text() == "older"


def test_says_what_would_fit_in_memory(monkeypatch):
    pair = synthetic_pair()
    monkeypatch.setattr(machine, "available_memory", lambda device: 1 << 20)
    with pytest.raises(InputError, match=r"out of memory: .* \d+x\d+x\d+ voxels would fit"):
        register(source(pair.fixed), source(pair.moving))


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("can't allocate memory")]
)
def test_memory_that_runs_out_midway_is_one_line(error):
    cpu = torch.device("cpu")
    with (
        pytest.raises(InputError, match="out of memory: 8x8x8"),
        machine.guard_memory((8, 8, 8), cpu, 100),
    ):
        raise error
    with (
        pytest.raises(RuntimeError, match="something else"),
        machine.guard_memory((8, 8, 8), cpu, 100),
    ):
        raise RuntimeError("something else")


def test_grid_repr_names_size_and_spacing():
    assert repr(Grid((2, 3, 4), np.diag([1, 2, 0.5, 1]))) == "Grid(2x3x4 voxels, 1x2x0.5 mm)"


def test_noise_of_the_air_around_a_body_moves_nothing():
    """By 0.02 mm; by 0.55 mm where the air's level were taken for its darkest voxels'."""
    pair = synthetic_pair(*2 * [oblique_grid((36, 38, 34), (2.0, 2.0, 2.0), 0)])
    random = np.random.default_rng(0)
    found = []
    for noise in (0, 15):
        images = [
            np.where(
                x.data > 0, 400 * x.data - 220, -1000 + noise * random.standard_normal(x.data.shape)
            )
            for x in (pair.fixed, pair.moving)
        ]
        result = register(*((x, pair.fixed.grid.affine) for x in images), iterations=(12, 6))
        found.append(result.transform.map(pair.fixed.grid.world()[pair.fixed.data > 0]))
    assert np.linalg.norm(found[1] - found[0], axis=1).mean() < 0.1

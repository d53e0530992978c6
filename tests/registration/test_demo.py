"""The demo's ground truth, its measures and its messages."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from lganet_fast.cli.actions.demo import summary_text
from lganet_fast.errors import InputError
from lganet_fast.metrics.scores import dice
from lganet_fast.registration import demo
from lganet_fast.transforms.field import DisplacementField
from lganet_fast.volumes.grid import Grid, Volume


@pytest.fixture(scope="module")
def template():
    pytest.importorskip("nilearn")
    return demo.load_template(6)


@pytest.fixture(scope="module")
def pair(template):
    return demo.make_pair(*template, 0)


@pytest.fixture
def bare(monkeypatch):
    """Deformation alone: neither bias nor noise."""
    monkeypatch.setattr(demo, "BIAS", 0.0)
    monkeypatch.setattr(demo, "NOISE", 0.0)


def synthetic(value):
    """An anisotropic, oblique volume of `value(world)`, all of it tissue."""
    turn, _ = np.linalg.qr(np.array([[1.0, 0.2, 0.1], [-0.2, 1.0, 0.3], [0.0, -0.3, 1.0]]))
    affine = np.eye(4)
    affine[:3] = np.c_[turn @ np.diag([3.0, 2.5, 4.0]), [-40.0, 10.0, 5.0]]
    grid = Grid((34, 40, 26), affine)
    data = value(grid.world()).astype(np.float32)
    return Volume(data, grid, "synthetic"), Volume(np.ones(grid.shape, np.int32), grid, "tissue")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_truth_says_where_a_fixed_point_lies(bare, axis):
    """A moving image made from the world's own coordinates names the fixed point it came from."""
    image, tissue = synthetic(lambda world: world[..., axis] + 500)
    pair = demo.make_pair(image, tissue, 3)
    assert np.abs(pair.moving.data - image.data).max() > 3
    recovered = pair.truth.apply(pair.moving).data
    inner = (slice(2, -2),) * 3
    assert np.abs(recovered - image.data)[inner].max() < 0.3
    assert np.abs(recovered - image.data)[inner].mean() < 0.02


def test_truth_restores_a_smooth_image(bare):
    image, tissue = synthetic(
        lambda world: np.exp(-(((world - world.mean((0, 1, 2))) / 25) ** 2).sum(-1))
    )
    pair = demo.make_pair(image, tissue, 1)
    before = np.abs(pair.moving.data - image.data).mean()
    after = np.abs(pair.truth.apply(pair.moving).data - image.data).mean()
    assert after < 0.1 * before


def test_truth_restores_the_tissues(pair):
    restored = pair.truth.apply(pair.moving_labels, interpolation="nearest")
    before = dice(pair.fixed_labels.data, pair.moving_labels.data)
    after = dice(pair.fixed_labels.data, restored.data)
    assert set(before) == set(demo.TISSUES)
    assert all(after[n] > before[n] + 0.03 for n in demo.TISSUES)


@pytest.mark.parametrize("seed", range(4))
def test_truth_is_a_diffeomorphism_of_a_few_millimetres(template, seed):
    truth = demo.make_pair(*template, seed).truth
    assert truth.jacobian_determinant().min() > 0.1
    lengths = np.linalg.norm(truth.displacement, axis=-1)
    assert 5 < lengths.max() < 11
    for axis in range(3):
        assert lengths.take([0, -1], axis).max() < 1e-6


def test_bias_and_noise_have_the_stated_size(monkeypatch):
    """On a flat image, what is left of the noise after averaging is the bias."""
    image, tissue = synthetic(lambda world: np.ones(world.shape[:3]))
    monkeypatch.setattr(demo, "NOISE", 0.0)
    shaded = demo.make_pair(image, tissue, 5).moving.data
    assert np.abs(shaded - 1).max() == pytest.approx(demo.BIAS, abs=1e-6)
    monkeypatch.setattr(demo, "NOISE", 0.05)
    noise = demo.make_pair(image, tissue, 5).moving.data - shaded
    assert noise.std() == pytest.approx(0.05, rel=0.02)
    assert abs(noise.mean()) < 0.002


def test_seed_decides_everything(template, pair):
    again, other = demo.make_pair(*template, 0), demo.make_pair(*template, 1)
    assert np.array_equal(again.moving.data, pair.moving.data)
    assert np.array_equal(again.truth.displacement, pair.truth.displacement)
    assert not np.array_equal(other.truth.displacement, pair.truth.displacement)


def test_template_is_a_brain_without_a_download(monkeypatch):
    pytest.importorskip("nilearn")

    def refuse(*arguments):
        raise AssertionError("the demo must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    image, tissues = demo.load_template(8)
    brain = tissues.data > 0
    assert np.array_equal(np.unique(tissues.data), [0, *demo.TISSUES])
    assert not image.data[~brain].any()
    assert 1.6e6 < brain.sum() * 8**3 < 2.1e6  # cubic millimetres
    white, grey, other = (image.data[tissues.data == n].mean() for n in (3, 2, 1))
    assert white > grey > other


def test_without_nilearn(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(
        InputError, match=r"the MNI152 template needs nilearn: pip install 'lganet_fast\[demo\]'"
    ):
        demo.run_demo(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_unknown_device_is_refused_first(tmp_path):
    with pytest.raises(InputError, match="device must be"):
        demo.run_demo(tmp_path / "out", device="tpu")
    assert not list(tmp_path.iterdir())


def test_distances():
    vectors = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    assert demo.distances(vectors) == pytest.approx({"mean": 2.0, "p95": 4.55, "max": 5.0})


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_error_is_what_the_registration_leaves(pair, monkeypatch, tmp_path, part):
    """A registration that finds a known part of the truth leaves the rest of it as error."""
    found = DisplacementField((part * pair.truth.displacement).astype(np.float32), pair.truth.grid)
    monkeypatch.setattr(demo, "load_template", lambda resolution: (pair.fixed, pair.fixed_labels))
    monkeypatch.setattr(demo, "register", lambda *a, **k: SimpleNamespace(transform=found))
    result = demo.run_demo(tmp_path)
    for name, before in result.error_before.items():
        assert before > 1
        assert result.error_after[name] == pytest.approx((1 - part) * before, abs=1e-5)


def test_end_to_end(tmp_path):
    pytest.importorskip("nilearn")
    result = demo.run_demo(tmp_path / "out", threads=2, resolution=4)
    assert result.error_after["mean"] < 0.55 * result.error_before["mean"]
    assert result.error_after["p95"] < 0.55 * result.error_before["p95"]
    assert all(after > before for _, before, after in demo.tissue_dice(result))
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"qc.html", "warp.nii.gz", "report.json", "truth.nii.gz", "moving.nii.gz"} <= written
    text = summary_text(result, tmp_path / "out")
    assert text.isascii()
    assert f"{result.error_after['p95']:.2f}" in text
    assert str(tmp_path / "out" / "qc.html") in text

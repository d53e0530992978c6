"""A trained network inside a registration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import synthetic_pair

from lganet_fast import InputError, LGANetPlusPlus, register
from lganet_fast.cli import main
from lganet_fast.models.checkpoint import Card, Checkpoint, save
from lganet_fast.models.inference import open_checkpoint
from lganet_fast.models.voxelmorph import VoxelMorph
from lganet_fast.registration.initial_flow import predict
from lganet_fast.registration.optimiser import taper
from lganet_fast.registration.pair import Pair
from lganet_fast.registration.workspace import MARGIN, prepare
from lganet_fast.volumes.grid import Grid

GRID = Grid((30, 34, 28), np.diag([2.0, 2.0, 2.0, 1.0]))


@pytest.fixture(scope="module")
def pair():
    found = synthetic_pair(GRID, GRID)
    return Pair(found.fixed, found.moving, None, None, None)


@pytest.fixture(scope="module")
def work(pair):
    return prepare(pair, np.eye(4), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint of made-up weights for each axis order, the same network in both."""
    torch.manual_seed(0)
    model = LGANetPlusPlus((48, 48, 48))
    folder = tmp_path_factory.mktemp("weights")
    for order in ("xyz", "zyx"):
        save(model, folder / f"{order}.safetensors", Card(axis_order=order))
    return folder


def source(volume):
    return volume.data, volume.grid.affine


def test_predicts_in_the_order_of_the_axes(work, weights):
    straight, turned = (open_checkpoint(weights / f"{o}.safetensors") for o in ("xyz", "zyx"))
    fade = taper(work.grid.shape, MARGIN)
    with torch.no_grad():
        expected = straight.model(work.moving, work.fixed)
        back = straight.model(*(x.transpose(2, 4).contiguous() for x in (work.moving, work.fixed)))
    assert torch.equal(predict(straight, work), expected * fade)
    assert torch.equal(predict(turned, work), back.transpose(2, 4).flip(1) * fade)


def test_network_alone_and_with_what_follows(pair, work, weights):
    path = weights / "xyz.safetensors"
    images = source(pair.fixed), source(pair.moving)
    alone = register(*images, checkpoint=path, iterations=(0,))
    flow = predict(open_checkpoint(path), work)[0].permute(1, 2, 3, 0).numpy()
    start = np.rint(GRID.to_index(work.grid.affine[:3, 3])).astype(int)
    inside = np.stack(np.meshgrid(*map(np.arange, GRID.shape), indexing="ij"), -1) - start
    reached = ((inside >= 0) & (inside < work.grid.shape)).all(-1)
    expected = np.zeros((*GRID.shape, 3))
    expected[reached] = flow[tuple(inside[reached].T)]
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(alone.transform.voxels(GRID), expected, atol=2e-5)
    assert alone.report["network"]["axis_order"] == "xyz"
    assert alone.report["settings"]["checkpoint"] == str(path)

    both = register(*images, checkpoint=path, iterations=(10, 10))
    assert both.report["similarity"]["after"] > alone.report["similarity"]["after"] + 0.05
    assert both.report["inverse_consistency_mm"]["p99"] < 2e-3
    assert both.report["similarity"]["before"] == alone.report["similarity"]["before"]


def test_refuses_what_is_no_checkpoint(tmp_path, weights, capsys):
    save(LGANetPlusPlus((48, 48, 48), in_channel=2), tmp_path / "two.safetensors")
    with pytest.raises(InputError, match="is for images of 2 channels, a pair has 1"):
        open_checkpoint(tmp_path / "two.safetensors")
    words = ["register", "--fixed", "f.nii", "--moving", "m.nii", "--out", str(tmp_path / "out")]
    assert main([*words, "--iterations", "0"]) == 2
    assert "all 0 only with a checkpoint" in capsys.readouterr().err


def test_a_network_whose_numbers_overflow_is_one_line(work):
    model = VoxelMorph((48, 48, 48)).eval()
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 1e37)
    with pytest.raises(InputError, match="VoxelMorph has numbers that are not finite"):
        predict(Checkpoint(model, Card()), work)

"""SyN is scored by the same code as every other method."""

from __future__ import annotations

import sys

import layouts
import numpy as np
import pytest
import torch

from lganet_fast import config
from lganet_fast.cli import main
from lganet_fast.data import open_split
from lganet_fast.evaluation import run
from lganet_fast.evaluation.methods import moved_labels
from lganet_fast.evaluation.results import read_cases
from lganet_fast.evaluation.syn import image, syn_flow
from lganet_fast.metrics.scores import dice
from lganet_fast.volumes.grid import Grid

AFFINE = np.array([[0, -1.5, 0, 30], [2, 0, 0, -20], [0, 0, 1.25, 7], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return layouts.write("lpba40", tmp_path_factory.mktemp("lpba40"), (40, 44, 48))


def words(place, out, *more):
    settings = [w for setting in (*place, "train.device=cpu") for w in ("--set", setting)]
    return ["evaluate", "lpba40", "--out", str(out), "--quiet", *settings, *more]


def test_syn_aligns_and_its_flow_moves_labels_as_ants_does(place):
    ants = pytest.importorskip("ants")
    settings = config.load("lpba40", place)
    sample = open_split(settings, "test")[0]
    turned = type(sample)(**{**vars(sample), "affine": AFFINE})
    flow = syn_flow(turned)
    assert flow.shape == (1, 3, *sample.fixed.shape)
    moved = moved_labels(sample.moving_labels, flow, settings.evaluate)
    before = np.mean(list(dice(sample.fixed_labels, sample.moving_labels).values()))
    assert np.mean(list(dice(sample.fixed_labels, moved).values())) > before + 0.1
    grid = Grid(sample.fixed.shape, AFFINE)
    fixed, moving = (image(ants, x, grid) for x in (sample.fixed, sample.moving))
    found = ants.registration(fixed, moving, "SyN", random_seed=1)
    labels = image(ants, sample.moving_labels, grid)
    theirs = ants.apply_transforms(
        fixed, labels, found["fwdtransforms"], interpolator="nearestNeighbor"
    ).numpy()
    assert (theirs.round() == moved).mean() > 0.98


def test_the_command_scores_syn(place, tmp_path, monkeypatch):
    pytest.importorskip("ants")
    monkeypatch.setattr(run, "draw", lambda *_: None)
    monkeypatch.setattr(
        "lganet_fast.evaluation.methods.syn_flow",
        lambda full: torch.zeros(1, 3, *full.fixed.shape),
    )
    assert main(words(place, tmp_path / "syn", "--methods", "syn")) == 0
    assert main(words(place, tmp_path / "before")) == 0
    one, other = (read_cases(tmp_path / name / "cases.csv") for name in ("syn", "before"))
    assert [row["dice"] for row in one.values()] == [row["dice"] for row in other.values()]
    assert "| SyN |" in (tmp_path / "syn" / "tables.md").read_text()


def test_without_antspyx_a_line_says_how_to_get_it(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ants", None)
    assert main(words(place, tmp_path, "--methods", "syn")) == 2
    assert "SyN needs antspyx: pip install 'lganet_fast[ants]'" in capsys.readouterr().err


def test_syn_takes_no_checkpoint(place, tmp_path, capsys):
    more = ("--methods", "syn", "--checkpoint", "some.pt")
    assert main(words(place, tmp_path, *more)) == 2
    assert "SyN takes no checkpoint" in capsys.readouterr().err

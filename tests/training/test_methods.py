"""Every network trains from any configuration, under the paper's conditions or its own."""

from __future__ import annotations

import itertools
import json
import os
from types import SimpleNamespace
from typing import get_args, get_type_hints

import layouts
import pytest
import torch

from lganet_fast import config, models
from lganet_fast.config.schema import ModelSection
from lganet_fast.data import open_split
from lganet_fast.evaluation import evaluate, run
from lganet_fast.evaluation.results import read_cases
from lganet_fast.models.checkpoint import load
from lganet_fast.ops import gradient_loss
from lganet_fast.training import train, trainer
from lganet_fast.training.objective import Objective
from lganet_fast.training.schedule import rate

SIZE = (32, 32, 32)
SHORT = [
    "train.epochs=1",
    "train.steps_per_epoch=2",
    "train.picture_every=0",
    "train.validate_every=0",
]
OWN = {name.partition("_")[2]: name for name in config.shipped() if "_" in name}


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    """Overrides that read a tiny data set."""
    return [*SHORT, *layouts.write("lpba40", tmp_path_factory.mktemp("brains"), SIZE)]


def log(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


SLOW = ("lganet", "corrmlp", "lganetpp")  # half of the time of all; LGANET_FAST_ALL=1 tries them


@pytest.mark.parametrize("name", models.names())
def test_a_network_trains_and_is_scored_by_its_name(name, brains, tmp_path, monkeypatch):
    if name in SLOW and os.environ.get("LGANET_FAST_ALL") != "1":
        pytest.skip("only with LGANET_FAST_ALL=1")
    monkeypatch.setattr(run, "draw", lambda *_: None)
    settings = [*brains, f"model.name={name}", f"output.folder={tmp_path}/run"]
    settings += ["train.device=cpu", "evaluate.split=val"]
    folder = train(config.load("lpba40_2mm", [*settings, "data.spacing=1"]))
    assert len(log(folder)) == 2
    found = load(folder / "last.safetensors").model
    assert found.name == name
    scored = evaluate(
        config.load("lpba40", settings), folder / "last.safetensors", tmp_path / "scores"
    )
    cases = read_cases(scored / "cases.csv")
    assert len(cases) == 1
    assert all(row["dice"] > 0 for row in cases.values())
    assert found.title in (scored / "tables.md").read_text()


def test_a_configuration_may_name_every_network():
    allowed = get_args(get_type_hints(ModelSection)["name"])
    assert sorted(allowed) == sorted(models.names())


@pytest.mark.parametrize("name", [name for name in models.names() if name in OWN])
def test_every_method_has_its_own_training(name, tmp_path):
    settings = config.load(OWN[name])
    assert settings.model.name == name
    assert settings.train.lr == 1e-4
    more = layouts.write(OWN[name], tmp_path / "data", SIZE)
    assert len(open_split(config.load(OWN[name], more), "train")) > 0


def test_all_ordered_pairs_of_the_training_subjects(brains):
    found = open_split(config.load("lpba40_rdp", brains), "train")
    assert len({case.name for case in found.cases}) == len(found) == 3 * 2
    assert "S01" not in "".join(case.name for case in found.cases)
    valid = open_split(config.load("lpba40_rdp", brains), "val")
    assert [case.name for case in valid.cases] == ["S14_to_S01"]


def own_smoothness(name, height=32, **options):
    """A network, a pair, and what it gives of it with its authors' regulariser, in float64."""
    torch.manual_seed(0)
    network = models.create(name, (32, 16, 16), **options).double().train()
    pair = torch.rand(2, 2, 1, height, 16, 16, dtype=torch.float64)
    flow, roughness = Objective(config.load("oasis_groupmorph").loss).called(network)(*pair)
    assert torch.equal(flow, network(*pair))
    return network, pair, flow, roughness.item()


@pytest.mark.parametrize("options", [{}, {"int_steps": 0}])
def test_voxelmorph_smooths_its_velocity(options):
    network, pair, _, roughness = own_smoothness("voxelmorph", **options)
    velocity = network.velocity(*pair)
    assert velocity.shape[2:] == ((32, 16, 16) if options else (16, 8, 8))
    assert roughness == pytest.approx(2 * gradient_loss(velocity).item(), rel=1e-12)


def test_groupmorph_smooths_what_each_level_adds():
    network, pair, _, roughness = own_smoothness("groupmorph")
    _, added = network.flow_and_steps(*pair)
    assert [x.shape[2] for x in added] == [4, 8, 16, 32]
    assert roughness == pytest.approx(sum(gradient_loss(x).item() for x in added), rel=1e-12)


def test_others_smooth_the_flow():
    _, _, flow, roughness = own_smoothness("pivit")
    assert roughness == pytest.approx(gradient_loss(flow).item(), rel=1e-12)
    assert own_smoothness("pivit", height=30)[2].shape == (2, 3, 30, 16, 16)


def test_the_loss_takes_the_networks_own_smoothness(brains, tmp_path):
    losses = []
    for smooth in ("flow", "own"):
        settings = [*brains, "model.name=voxelmorph", f'loss.smooth="{smooth}"']
        settings += [f"output.folder={tmp_path}/{smooth}", "train.device=cpu"]
        settings += ["train.validate_every=1", "train.lr=1e-2"]
        folder = train(config.load("lpba40", settings))
        losses.append([step["parts"]["smoothness"] for step in log(folder)])
        assert (folder / "best.safetensors").is_file()
    assert losses[0][0] == pytest.approx(0, abs=1e-7)
    assert losses[0][1] != losses[1][1]


def test_schedules_of_the_others():
    own = config.load("lpba40_modet").train
    assert [round(rate(own, e, 0), 8) for e in (0, 1, 29)] == [1e-4, 9.699e-5, 4.68e-6]
    own = config.load("oasis_groupmorph").train
    assert [rate(own, e, 0) for e in (0, 21, 22, 39)] == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5])
    own = config.load("lpba40_pivit").train
    assert rate(own, 999, 0) == 1e-4


def test_a_budget_ends_a_run_and_carries_its_rate(brains, tmp_path, monkeypatch):
    clock = itertools.count(step=0.1)  # a step reads it when it begins and when it ends
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    settings = [
        *(*brains, "model.name=voxelmorph", f"output.folder={tmp_path}/run", "train.epochs=9999"),
        *("train.budget=1.5", "train.decay_from=5000", "train.device=cpu"),
    ]
    folder = train(config.load("lpba40", settings))
    steps = log(folder)
    assert len(steps) in (15, 16)  # 0.1 is not exact
    rates = [step["lr"] for step in steps]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 1e-4
    assert rates[-1] < 6e-5
    before = (folder / "log.jsonl").read_text()
    train(config.load("lpba40", settings), resume=True)
    assert (folder / "log.jsonl").read_text() == before

"""Tables and figures from a made-up data set: the plan, carrying it out, resuming, the result."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import layouts
import pytest
import torch

from lganet_fast import InputError, config
from lganet_fast.cli import build_parser, main
from lganet_fast.evaluation import run as evaluation
from lganet_fast.models import Network, create
from lganet_fast.models.registry import options
from lganet_fast.reproduction import Reproduction, estimate, steps
from lganet_fast.reproduction.steps import BEGUN, MISSING, THERE, duration
from lganet_fast.reproduction.targets import TARGETS
from lganet_fast.training import trainer

SIZE = (32, 32, 32)
ROWS = ["before", "voxelmorph", "pivit"]


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    """Overrides that read a tiny data set of 2 test pairs, at one spacing whatever is asked."""
    found = layouts.write("lpba40", tmp_path_factory.mktemp("brains"), SIZE)
    settings = [x for x in found if not x.startswith("data.validation")]
    return [*settings, "data.validation=0", "data.spacing=1", "train.device=cpu", "train.threads=1"]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(evaluation, "draw", lambda *_: None)


def words(brains, runs, *more):
    settings = [word for setting in brains for word in ("--set", setting)]
    return ["reproduce", "table1", "--runs", str(runs), *settings, *more]


def states(wanted):
    return {(line.step.name, line.step.work.row.name): line.state for line in wanted.plan()}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_row_has_a_configuration_and_a_network(target):
    wanted = Reproduction(target.name, "runs")
    assert target.config in config.shipped()
    for work in wanted.works:
        model = work.config.model
        assert work.folder == Path("runs") / target.config / work.row.name
        if work.row.trained:
            with torch.device("meta"):
                network = create(model.name, (48, 48, 48), **model.arguments(options(model.name)))
            assert work.row.title == network.title or work.row.name.startswith("model")


def test_a_plan_names_what_is_missing_and_how_to_make_it(brains, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(estimate, "convolution_seconds", lambda _: 1e-5)
    assert main(words(brains, tmp_path, "--methods", *ROWS)) == 0
    said = capsys.readouterr().out
    assert "data lpba40: there" in said
    assert "train VoxelMorph: missing, about" in said
    # 300 epochs of 4 pairs of 32^3 voxels
    seconds = 1200 * 32**3 * 1e-5 * estimate.COST["pivit"]
    assert f"train PIViT: missing, {estimate.spoken(seconds)}" in said
    commands = re.findall(r"^    (lganet-fast .*)$", said, re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        args = build_parser().parse_args(shlex.split(command)[1:])
        assert config.load(args.config, args.overrides).data.layout == "lpba40"
    assert list(tmp_path.iterdir()) == []


def test_a_plan_without_data_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("IXI_ROOT", raising=False)
    assert main(["reproduce", "table2", "--runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "data ixi: missing: data.root is '${IXI_ROOT}', but IXI_ROOT is not set" in said
    assert "time unknown without the data" in said
    assert main(["reproduce", "table2", "--runs", str(tmp_path), "--run"]) == 2
    assert "the data of ixi cannot be used" in capsys.readouterr().err


def test_the_small_table_is_made_and_not_made_again(brains, tmp_path, capsys, monkeypatch):
    more = ("--methods", *ROWS, "--budget", "1s")
    assert main(words(brains, tmp_path, *more, "--run")) == 0
    table = (tmp_path / "reproduced" / "table1_1s" / "table.md").read_text()
    assert [line.split(" | ")[0] for line in table.splitlines()[2:5]] == [
        "| Before",
        "| VoxelMorph",
        "| PIViT",
    ]
    assert "Parameters (M)" in table
    assert "| 0.33 |" in table
    for name in ROWS[1:]:
        folder = tmp_path / "lpba40_small_1s" / name
        ended = json.loads((folder / "finished.json").read_text())
        assert ended["seconds"] >= 1
        assert ended["steps"] >= 1
        assert config.load(folder / "config.toml").train.budget == 1
    assert (tmp_path / "reproduced/table1_1s/figures/metrics.png").stat().st_size > 1000
    assert r"\begin{tabular}" in (tmp_path / "reproduced/table1_1s/table.tex").read_text()

    def never(*_, **__):
        raise AssertionError("done again")

    monkeypatch.setattr(steps, "train", never)
    monkeypatch.setattr(steps, "evaluate", never)
    capsys.readouterr()
    assert main(words(brains, tmp_path, *more)) == 0
    assert table in capsys.readouterr().out


def test_it_goes_on_where_it_was_stopped(brains, tmp_path, monkeypatch):
    more = ("train.epochs=1", "train.picture_every=0")
    wanted = Reproduction("table1", tmp_path, ["voxelmorph"], [*brains, *more])
    assert set(states(wanted).values()) == {MISSING}
    real = trainer.Trainer.advance

    def stopped(self, stream, journal, stop):
        real(self, stream, journal, stop)
        return self.schedule.step == 2

    monkeypatch.setattr(trainer.Trainer, "advance", stopped)
    with pytest.raises(KeyboardInterrupt):
        wanted.carry_out(wanted.plan(), True, print)
    assert states(wanted)["train", "voxelmorph"] == BEGUN
    monkeypatch.setattr(trainer.Trainer, "advance", real)
    wanted.carry_out(wanted.plan(), True, print)
    assert set(states(wanted).values()) == {THERE}
    log = (tmp_path / "lpba40/voxelmorph/log.jsonl").read_text()
    assert [json.loads(line)["step"] for line in log.splitlines()] == [1, 2, 3, 4]
    longer = Reproduction("table1", tmp_path, ["voxelmorph"], [*brains, *more, "train.epochs=2"])
    assert states(longer) == {("train", "voxelmorph"): BEGUN, ("evaluate", "voxelmorph"): MISSING}
    other = Reproduction("table1", tmp_path, ["voxelmorph"], [*brains, *more, "loss.window=5"])
    with pytest.raises(InputError, match=r"another run: loss.window was 9, is 5"):
        other.plan()


def test_processes_share_it(brains, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(port), "-m", "--", "lganet_fast"]
    more = ("--methods", "before", "voxelmorph", "--budget", "1s", "--run")
    done = subprocess.run(
        [*command, *words(brains, tmp_path, *more)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[:3000]
    assert done.stdout.count("train VoxelMorph") == 1
    assert "over 2 cases" in (tmp_path / "reproduced/table1_1s/table.md").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["table7"], "name must be one of table1, table2"),
        (["table1", "--methods", "elastix"], "table1 has no method elastix; it has before, syn"),
        (["table2", "--budget", "10m"], "a budget is for tables on LPBA40, table2 is on ixi"),
        (["table1", "--budget", "ten"], "a budget must be a time such as 30s, 10m or 2h"),
    ],
)
def test_what_cannot_be_reproduced_is_refused(more, message, capsys):
    assert main(["reproduce", *more]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert len(printed) < 320


def test_times():
    assert [duration(text) for text in ("30s", "10m", "1.5h")] == [30, 600, 5400]
    for text in ("", "s", "-1s", "nans", "infm", "5d"):
        with pytest.raises(InputError, match="a budget must be a time"):
            duration(text)
    assert estimate.spoken(0.2) == "about 1 s"
    assert estimate.spoken(89) == "about 89 s"
    assert estimate.spoken(600) == "about 10 min"
    assert estimate.spoken(3 * 86400) == "about 3 days"
    assert estimate.spoken(123 * 86400) == "about 120 days"


def test_a_pair_takes_what_those_before_took(brains, tmp_path):
    [work] = Reproduction("table1", tmp_path, ["syn"], brains).works
    step = steps.Evaluation(work)
    assert step.seconds() == pytest.approx(2 * 32**3 * estimate.SYN)
    cases = work.scores / "cases"
    cases.mkdir(parents=True)
    for name, text in (("a", 3), ("b", 5), ("c", 40)):
        (cases / f"{name}.json").write_text(json.dumps({"case": {"seconds": text}}))
    (cases / "d.json").write_text("{")
    assert step.seconds() == 2 * 5


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_trained_row_has_a_cost(target):
    assert {row.name for row in target.rows if row.trained} <= estimate.COST.keys()
    assert all(cost > 0 for cost in estimate.COST.values())


def test_a_plan_runs_no_network(brains, tmp_path, monkeypatch):
    """It would take a minute for all networks."""

    def never(*_, **__):
        raise AssertionError("a network was built")

    monkeypatch.setattr(Network, "__init__", never)
    wanted = Reproduction("table1", tmp_path, settings=brains)
    text = wanted.told(wanted.plan(), "")
    assert text.count("missing, about ") == 22
    assert "total about" in text


def test_a_step_costs_convolutions(brains, tmp_path, monkeypatch):
    assert 0 < estimate.convolution_seconds(torch.device("cpu")) < 1e-3
    monkeypatch.setattr(estimate, "convolution_seconds", lambda _: 1e-9)
    more = ["train.batch=2", "train.accumulate=3"]
    [work] = Reproduction("table6", tmp_path, ["model1"], [*brains, *more]).works
    assert work.step_seconds == pytest.approx(6 * 32**3 * 1e-9 * estimate.COST["model1"])

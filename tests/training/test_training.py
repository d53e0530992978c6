"""Training: what a run writes, and that it goes on exactly where it stopped."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import layouts
import numpy as np
import pytest
import torch

from lganet_fast import config
from lganet_fast.cli import main
from lganet_fast.data import open_split
from lganet_fast.errors import InputError
from lganet_fast.evaluation import evaluate, run
from lganet_fast.evaluation.results import read_cases
from lganet_fast.models.checkpoint import load
from lganet_fast.training import state as states
from lganet_fast.training import train, trainer
from lganet_fast.training.schedule import Schedule, rate, steps_per_epoch

SMALL = [
    "model.lgam=false",
    "model.fifm=false",
    "model.msfm=false",
    "train.epochs=2",
    "train.steps_per_epoch=2",
    "train.picture_every=0",
    "train.threads=1",
    "loss.window=5",
]


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    """Overrides that read a tiny data set."""
    return [*SMALL, *layouts.write("lpba40", tmp_path_factory.mktemp("brains"))]


def options(settings, folder, *more):
    """Words of the command."""
    settings = [*settings, f"output.folder={json.dumps(str(folder))}", *more]
    return [word for setting in settings for word in ("--set", setting)]


def configured(settings, folder, *more, name="lpba40"):
    return config.load(name, [*settings, f"output.folder={json.dumps(str(folder))}", *more])


def lines(folder):
    """The log without what differs from run to run."""
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def losses(folder):
    return [line["loss"] for line in lines(folder) if "loss" in line]


@pytest.fixture(scope="module")
def whole(brains, tmp_path_factory):
    """The folder of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main(["train", "lpba40", "--quiet", *options(brains, folder)]) == 0
    return folder


def test_run_folder(whole, brains):
    assert sorted(path.name for path in whole.iterdir()) == [
        "best.safetensors",
        "config.toml",
        "finished.json",
        "last.pt",
        "last.safetensors",
        "log.jsonl",
    ]
    assert config.load(whole / "config.toml") == configured(brains, whole)
    steps = [line for line in lines(whole) if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert [line["epoch"] for line in steps] == [1, 1, 2, 2]
    for line in steps:
        assert line["loss"] == pytest.approx(sum(line["parts"].values()))
        assert list(line["parts"]) == ["ncc", "smoothness"]
        assert line["lr"] == 1e-4
    scores = [line["validation"] for line in lines(whole) if "validation" in line]
    assert len(scores) == 2
    assert all(0 < score["dice"] < 1 and score["loss"] > 0 for score in scores)
    last, best = (load(whole / f"{name}.safetensors") for name in ("last", "best"))
    assert last.card.command == "lganet-fast train lpba40"
    assert last.card.spacing == "1 x 1 x 1 mm"
    state = states.load(whole / "last.pt")
    assert state["step"] == 4
    assert state["best"] == max(score["dice"] for score in scores)
    moved = [not torch.equal(p, state["network"][n]) for n, p in best.model.named_parameters()]
    assert any(moved) == (scores[0]["dice"] > scores[1]["dice"])
    for name, p in last.model.named_parameters():
        assert torch.equal(p, state["network"][name])


def test_refuses_to_overwrite_a_run_or_to_take_up_another(whole, brains, capsys):
    assert main(["train", "lpba40", *options(brains, whole)]) == 2
    assert "already contains a run: use --resume" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"of another run: train\.beta1 was 0\.99, is 0\.9$"):
        train(configured(brains, whole, "train.beta1=0.9"), resume=True)
    before = lines(whole)
    train(configured(brains, whole, "train.save_every=7"), resume=True)  # done already
    assert lines(whole) == before


def test_resume_refuses_no_run_and_says_what_is_complete(whole, brains, tmp_path, capsys):
    nowhere = tmp_path / "nowhere"
    assert main(["train", "lpba40", "--resume", *options(brains, nowhere)]) == 2
    assert f"{nowhere} contains no run to resume" in capsys.readouterr().err
    assert not nowhere.exists()
    assert main(["train", "lpba40", "--resume", *options(brains, whole)]) == 0
    assert "is complete, with 4 steps" in capsys.readouterr().err


def test_checkpoints_on_time(brains, tmp_path, monkeypatch):
    clock = itertools.count(step=60)  # a step reads it when it begins and when it ends
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    steps = []
    save = trainer.Trainer.save
    monkeypatch.setattr(
        trainer.Trainer, "save", lambda self, j: (steps.append(self.schedule.step), save(self, j))
    )
    more = ("train.epochs=5", "train.steps_per_epoch=1", "train.validate_every=0")
    train(configured(brains, tmp_path / "run", *more, "train.save_minutes=2"))
    assert steps == [2, 4, 5]


@pytest.mark.parametrize("setting", ["train.speed=3", "data.layout=mri", "loss.window=4"])
def test_unknown_options(brains, tmp_path, capsys, setting):
    assert main(["train", "lpba40", *options(brains, tmp_path / "run", setting)]) == 2
    assert setting.partition("=")[0] in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


COMMAND = [sys.executable, "-m", "lganet_fast"]


def start(words, **environment):
    """The command in a process of its own, of the same package as this one's."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment
    here = Path(__file__).parent
    return subprocess.Popen([*words], cwd=here, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_steps(process, folder, count):
    """Until the log of a running command has so many lines."""
    log = folder / "log.jsonl"
    while process.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.01)


KILLS = int(os.environ.get("LGANET_KILLS", "1"))
LONGER = (
    f"train.epochs={KILLS + 1}",
    "train.steps_per_epoch=3",
    "train.save_every=2",
    "train.lr=1e-3",
)


def test_killed_anywhere_and_resumed_it_goes_the_same_way(brains, tmp_path):
    words = ["train", "lpba40", "--quiet"]
    settings = [s for s in brains if s != "model.lgam=false"]  # dropout draws numbers
    train(configured(settings, tmp_path / "whole", *LONGER))
    expected = lines(tmp_path / "whole")
    folder = tmp_path / "killed"
    command = [*COMMAND, *words, *options(settings, folder, *LONGER)]
    chance = random.Random(time.time_ns())
    for _ in range(KILLS):
        begun = ["--resume"] * (folder / "config.toml").exists()
        process = start([*command, *begun])
        have = len(lines(folder)) if (folder / "log.jsonl").exists() else 0
        wait_for_steps(process, folder, min(have + chance.randint(1, 3), len(expected)))
        time.sleep(chance.uniform(0, 1))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        for path in folder.glob("*.safetensors"):
            load(path)
        if (folder / "last.pt").exists():
            states.load(folder / "last.pt")
    assert main([*words, "--resume", *options(settings, folder, *LONGER)]) == 0
    assert lines(folder) == expected
    ends = [states.load(tmp_path / name / "last.pt") for name in ("whole", "killed")]
    for name, value in ends[0]["network"].items():
        assert torch.equal(value, ends[1]["network"][name]), name


def test_asked_to_stop_it_saves_and_says_how_to_go_on(brains, whole, tmp_path):
    folder = tmp_path / "run"
    process = start([*COMMAND, "train", "lpba40", "--quiet", *options(brains, folder)])
    wait_for_steps(process, folder, 1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "stopping after this step" in said
    state = states.load(folder / "last.pt")
    assert f"stopped after step {state['step']} of 4" in said
    assert "--resume" in said
    train(configured(brains, folder), resume=True)
    assert lines(folder) == lines(whole)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_two_processes_are_one_with_twice_the_batch(brains, tmp_path):
    more = ["train.seed=3", "model.dropout=0", "train.epochs=1"]
    more += ["train.lr=2e-5"]  # Adam makes whole steps of gradients that are rounding alone
    more += ["train.steps_per_epoch=3", "data.validation=2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    torchrun += [f"--master-port={free_port()}", "-m", "lganet_fast"]
    words = ["train", "lpba40", "--quiet", *options(brains, tmp_path / "two", *more)]
    process = start([*torchrun, *words], OMP_NUM_THREADS="1")
    train(configured(brains, tmp_path / "one", *more, "train.batch=2"))
    _, said = process.communicate()
    assert process.returncode == 0, said
    one, two = (losses(tmp_path / name) for name in ("one", "two"))
    assert len(one) == 3
    assert len(set(one)) == 3
    assert two == pytest.approx(one, abs=1e-5, rel=0)
    scores = [lines(tmp_path / name)[-1]["validation"] for name in ("one", "two")]
    assert scores[1] == pytest.approx(scores[0], abs=5e-5)  # rounding of other batches, three steps


@pytest.mark.parametrize("name", layouts.WRITERS)
def test_two_steps_on_every_layout_and_an_evaluation(name, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "draw", lambda *words: None)  # the tests of evaluation draw
    settings = [*SMALL, *layouts.write(name, tmp_path / "data"), "train.epochs=1"]
    labels = name not in ("lung_ct", "atlas")
    more = [f"loss.dice={0.5 * labels}", "loss.folding=1", "train.picture_every=1"]
    folder = tmp_path / "run"
    setup = configured(settings, folder, *(more if name == "pairs" else more[:2]), name=name)
    train(setup)
    *steps, last = lines(folder)
    assert [line["step"] for line in steps] == [1, 2]
    assert set(last["validation"]) == ({"loss", "dice"} if name != "lung_ct" else {"loss"})
    assert all(math.isfinite(line["loss"]) for line in steps)
    assert (folder / "best.safetensors").exists()
    if name == "pairs":
        assert (folder / "pictures" / "0001.png").read_bytes().startswith(b"\x89PNG")
    scored = read_cases(evaluate(setup, folder / "best.safetensors") / "cases.csv")
    assert len(scored) == len(open_split(setup, "test"))
    for row in scored.values():
        assert math.isfinite(row["tre_mm" if name == "lung_ct" else "dice"])


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_and_is_kept(brains, tmp_path, monkeypatch, where):
    folder = tmp_path / "run"
    before = trainer.Objective.__call__
    calls = []

    def broken(self, flow, batch):
        loss, parts = before(self, flow, batch)
        calls.append(batch)
        if len(calls) == 2:
            bad = (flow * 0).sum() * math.nan if where == "loss" else (flow * 0).sum().sqrt()
            loss, parts = loss + bad, {**parts, "ncc": parts["ncc"] + bad.detach()}
        return loss, parts

    monkeypatch.setattr(trainer.Objective, "__call__", broken)
    more = ("train.save_every=1", "train.validate_every=0")
    with pytest.raises(InputError, match=f"the {where} of S.*_to_S01 is not finite in step 2"):
        train(configured(brains, folder, *more))
    kept = torch.load(folder / "failure.pt", weights_only=True)
    assert kept["names"] == calls[1].names
    assert kept["step"] == 2
    assert torch.equal(kept["moving"], calls[1].moving)
    assert all(value.isfinite().all() for value in kept["network"].values())
    assert states.load(folder / "last.pt")["step"] == 1
    assert len(losses(folder)) == 1


def test_warm_up():
    section = config.build({"data": {"layout": "pairs"}, "train": {"warm_up": 4}}).train
    shares = [rate(section, 0, step) / section.lr for step in (0, 1, 3, 4, 9)]
    assert shares == pytest.approx([0.25, 0.5, 1, 1, 1])


def test_schedules():
    paper = config.load("lpba40").train
    assert [rate(paper, e, 9) for e in (0, 199, 200)] == [1e-4] * 3
    assert rate(paper, 299, 9) == pytest.approx(1e-6)
    assert rate(paper, 249, 9) == pytest.approx(1e-4 - 49 / 99 * 9.9e-5)
    script = config.load("lpba40_published").train
    assert script.weight_decay == 5e-4
    assert rate(script, 50, 9) == 1e-4
    assert rate(script, script.epochs - 1, 9) == pytest.approx(1e-6)
    steady = config.build({"data": {"layout": "pairs"}, "train": {"epochs": 3}}).train
    assert [rate(steady, e, 9) for e in range(3)] == [1e-4] * 3


def test_where_a_run_stands():
    section = config.build({"data": {"layout": "pairs"}, "train": {"epochs": 4}}).train
    run = Schedule(section, steps_per_epoch(section, 3), step=5)
    assert (run.epoch_steps, run.total, run.epoch) == (3, 12, 1)
    assert run.standing == (5, 12, "steps")
    assert not run.due(2)  # an epoch is not over
    run.advance(0.5)
    assert run.due(2)
    assert not run.due(3)
    assert not run.due(0)
    run.step = run.total
    assert run.done
    assert run.due(3)  # at the end in any case
    limited = dataclasses.replace(section, budget=2.0, steps_per_epoch=9)
    run = Schedule(limited, steps_per_epoch(limited, 3), spent=1.5)
    assert (run.epoch_steps, run.done) == (9, False)
    assert run.standing == (1, 2, "seconds")
    assert run.rate() == rate(limited, 3, 0)
    run.advance(0.5)
    assert run.done


def test_state_of_every_generator_comes_back():
    device = torch.device("cpu")
    state = states.random_state(device)
    draw = lambda: (random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item())  # noqa: E731
    first = [draw() for _ in range(3)]
    states.set_random_state(state, device)
    assert [draw() for _ in range(3)] == first


def test_refuses_what_is_no_state(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"cannot read .*last\.pt as a run to resume"):
        states.load(tmp_path / "last.pt")
    torch.save({"format": "other"}, tmp_path / "last.pt")
    with pytest.raises(InputError, match="is not in the format"):
        states.load(tmp_path / "last.pt")


def test_half_precision_and_recomputing(brains, tmp_path):
    found = {}
    for name in ("float32", "bf16"):
        more = (f"train.precision={name}", "train.epochs=1", "model.checkpoint=blocks")
        train(configured(brains, tmp_path / name, *more))
        found[name] = losses(tmp_path / name)
    assert found["bf16"] == pytest.approx(found["float32"], abs=0.02)
    assert found["bf16"] != found["float32"]


def test_sizes_of_a_batch_must_agree():
    from lganet_fast.data import Sample
    from lganet_fast.training.batch import collate

    images = [np.zeros((4, 4, n), np.float32) for n in (4, 5)]
    samples = [Sample(f"p{x.shape[2]}", x, x, np.eye(4)) for x in images]
    with pytest.raises(InputError, match=r"one size, got 4x4x4, 4x4x5 in p4, p5"):
        collate(samples, torch.device("cpu"))

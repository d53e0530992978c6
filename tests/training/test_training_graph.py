"""Training by graphs: the steps are those without; here captures record operators on the CPU."""

from __future__ import annotations

import layouts
import pytest
import torch
from fake_graphs import fake_cuda  # noqa: F401
from test_training import SMALL, configured, lines
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lganet_fast.errors import InputError
from lganet_fast.models import LGANetPlusPlus, graphed
from lganet_fast.training import graph, run_folder, train, trainer
from lganet_fast.training import state as states
from lganet_fast.training.graph import Graphed

SHAPE = (1, 1, 4, 5, 6)
CPU = torch.device("cpu")


@pytest.fixture
def here(cuda, monkeypatch):
    """Graphs on the CPU."""
    monkeypatch.setattr(graph, "DEVICES", ("cpu",))
    monkeypatch.setattr(graphed, "DEVICES", ())
    return cuda


class Small(nn.Module):
    """Two layers with dropout between."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 3, 1)
        self.drop = nn.Dropout()

    def forward(self, moving, fixed):
        return self.last(self.drop(self.first(moving)) * fixed).float()


def precision(enabled=False):
    return torch.autocast("cpu", torch.bfloat16, enabled, cache_enabled=False)


def pair(seed, shape=SHAPE):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, *shape, generator=generator).unbind()


def steps(model, network, graphs, count=4, accumulate=2, shapes=(SHAPE,)):
    """Losses of some steps, and the weights behind them."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    found = []
    for step in range(count):
        for part in range(accumulate):
            seed = step * accumulate + part
            flow = model(*pair(seed, shapes[seed % len(shapes)]))
            loss = flow.square().mean() / accumulate
            (loss * 8).backward()
            found.append(loss.item())
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.grad.div_(8)
        optimizer.step()
        optimizer.zero_grad(set_to_none=not graphs)
    return found, [p.detach().clone() for p in network.parameters()]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shapes", [(SHAPE,), (SHAPE, (1, 1, 3, 3, 3))])
def test_steps_are_those_without_graphs(here, half, shapes):
    network = Small()
    eager = graph.Stage(network, precision(half))
    wanted = steps(eager, network, False, shapes=shapes)
    network = Small()
    model = Graphed(network, precision(half), SHAPE, CPU)
    before = here.captures, here.replays
    found = steps(model, network, True, shapes=shapes)
    assert before == (2, 0)
    assert (here.captures, here.replays) == (2, 16 // len(shapes))
    assert found[0] == wanted[0]
    assert all(map(torch.equal, found[1], wanted[1]))


def test_processes_average_what_graphs_find(here):
    """DDP around a graphed network, of one process here."""
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        found = []
        for graphs in (False, True):
            network = Small()
            inner = graph.Stage(network, precision())
            if graphs:
                inner = Graphed(network, precision(), SHAPE, CPU)
            found.append(steps(DistributedDataParallel(inner), network, graphs))
    finally:
        torch.distributed.destroy_process_group()
    assert found[0][0] == found[1][0]
    assert all(map(torch.equal, found[0][1], found[1][1]))
    assert here.replays == 16


def test_making_graphs_uses_up_no_random_number(here):
    network = Small()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    Graphed(network, precision(), SHAPE, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_between_steps_has_its_own_way(here):
    network = Small()
    model = Graphed(network, precision(), SHAPE, CPU)
    network.eval()
    with torch.no_grad():
        assert torch.equal(network(*pair(0)), network(*pair(0)))
    network.train()
    replays = here.replays
    assert not torch.equal(model(*pair(0)).clone(), model(*pair(0)))
    assert here.replays == replays + 2


def test_blocks_that_drop_numbers_are_not_computed_again():
    for dropout, kept in ((0.1, ["deblock4.swin.0", "deblock4.swin.1"]), (0.0, [])):
        network = LGANetPlusPlus((48, 48, 48), checkpoint="blocks", dropout=dropout)
        blocks = {n: m for n, m in network.named_modules() if isinstance(m, graph.Block)}
        graph.keep_random_blocks(network)
        assert [name for name, block in blocks.items() if not block.recompute] == kept
        assert len(blocks) > len(kept)


def test_a_network_whose_blocks_are_computed_again(here):
    """Forward and backward of LGANet++ without dropout, with `checkpoint="blocks"`."""
    found = []
    for graphs in (False, True):
        torch.manual_seed(0)
        network = LGANetPlusPlus(
            (48, 48, 48), fifm=False, msfm=False, dropout=0.0, checkpoint="blocks"
        )
        model = Graphed(network, precision(), (1, 1, 48, 48, 48), CPU) if graphs else network
        flow = model(*pair(0, (1, 1, 48, 48, 48)))
        flow.square().mean().backward()
        found.append([flow.detach(), *(p.grad for p in network.parameters())])
    for x, y in zip(*found, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-7)
    assert (here.captures, here.replays) == (2, 2)


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    settings = layouts.write("lpba40", tmp_path_factory.mktemp("brains"))
    return [*SMALL, *settings, "train.accumulate=2", "train.device=cpu"]


@pytest.fixture
def small(monkeypatch):
    """Runs are of a small network that is not saved as LGANet++."""
    monkeypatch.setattr(trainer, "build_network", lambda config, size: Small())
    monkeypatch.setattr(run_folder, "save_network", lambda *words: None)


def test_a_run_on_the_cpu_is_refused(brains, tmp_path):
    with pytest.raises(InputError, match=r"train\.graph needs a CUDA device, this run is on cpu"):
        train(configured(brains, tmp_path / "run", "train.graph=true"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [[], ["train.precision=bf16", "loss.dice=0.5"]])
def test_a_run_by_graphs_is_the_run_without(here, small, brains, tmp_path, more):
    for name in ("false", "true"):
        train(configured(brains, tmp_path / name, f"train.graph={name}", *more))
    assert (here.captures, here.replays) == (2, 16)
    wanted, found = lines(tmp_path / "false"), lines(tmp_path / "true")
    assert len(wanted) == 6
    assert found[0]["loss"] == wanted[0]["loss"]
    for x, y in zip(found, wanted, strict=True):
        assert x.get("loss") == pytest.approx(y.get("loss"), abs=1e-4)
        assert x.get("validation") == pytest.approx(y.get("validation"), abs=1e-4)


def test_resumed_it_goes_the_same_way(here, small, brains, tmp_path, monkeypatch):
    settings = [*brains, "train.graph=true", "train.save_every=1"]
    train(configured(settings, tmp_path / "whole"))
    save = trainer.Trainer.save

    def save_and_stop(self, journal):
        save(self, journal)
        if self.schedule.step == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer.Trainer, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train(configured(settings, tmp_path / "parts"))
    train(configured(settings, tmp_path / "parts"), resume=True)
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    ends = [states.load(tmp_path / name / "last.pt") for name in ("whole", "parts")]
    assert ends[0]["step"] == ends[1]["step"] == 4
    for name, value in ends[0]["network"].items():
        assert torch.equal(value, ends[1]["network"][name]), name

"""Graphs on a card: evaluation and training steps are those that run operator by operator."""

from __future__ import annotations

import gc
import threading

import pytest
import torch
from networks import SIZE, blobs, lean_network, made_up_state
from test_graphed import Small, calls, eager, pair
from test_graphed_off import Talking

from lganet_fast.models import LGANetPlusPlus
from lganet_fast.ops import warp
from lganet_fast.training.graph import Graphed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CARD = torch.device("cuda")


def replaying(monkeypatch):
    """A list that grows with every replay."""
    replays, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(
        torch.cuda.CUDAGraph, "replay", lambda self: (replays.append(self), replay(self))[1]
    )
    return replays


@pytest.mark.parametrize("half", [None, torch.bfloat16, torch.float16])
def test_replays_are_the_eager_forward_bit_for_bit(monkeypatch, half):
    replays = replaying(monkeypatch)
    network = lean_network(made_up_state()).to(CARD)
    pairs = [
        [x.to(CARD) for x in blobs(size, seed)] for size in (SIZE, (44, 48, 56)) for seed in (0, 1)
    ]
    for change in (False, True):
        if change:
            network.load_state_dict(made_up_state(1))
        with torch.no_grad(), torch.autocast("cuda", half, half is not None):
            wanted = [network.run(*two) for two in pairs]
            rounds = [[network(*two) for two in pairs] for _ in range(3)]
        for found in rounds:
            torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    assert len(replays) == 20  # all but the first calls of two shapes with two weights, of 24


def test_threads_and_their_streams_take_turns():
    network = lean_network(made_up_state()).to(CARD)
    pairs = [[x.to(CARD) for x in blobs(seed=seed)] for seed in range(3)]
    wanted = [eager(network, *two) for two in pairs]
    torch.cuda.synchronize()
    wrong = []

    def work(k):
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(10):
                if not torch.equal(calls(network, *pairs[k], count=1)[0], wanted[k]):
                    wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_broken_capture_leaves_nothing_behind(monkeypatch):
    module = Talking().to(CARD)
    inputs = [x.to(CARD) for x in pair((64, 64, 64))]
    wanted = eager(module, *inputs)
    calls(Small().to(CARD), *inputs)  # leaves the workspaces that its stream has from then on
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    with pytest.warns(UserWarning, match="runs without a CUDA graph"):
        found = calls(module, *inputs, count=4)
    assert all(torch.equal(x, wanted) for x in found)
    assert torch.rand(3, device=CARD).max() <= 1  # its generator is not left capturing
    del found
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() - before < 2**20
    replays = replaying(monkeypatch)
    other = Small().to(CARD)
    assert torch.equal(calls(other, *inputs)[-1], eager(other, *inputs))
    assert len(replays) == 2


def test_memory_goes_with_the_network():
    inputs = [x.to(CARD) for x in blobs()]
    calls(lean_network(made_up_state()).to(CARD), *inputs)  # workspaces of the side stream
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    network = lean_network(made_up_state()).to(CARD)
    calls(network, *inputs)
    torch.cuda.synchronize()
    del network
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() - before < 2**26


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("blocks", [None, "blocks"])
def test_steps_are_those_without_graphs(blocks, dropout):
    shape = (1, 1, *SIZE)
    found = []
    for graphs in (False, True):
        torch.manual_seed(0)
        network = LGANetPlusPlus(SIZE, dropout=dropout, checkpoint=blocks).to(CARD)
        autocast = torch.autocast("cuda", torch.bfloat16, False, cache_enabled=False)
        model = Graphed(network, autocast, shape, CARD) if graphs else network
        optimizer = torch.optim.Adam(network.parameters(), 1e-5)
        torch.manual_seed(1)
        losses = []
        for step in range(5):
            moving, fixed = (x.to(CARD) for x in blobs(seed=step))
            loss = (warp(moving, model(moving, fixed)) - fixed).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=not graphs)
            losses.append(loss.item())
        found.append(losses)
    assert len(set(found[0])) == 5
    assert found[1][0] == found[0][0]
    assert found[1] == pytest.approx(found[0], rel=1e-4)

"""What keeps a forward from running as a graph, and that it then runs all the same."""

from __future__ import annotations

import os
from contextlib import nullcontext

import pytest
import torch
from fake_graphs import fake_cuda  # noqa: F401
from test_graphed import Small, calls, eager, pair
from torch import nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lganet_fast.models import graphed
from lganet_fast.runtime import capture


def hooked(module):
    module.last.register_forward_hook(lambda *_: None)


def prehooked(module):
    module.register_forward_pre_hook(lambda *_: None)


def in_training(module):
    module.layers[1].train()


def needing_gradients(module):
    return torch.enable_grad()


def with_a_forward_of_its_own(module):
    module.last.forward = lambda x: nn.Linear.forward(module.last, x)


def turned_off(module):
    os.environ["LGANET_FAST_GRAPH"] = "0"


def anomalous(module):
    return torch.autograd.detect_anomaly(check_nan=False)


class Counter(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Watcher(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


OBSTACLES = [
    hooked,
    prehooked,
    in_training,
    needing_gradients,
    with_a_forward_of_its_own,
    turned_off,
    anomalous,
    lambda module: Counter(),
    lambda module: Watcher(),
]


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_a_graph_would_hide_turns_it_off(cuda, monkeypatch, obstacle):
    monkeypatch.delenv("LGANET_FAST_GRAPH", raising=False)
    module = Small()
    calls(module, *pair())
    before = cuda.captures, cuda.replays
    with torch.no_grad(), obstacle(module) or nullcontext():
        for _ in range(3):
            assert torch.equal(module(*pair()), module.run(*pair())) or obstacle is in_training
    os.environ.pop("LGANET_FAST_GRAPH", None)
    assert (cuda.captures, cuda.replays) == before


def test_transforms_and_captures_of_others_turn_it_off(cuda):
    module = Small()
    calls(module, *pair())
    before = cuda.captures, cuda.replays
    with torch.no_grad():
        moving, fixed = (x[None].expand(2, *x.shape) for x in pair())
        together = torch.func.vmap(module)(moving, fixed)
        assert torch.allclose(together[1], module.run(*pair()))
        state = {name: 2 * x for name, x in module.named_parameters()}
        torch.func.functional_call(module, state, pair())
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(pair()[0], pair()[1])
            out = forward_ad.unpack_dual(module(dual, pair()[1]))
            assert out.tangent is not None
        with cuda.graph(cuda.CUDAGraph()):
            module(*pair())
        module.training = True
        calls(module, *pair())
    assert (cuda.captures, cuda.replays) == (before[0] + 1, before[1])


class Talking(Small):
    """A module whose forward waits for the device."""

    def run(self, moving, fixed):
        return super().run(moving, fixed) * (2 if moving.sum().item() > 0 else 1)


@pytest.mark.parametrize("unjoined", [False, True])
def test_what_cannot_be_captured_stays_eager_with_one_warning(cuda, unjoined):
    module = Small() if unjoined else Talking()
    cuda.unjoined = unjoined
    wanted = eager(module, *pair())
    with pytest.warns(UserWarning, match="runs without a CUDA graph: .*stream") as warned:
        found = calls(module, *pair(), count=5) + calls(module, *pair((3, 3, 3)))
    assert len(warned) == 1
    assert warned[0].filename == calls.__code__.co_filename  # that of the call
    assert all(torch.equal(x, wanted) for x in found[:5])
    assert cuda.replays == 0
    # what CUDA could not end is ended and released, and its graph lives on
    assert len(cuda.ended) == len(cuda.released) == len(capture.UNFINISHED) == 2 * unjoined
    assert cuda.handles == 2  # no handle is used again without a graph that has it
    assert all(x is graphed.Seen.BROKEN for x in module.graphs.known.values())
    cuda.unjoined = False
    assert torch.equal(calls(module, *pair((4, 4, 4)))[-1], eager(module, *pair((4, 4, 4))))
    assert cuda.replays == (2 if unjoined else 0)


def test_an_error_of_the_forward_is_the_callers(cuda):
    module = Small()
    wrong = pair()[0], torch.zeros(1, 2, 4, 5, 6)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="must match the size"):
            calls(module, *wrong, count=1)
    assert cuda.captures == 0


def test_without_room_it_stays_eager_and_waits_for_some(cuda):
    module = Small()
    cuda.free = 2 * 4 * 5 * 6 - 1
    calls(module, *pair())
    assert cuda.captures == 0
    cuda.free += 1
    calls(module, *pair())
    assert cuda.captures == 1
    calls(module.double(), *pair(dtype=torch.float64))
    assert cuda.captures == 1

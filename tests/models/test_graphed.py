"""The evaluation forward as a graph: when it is one, and that it computes the same.

Captures record operators on the CPU (see `fake_graphs`); `test_graphed_gpu` makes real ones.
"""

from __future__ import annotations

import copy
import gc
import io
import pickle
import threading
import weakref
from contextlib import contextmanager, nullcontext

import pytest
import torch
from fake_graphs import fake_cuda  # noqa: F401
from networks import blobs, lean_network, made_up_state
from torch import nn

from lganet_fast.models import graphed
from lganet_fast.models.graphed import Graphs
from lganet_fast.ops import use_backend


class Small(nn.Module):
    """A module of some layers that runs by graphs."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Dropout(0.5))
        self.last = nn.Linear(4, 3)
        self.graphs = Graphs(1)
        self.eval()

    def forward(self, moving, fixed):
        return self.graphs(self, self.run, moving, fixed)

    def run(self, moving, fixed):
        x = self.layers(moving) * fixed
        return self.last(x.relu_().movedim(1, -1)).movedim(-1, 1)


def pair(size=(4, 5, 6), seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(2, 1, 1, *size, generator=generator, dtype=torch.float64).to(dtype))


def calls(module, *inputs, count=3):
    with torch.no_grad():
        return [module(*inputs) for _ in range(count)]


def eager(module, *inputs):
    with torch.no_grad():
        return module.run(*inputs)


def test_the_third_call_and_all_after_it_are_replays(cuda):
    module = Small()
    wanted = eager(module, *pair())
    for call, (captures, replays) in enumerate([(0, 0), (1, 1), (1, 2), (1, 3)]):
        assert torch.equal(calls(module, *pair(), count=1)[0], wanted), call
        assert (cuda.captures, cuda.replays) == (captures, replays)


def test_replays_take_new_inputs_and_results_share_no_memory(cuda):
    module = Small()
    calls(module, *pair())
    pairs = [pair(seed=seed) for seed in range(4)]
    inputs = [[x.clone() for x in two] for two in pairs]
    found = [calls(module, *two, count=1)[0] for two in inputs]
    assert cuda.captures == 1
    for two, before, result in zip(inputs, pairs, found, strict=True):
        assert torch.equal(result, eager(module, *before))
        assert all(map(torch.equal, two, before))
    assert len({x.untyped_storage().data_ptr() for x in found}) == len(found)
    found[0].zero_()
    assert torch.equal(calls(module, *pairs[1], count=1)[0], found[1])


@pytest.mark.parametrize("way", ["written", "loaded", "assigned", "moved", "exchanged", "added"])
def test_other_weights_drop_the_graphs(cuda, way):
    module = Small()
    calls(module, *pair())
    if way == "written":
        with torch.no_grad():
            module.last.weight.mul_(-2)
    elif way == "loaded":
        module.load_state_dict(Small().state_dict())
    elif way == "assigned":
        module.load_state_dict(Small().state_dict(), assign=True)
    elif way == "moved":
        module.double().float()
    elif way == "exchanged":
        module.last = nn.Linear(4, 3).eval()
    else:
        module.layers.append(nn.Conv3d(4, 4, 1).eval())
    wanted = eager(module, *pair())
    for result in calls(module, *pair()):
        assert torch.equal(result, wanted)
    assert (cuda.captures, cuda.replays) == (2, 4)
    assert len(module.graphs.known) == 1


def test_shapes_and_types_alternate(cuda):
    module = Small()
    pairs = [pair(), pair((6, 5, 4), seed=1), pair(seed=2)]
    for _ in range(4):
        for two in pairs:
            assert torch.equal(calls(module, *two, count=1)[0], eager(module, *two))
    assert cuda.captures == 2
    assert cuda.handles == 1  # they share a pool


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@contextmanager
def reduced():
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = False


def test_all_that_decides_which_kernels_run_makes_a_kind():
    flags = torch.backends.cudnn.flags
    states = [
        nullcontext(),
        torch.no_grad(),
        torch.autocast("cpu", torch.bfloat16),
        torch.autocast("cpu", torch.float16),
        use_backend("reference"),
        deterministic(),
        reduced(),
        flags(enabled=False, allow_tf32=True),
        flags(enabled=True, allow_tf32=False),
        flags(enabled=True, allow_tf32=True, benchmark=True),
        flags(enabled=True, allow_tf32=True, deterministic=True),
    ]
    kinds = {graphed.kind_of(pair(seed=3))}
    for state in states:
        with state:
            kinds.add(graphed.kind_of(pair()))
    assert len(kinds) == len(states)
    kinds |= {graphed.kind_of(pair((4, 4, 4))), graphed.kind_of(pair(dtype=torch.float64))}
    assert len(kinds) == len(states) + 2


def test_the_kinds_asked_for_last_are_kept(cuda):
    module = Small()
    sizes = [(2, 2, n) for n in range(1, graphed.KEPT + 2)]
    for size in sizes:
        calls(module, *pair(size), count=2)
    assert cuda.captures == len(sizes)
    calls(module, *pair(sizes[1]), count=1)
    assert cuda.replays == len(sizes) + 1
    calls(module, *pair(sizes[0]), count=1)  # was dropped, and now drops the third
    calls(module, *pair(sizes[1]), count=1)
    assert (cuda.captures, cuda.replays) == (len(sizes), len(sizes) + 2)
    assert len(module.graphs.known) == graphed.KEPT
    waited = module.graphs.done.waited
    calls(module, *pair(sizes[2]), count=1)
    assert module.graphs.done.waited > waited  # for replays that a dropped graph may be in
    assert (cuda.captures, cuda.replays) == (len(sizes), len(sizes) + 2)


def test_a_default_device_does_not_turn_it_off(cuda):
    module = Small()
    with torch.device("cpu"):
        calls(module, *pair())
    assert cuda.captures == 1


def test_gradients_may_be_on_where_nothing_needs_one(cuda):
    module = Small().requires_grad_(False)
    wanted = module.run(*pair())
    assert all(torch.equal(module(*pair()), wanted) for _ in range(3))
    assert cuda.captures == 1
    for x in module.parameters():
        x.requires_grad_(True)
    module(*pair()).sum().backward()
    assert module.last.weight.grad is not None


def test_inference_mode(cuda):
    module = Small()
    with torch.inference_mode():
        found = [module(*pair(seed=seed)) for seed in (0, 0, 0, 1)]
    assert all(x.is_inference() for x in found)
    assert torch.equal(found[2], eager(module, *pair()))
    assert torch.equal(calls(module, *pair(seed=1), count=1)[0], found[3])
    with torch.inference_mode():
        module = Small()
    calls(module, *pair())
    assert cuda.captures == 1


def test_autocast_leaves_nothing_behind(cuda):
    """Neither a cast weight made before the capture nor one made in it is used beyond it."""
    module = Small()
    wanted = {}
    for dtype in (torch.bfloat16, torch.float32):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, dtype == torch.bfloat16):
            wanted[dtype] = module.run(*pair())
    assert not torch.equal(wanted[torch.bfloat16].float(), wanted[torch.float32])
    for dtype in (torch.bfloat16, torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, dtype == torch.bfloat16):
            for result in calls(module, *pair()):
                assert torch.equal(result, wanted[dtype])
    assert cuda.captures == 2


def test_copies_have_no_graphs(cuda):
    module = Small()
    calls(module, *pair())
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    others = [
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file, weights_only=False),
    ]
    for other in others:
        assert other.graphs is not module.graphs
        assert not other.graphs.known
        with torch.no_grad():
            other.last.weight.zero_()
        assert torch.equal(calls(other, *pair())[-1], eager(other, *pair()))
    assert cuda.captures == 1 + len(others)
    assert torch.equal(calls(module, *pair(), count=1)[0], eager(module, *pair()))


def test_a_network_is_freed_with_its_last_reference(cuda):
    module = Small()
    calls(module, *pair())
    gone = weakref.ref(module), weakref.ref(next(iter(module.graphs.known.values())))
    gc.disable()
    del module
    gc.enable()
    assert [ref() for ref in gone] == [None, None]


def test_threads_take_turns(cuda):
    module = Small()
    pairs = [pair(size, seed) for seed, size in enumerate([(4, 5, 6), (4, 5, 6), (6, 5, 4)])]
    wanted = [eager(module, *two) for two in pairs]
    wrong = []

    def work(k):
        for _ in range(30):
            if not torch.equal(calls(module, *pairs[k], count=1)[0], wanted[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k % 3,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cuda.captures == 2


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_compiled_and_exported_it_is_one_graph_of_operators(cuda):
    module = Small()
    calls(module, *pair())
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(module, fullgraph=True, backend="eager")
        exported = torch.export.export(module, pair()).module()
        traced = torch.jit.trace(module, pair(), check_trace=False)
        for other in (compiled, exported, traced):
            torch.testing.assert_close(other(*pair(seed=1)), module.run(*pair(seed=1)))
    assert (cuda.captures, cuda.replays) == (1, 2)


def test_the_network_replayed_is_itself(cuda):
    network = lean_network(made_up_state())
    first, second = (blobs((44, 48, 41), seed) for seed in (0, 1))
    calls(network, *first, count=2)
    assert torch.equal(calls(network, *second, count=1)[0], eager(network, *second))
    network.load_state_dict(made_up_state(1))
    assert torch.equal(calls(network, *second, count=1)[0], eager(network, *second))
    assert (cuda.captures, cuda.replays) == (1, 2)

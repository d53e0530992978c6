"""The network with the Triton kernels as operators: what is traced, and what it computes."""

from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from networks import SIZE, blobs, lean_network, made_up_state
from torch.utils._python_dispatch import TorchDispatchMode

from lganet_fast.models import LGANetPlusPlus
from lganet_fast.ops import reference, triton

FORWARD = {"attention": 9, "correlate": 4}
NORMED = 26


def attention(q, k, v, seed, scale, counts, dropout_p, volume):
    """What `kernels.attention.forward` is to compute, on any device."""
    out = reference.attention(q, k, v, scale, tuple(counts), dropout_p, tuple(volume))
    return out, q.new_zeros(q.shape[:2], dtype=torch.float32)


def correlate(x, y, out, radius):
    """What `kernels.correlate.forward` is to compute."""
    out.copy_(reference.correlate(x, y, radius))


def moments(x):
    """What `kernels.norm_act.moments` is to compute."""
    var = x.var((2, 3, 4), correction=0)
    return torch.stack([x.mean((2, 3, 4)), 1 / (var + 1e-5).sqrt()])


def apply(x, moments, slope, out):
    """What `kernels.norm_act.apply` is to compute."""
    mean, scale = moments[..., None, None, None]
    out.copy_(torch.nn.functional.leaky_relu((x - mean) * scale, slope))


STAND_INS = {
    "attention": SimpleNamespace(forward=attention),
    "correlate": SimpleNamespace(forward=correlate),
    "norm_act": SimpleNamespace(moments=moments, apply=apply),
}


def ours(names):
    """How often each of the kernels' operators is named."""
    names = [str(name).split(".") for name in names]
    return Counter(name[1] for name in names if name[0] == "lganet_fast_triton")


@pytest.fixture
def everywhere(monkeypatch):
    """Let any device have the kernels' operators."""
    refusal = triton.refusal
    monkeypatch.setattr(
        triton,
        "refusal",
        lambda name, *a, **call: None if name in STAND_INS else refusal(name, *a, **call),
    )


def test_compiled_on_the_cpu(monkeypatch, request):
    """One graph, with the values of the eager path; the reference does the kernels' work."""
    network, images, graphs = lean_network(made_up_state()), blobs(), []
    with torch.no_grad():
        right = network(*images)
    request.getfixturevalue("everywhere")
    monkeypatch.setattr(triton, "kernels", STAND_INS.get)
    compiled = torch.compile(
        network, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph
    )
    with torch.no_grad():
        found = compiled(*images)
    torch.testing.assert_close(found, right, rtol=0, atol=1e-4)
    (graph,) = graphs
    assert ours(node.target for node in graph.graph.nodes) == FORWARD | {"norm_act_": NORMED}


class Called(TorchDispatchMode):
    """The names of the operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        self.names.append(operator)
        return operator(*arguments, **keywords or {})


def test_on_meta_tensors(everywhere, monkeypatch):
    """Forward and backward of a training step, by shapes alone; autocast knows no meta device."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    with torch.device("meta"):
        network = LGANetPlusPlus(SIZE, dropout=0.1).train()
        images = [torch.empty(1, 1, *SIZE) for _ in range(2)]
    with Called() as called:
        flow = network(*images)
        flow.sum().backward()
    assert flow.shape == (1, 3, *SIZE)
    assert all(p.grad.shape == p.shape for p in network.parameters())
    forward = FORWARD | {"norm_act": NORMED}
    gradients = {f"{name}_backward": count for name, count in forward.items()}
    assert ours(called.names) == forward | gradients


@pytest.mark.skipif(not triton.INSTALLED, reason="triton is not installed")
@pytest.mark.parametrize(
    ("dtype", "training", "most"),
    [(torch.float32, False, 17), (torch.float32, True, 50), (torch.bfloat16, True, 44)],
)
def test_kernels_compiled_on_first_use(dtype, training, most, monkeypatch):
    """The maps of two images of 144 x 176 x 144; docs/kernels.md says how many."""
    from lganet_fast.kernels import attention, correlate

    compiled = set()

    def count(kernel, _, **arguments):
        kind = (kernel.base_fn.__name__, *(arguments.get(name) for name in kernel.keys))
        configs = kernel.early_config_prune(kernel.configs, {}, **arguments)
        # the two gradients of a correlation are one kind; the winner of one is compiled for both
        mirrored = arguments.get("MIRRORED", False)
        compiled.update((kind, mirrored, str(c)) for c in configs[: 1 if mirrored else None])

    for module in (attention, correlate):
        monkeypatch.setattr(module, "launch", count)
    for width, counts in ((64, (1, 1, 1)), (64, (27, 1, 1)), (8, (1, 1, 1))):
        q, v = (torch.empty(1, 7128, w, dtype=dtype, device="meta") for w in (width, 64))
        volume = (counts[0], 1, 7128 // counts[0])
        out, lse = attention.forward(q, q, v, None, 1.0, counts, 0.0, volume)
        if training:
            attention.backward(v, q, q, v, out, lse, None, 1.0, counts, 0.0, volume)
    for level, channels in enumerate((8, 16, 32, 64)):
        sides = [side >> level for side in (144, 176, 144)]
        x = torch.empty(1, channels, *sides, dtype=dtype, device="meta")
        out = x.new_empty(1, 27, *sides)
        correlate.forward(x, x, out, 1)
        for mirrored in (False, True) if training else ():
            correlate.gradient(out, x, x, 1, mirrored)
    assert len(compiled) == most

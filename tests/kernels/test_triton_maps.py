"""The kernels around the convolutions by Triton: when they are taken, and on a GPU what they find.

What they compute is checked in the interpreter; see interpreted/check_maps.py.
"""

import importlib

import pytest
import torch
from ops_checks import CHANNELS_LAST
from test_triton_attention import GPU_TOLERANCES, cuda, needs_gpu  # noqa: F401

from lganet_fast import ops


def maps(make, channels=8, dtype=torch.float32):
    """A call of each operation on maps of (4, 6, 4) voxels that `make` makes of a shape."""

    def volume(channels, dtype=dtype):
        return make(1, channels, 4, 6, 4).to(dtype).to(memory_format=CHANNELS_LAST)

    x, flow, tokens = volume(channels), volume(3, torch.float32), make(1, 96, 16).to(dtype)
    width = 3 * channels
    layers = [(make(64, 16), make(64)), (make(16, 64), make(16))]
    layers = [(w.to(dtype), b.to(dtype)) for w, b in layers]
    gates = [make(width // 4, width), make(width, width // 4)]
    return {
        "pool": (x, "max", {"norm": (make(2, 1, channels), 0.1), "keep": True}),
        "resize": (x, (8, 12, 8), {"factor": 2.0}),
        "warp_sum": ([x, x], [flow, flow], x, {}),
        "weigh": ([x, x, x], volume(3), *(w.to(dtype) for w in gates), {}),
        "feed_forward": (tokens, tokens, layers, layers[1][1:] * 2, True, {}),
    }


NAMES = tuple(maps(torch.zeros))


@pytest.fixture
def called(monkeypatch):
    """The names of the operations that take their Triton path."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = []
    for name in NAMES:
        module = importlib.import_module(f"lganet_fast.ops.{name}")
        run = module.fused
        monkeypatch.setattr(
            module, "fused", lambda *a, name=name, run=run: found.append(name) or run(*a)
        )
    return found


@pytest.mark.parametrize("name", NAMES)
def test_taken_on_cuda(cuda, called, name):  # noqa: F811
    *arguments, options = maps(cuda)[name]
    getattr(ops, name)(*arguments, **options)
    assert called == [name]


@pytest.mark.parametrize("name", NAMES)
def test_not_taken_for_a_gradient(cuda, called, name):  # noqa: F811
    with torch.no_grad():
        *arguments, options = maps(lambda *s: cuda(*s, requires_grad=True))[name]
    leaves = [x.requires_grad_() for x in torch.utils._pytree.tree_leaves(arguments)
              if isinstance(x, torch.Tensor)]  # fmt: skip
    out = getattr(ops, name)(*arguments, **options)
    assert called == []
    assert (out[0] if isinstance(out, tuple) else out).requires_grad
    with torch.no_grad():
        getattr(ops, name)(*arguments, **options)
    assert called == [name]
    assert leaves
    with pytest.raises(RuntimeError, match=f"cannot run {name} on cuda: it has no gradient"):
        getattr(ops, name)(*arguments, backend="triton", **options)


@pytest.mark.parametrize(
    ("name", "call", "reason"),
    [
        ("pool", {"channels": 65}, "it takes up to 64 channels, got 65"),
        ("resize", {"longest": 2**15 + 1}, "it takes sides of up to 32768 voxels, got 32769"),
        ("warp_sum", {"voxels": 2**31}, "it takes fewer than 2^31 voxels, got 2147483648"),
        ("feed_forward", {"width": 129}, "tokens may be up to 128 wide, got 129"),
        ("feed_forward", {"dtype": torch.float64}, "it computes in float32, got float64"),
        ("weigh", {"gradient": True}, "it has no gradient"),
    ],
)
def test_explained(cuda, monkeypatch, name, call, reason):  # noqa: F811
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ops.explain(name, "cuda").startswith(f"{name} on cuda: triton")
    assert f"(triton: {reason}" in ops.explain(name, "cuda", **call)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", GPU_TOLERANCES)
@pytest.mark.parametrize("channels", [8, 12, 32])
@pytest.mark.parametrize("name", NAMES)
def test_on_the_gpu(name, channels, dtype):
    torch.manual_seed(0)
    *arguments, options = maps(lambda *s: torch.randn(*s, device="cuda"), channels, dtype)[name]
    found = getattr(ops, name)(*arguments, backend="triton", **options)
    exact = getattr(ops, name)(*double(arguments), backend="reference", **options)
    for x, y in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, exact)), strict=True):
        assert (x.double() - y).abs().max() <= GPU_TOLERANCES[dtype] * y.abs().max()


def double(arguments):
    """The same in float64."""
    return torch.utils._pytree.tree_map(
        lambda x: x.double() if isinstance(x, torch.Tensor) else x, arguments
    )

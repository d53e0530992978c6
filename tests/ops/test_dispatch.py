"""Which path an operation takes, and how it is chosen."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from ops_checks import uniform
from torch._dynamo.testing import CompileCounter

from lganet_fast import ops
from lganet_fast.cli.actions import diagnosis
from lganet_fast.ops import (
    OPERATIONS,
    choose_backend,
    convolve_on_cuda,
    dispatch,
    explain,
    native,
    triton,
    tuned,
    use_backend,
)

VARIABLE = "LGANET_FAST_BACKEND"


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def call(operation, **options):
    flow, tokens = uniform(1, 3, 3, 3, 3), uniform(1, 6, 2)
    arguments = {
        "integrate": (flow,),
        "attention": (tokens, tokens, tokens, 1.0),
        "neighbour_attention": (flow, flow, uniform(1, 3, 3, 3)),
        "gradient_loss": (flow,),
        "resize": (flow, (2, 4, 5)),
        "invert": (flow, flow, flow),
        "norm_act": (flow,),
        "convolve": (flow.float(), torch.ones(2, 3, 3, 3, 3), torch.ones(2)),
    }
    arguments |= {
        "pool": (uniform(1, 3, 2, 2, 2), "max"),
        "warp_sum": ([flow], [flow]),
        "weigh": ([flow, flow], flow[:, :2], uniform(2, 6), uniform(6, 2)),
        "feed_forward": (tokens, None, [], (torch.ones(2).double(), torch.ones(2).double())),
    }
    return getattr(ops, operation)(*arguments.get(operation, (flow, flow)), **options)


def test_operations_are_public():
    assert set(OPERATIONS) <= set(ops.__all__)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_auto_never_fails_and_explains(operation, device):
    choice = choose_backend(operation, device)
    assert choice.backend in ("reference", "native", "triton")
    assert choice.backend not in choice.refused
    assert choice == choose_backend(operation, device, "auto")
    line = explain(operation, device)
    assert line.startswith(f"{operation} on {device}: {choice.backend}")
    assert "\n" not in line
    assert all(f"{name}: {why}" in line for name, why in choice.refused.items())


@pytest.mark.skipif(not native.LOADED, reason=f"no operators: {native.REASON}")
def test_a_device_that_nothing_is_compiled_for_has_the_reference(monkeypatch):
    why = "it needs compute capability 8.0, got 7.5"
    monkeypatch.setitem(native.KERNELS, "cuda", frozenset({"warp"}))
    assert choose_backend("warp", "cuda").backend == "native"
    monkeypatch.setattr(triton, "too_old", lambda: why)
    choice = choose_backend("warp", "cuda")
    assert choice.backend == "reference"
    assert choice.refused["native"] == why
    assert "native" not in choose_backend("attention", "cuda").refused  # it is PyTorch's


@pytest.mark.skipif(not native.LOADED, reason=f"no operators: {native.REASON}")
@pytest.mark.parametrize(
    ("archs", "device", "runs"),
    [
        (["9.0", "9.0+PTX"], (8, 0), False),
        (["8.6", "8.9+PTX"], (8, 0), False),
        (["8.0", "9.0"], (12, 0), False),
        (["8.0", "9.0+PTX"], (12, 0), True),
        (["8.0", "9.0+PTX"], (8, 9), True),
        (["8.9+PTX"], (9, 0), True),
        (["10.0+PTX"], (9, 0), False),
        (None, (9, 0), True),  # of a build that left no note of it
    ],
    ids=str,
)
def test_a_library_without_code_for_the_card_is_passed_over(monkeypatch, archs, device, runs):
    card = SimpleNamespace(major=device[0], minor=device[1], name="a card", total_memory=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (0, 0))
    monkeypatch.setitem(native.KERNELS, "cuda", frozenset({"warp", "convolve"}))
    monkeypatch.setitem(native.NOTE, "archs", archs)
    why = None if runs else f"it was compiled for {', '.join(archs)}, got {device[0]}.{device[1]}"
    choice = choose_backend("warp", "cuda")
    assert choice.backend == ("native" if runs else "reference")
    assert choice.refused.get("native") == why
    shown = diagnosis.diagnose()
    assert shown["extension"]["cuda"] == why
    (warp,) = (x for x in shown["operations"] if (x["operation"], x["device"]) == ("warp", "cuda"))
    assert (warp["backend"], warp["refused"].get("native")) == (choice.backend, why)
    tuned_to_it = tuned.Entry("native", 0, 1.0)
    assert convolve_on_cuda.runs(tuned_to_it, torch.float16) == runs
    if not runs:
        with pytest.raises(RuntimeError, match=r"native.*cannot run warp on cuda: it was compiled"):
            choose_backend("warp", "cuda", "native")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_reference_can_always_be_named(operation):
    assert choose_backend(operation, "cpu", "reference").backend == "reference"
    torch.testing.assert_close(call(operation, backend="reference"), call(operation))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_unavailable_backend(operation):
    refused = choose_backend(operation, "cpu").refused
    assert "triton" in refused
    for name, why in refused.items():
        with pytest.raises(RuntimeError) as error:
            call(operation, backend=name)
        assert str(error.value) == f"backend '{name}' cannot run {operation} on cpu: {why}"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_unknown_backend(operation):
    message = "backend must be one of auto, reference, native, triton, got 'cuda'"
    with pytest.raises(ValueError, match=message):
        call(operation, backend="cuda")


def test_scope_covers_the_block_and_nests():
    with use_backend("triton"):
        with pytest.raises(RuntimeError, match="backend 'triton' cannot run warp"):
            call("warp")
        with use_backend("reference"):
            call("warp")
        with pytest.raises(RuntimeError, match="backend 'triton'"):
            call("warp")
    call("warp")


def test_scope_ends_with_an_error():
    with pytest.raises(ZeroDivisionError), use_backend("triton"):
        raise ZeroDivisionError
    call("warp")


def test_scope_refuses_an_unknown_name():
    with pytest.raises(ValueError, match="got 'fast'"), use_backend("fast"):
        pass


@pytest.mark.parametrize("operation", OPERATIONS)
def test_variable(operation, monkeypatch):
    monkeypatch.setenv(VARIABLE, "triton")
    with pytest.raises(RuntimeError, match=f"backend 'triton' cannot run {operation}"):
        call(operation)
    monkeypatch.setenv(VARIABLE, "quick")
    with pytest.raises(ValueError, match="got 'quick'"):
        call(operation)
    monkeypatch.setenv(VARIABLE, "")
    call(operation)


def test_precedence(monkeypatch):
    """The call comes before the scope, the scope before the variable."""
    monkeypatch.setenv(VARIABLE, "triton")
    assert choose_backend("warp", "cpu", "reference").backend == "reference"
    with use_backend("reference"):
        assert choose_backend("warp", "cpu").backend == "reference"
        with pytest.raises(RuntimeError, match="'triton'"):
            choose_backend("warp", "cpu", "triton")
    with use_backend("auto"):
        choose_backend("warp", "cpu")


def test_compiled_call_follows_the_scope():
    compiled = torch.compile(lambda f: ops.integrate(f, 1), fullgraph=True, backend="aot_eager")
    flow = uniform(1, 3, 2, 2, 2)
    with use_backend("reference"):
        torch.testing.assert_close(compiled(flow), ops.integrate(flow, 1))
    with use_backend("triton"), pytest.raises(Exception, match=r"backend 'triton'|Observed exc"):
        compiled(flow)


def test_compiled_scope_is_compiled_once_for_all_calls(monkeypatch):
    """In a thread that has asked for no backend yet."""
    monkeypatch.setattr(dispatch, "_scope", dispatch.Scope())

    def in_scope(flow):
        with use_backend("reference"):
            return ops.integrate(flow, 1)

    graphs = CompileCounter()
    compiled = torch.compile(in_scope, fullgraph=True, backend=graphs)
    flow = uniform(1, 3, 2, 2, 2)
    for _ in range(3):
        torch.testing.assert_close(compiled(flow), in_scope(flow), rtol=0, atol=0)
    assert graphs.frame_count == 1

"""What is kept of weights, and when it is made again."""

import gc
import weakref

import pytest
import torch
from torch import nn

from lganet_fast.ops import derived
from lganet_fast.ops.derived import computed_anew

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CALLS = []


def doubled(weight, *others, factor=2):
    """The sum times a factor, and a note that it was computed."""
    CALLS.append(factor)
    assert not torch.is_grad_enabled()
    return factor * sum(others, weight)


@pytest.fixture(autouse=True)
def _fresh():
    CALLS.clear()


def test_kept_until_a_weight_changes():
    one, other = torch.ones(3, requires_grad=True), torch.ones(3)
    first = derived(doubled, one, other)
    assert torch.equal(first, torch.full((3,), 4.0))
    assert derived(doubled, one, other) is first
    other.add_(1)
    assert derived(doubled, one, other)[0] == 6
    with torch.no_grad():
        one.copy_(torch.zeros(3))
    assert derived(doubled, one, other)[0] == 4
    assert len(CALLS) == 3


def test_other_memory_and_types_are_noticed():
    weight = torch.nn.Parameter(torch.ones(3))
    derived(doubled, weight)
    weight.data = torch.full((3,), 5.0)  # as Module.to does
    assert derived(doubled, weight)[0] == 10
    weight.data = weight.data.double()
    assert derived(doubled, weight).dtype == torch.float64


def test_options_and_functions_are_told_apart():
    weight = torch.ones(3)
    assert derived(doubled, weight, factor=3)[0] == 3
    assert derived(doubled, weight)[0] == 2
    assert derived(torch.neg, weight)[0] == -1


def test_goes_with_the_weight():
    weight = torch.ones(3)
    kept = weakref.ref(derived(doubled, weight))
    assert kept() is not None
    del weight
    gc.collect()
    assert kept() is None


def test_weights_whose_changes_cannot_be_told():
    with torch.inference_mode():
        weight = torch.ones(3)
        assert derived(doubled, weight)[0] == 2
        weight.add_(1)
        assert derived(doubled, weight)[0] == 4


@pytest.mark.parametrize("how", [{"foreach": False}, {"foreach": True}, {"fused": True}])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_a_step_of_any_optimiser_is_a_change(kind, how):
    weight = nn.Parameter(torch.ones(3))
    optimizer = kind([weight], lr=0.1, **how)
    for _ in range(3):
        (weight**2).sum().backward()
        before = derived(doubled, weight)
        optimizer.step()
        assert torch.equal(derived(doubled, weight), 2 * weight)
        assert not torch.equal(derived(doubled, weight), before)
        assert derived(doubled, weight) is derived(doubled, weight)


def test_computed_anew_where_that_is_asked_for():
    weight = nn.Parameter(torch.ones(3))
    kept = derived(doubled, weight)
    with computed_anew():
        assert derived(doubled, weight) is not kept
    assert derived(doubled, weight) is kept


@pytest.mark.gpu
@needs_gpu
def test_another_stream_waits_for_what_is_kept():
    weight, side = torch.ones(3, device="cuda"), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(10**8)
        derived(doubled, weight)
    assert torch.equal(derived(doubled, weight), torch.full((3,), 2.0, device="cuda"))
    assert len(CALLS) == 1


@pytest.mark.gpu
@needs_gpu
def test_what_a_capture_computes_is_not_kept():
    weight, graph = torch.ones(3, device="cuda"), torch.cuda.CUDAGraph()
    with torch.no_grad():
        doubled(weight)
    with torch.no_grad(), torch.cuda.graph(graph):
        captured = derived(doubled, weight)
    kept = derived(doubled, weight)
    assert kept.data_ptr() != captured.data_ptr()
    weight.add_(1)
    graph.replay()
    assert torch.equal(captured, 2 * weight)

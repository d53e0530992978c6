"""Some hundred random calls of the operations; `python -m tests.fuzz.operators` tries more."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from fuzz import operators
from fuzz.calls import MAKERS, draw
from ops_checks import needs_native, threads

from lganet_fast import ops


@pytest.fixture(autouse=True)
def as_many_threads_as_before():
    with threads(1):
        yield


@needs_native
def test_both_backends_accept_refuse_and_find_the_same():
    table = operators.fuzz(500, seed=1, quiet=True)
    total = sum(table.values(), Counter())
    assert {name: total[name] for name in operators.FAULTS} == dict.fromkeys(operators.FAULTS, 0)
    assert total["refused"] > 50
    assert total["equal"] > 350
    assert set(table) >= {maker.__name__ for maker in MAKERS}


def test_every_operation_is_drawn():
    assert {maker.__name__ for maker in MAKERS} == set(ops.OPERATIONS)


def test_some_calls_have_work_for_several_threads():
    calls = [draw(np.random.default_rng((1, turn))) for turn in range(1000)]
    assert {call.threads for call in calls} == {1, 2, 3}
    large = [
        call.threads
        for call in calls
        if any(
            x.dim() == 5 and x.shape[2:].numel() > 3 * 8192 for x in operators.leaves(call.given)
        )
    ]
    assert 5 <= len(large) <= 50
    assert sum(count > 1 for count in large) > 3


@needs_native
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda out: 1.01 * out, "value"),
        (lambda out: out + out.detach() - out.detach().clone(), None),
        (lambda out: out.detach() + 1.1 * (out - out.detach()), "gradient"),
        (lambda out: out.double(), "value"),
        (lambda out: out[..., :0].sum() / 0, "value"),
    ],
)
def test_a_fault_is_found(change, fault, monkeypatch):
    given = {"x": torch.randn(1, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))}

    def run(x):
        out = ops.norm_act(x, 1.0)
        return change(out) if ops.dispatch.requested_backend() == "native" else out

    call = operators.Call("correlate", run, given, set())
    assert operators.trial(call, True) == (fault or "equal")


@needs_native
def test_other_words_or_another_class_are_found():
    def run(x, fault):
        native = ops.dispatch.requested_backend() == "native"
        raise (TypeError if native and fault == "class" else ValueError)(
            "x" if native and fault == "words" else "y"
        )

    for fault, wanted in (("class", "acceptance"), ("words", "message"), ("", "refused")):
        given = {"x": torch.zeros(1), "fault": fault}
        assert operators.trial(operators.Call("warp", run, given, set()), False) == wanted

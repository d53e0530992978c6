"""Steps that are recorded and replayed do what they do launch by launch."""

import pytest
import torch
from tape import record

from lganet_fast.runtime import steps
from lganet_fast.runtime.steps import WARM, Repeated


def count_up(x):
    def step():
        x.add_(torch.ones_like(x)).mul_(2)

    return step


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_replayed_as_launched(calls):
    plain, replayed = torch.zeros(3), torch.zeros(3)
    first, second = Repeated(count_up(plain), None), Repeated(count_up(replayed), record)
    for _ in range(calls):
        first()
        second()
    assert torch.equal(plain, replayed)


def test_recorded_once_and_after_the_first_calls():
    made = []

    def recorder(step):
        made.append(step)
        return step

    step = Repeated(count_up(torch.zeros(1)), recorder)
    for n in range(4):
        step()
        assert len(made) == (n >= WARM)


def test_goes_on_where_it_cannot_be_recorded(recwarn):
    def recorder(step):
        raise RuntimeError("operation not permitted when stream is capturing")

    x, y = torch.zeros(3), torch.zeros(3)
    step, plain = Repeated(count_up(x), recorder), count_up(y)
    for _ in range(3):
        step()
        plain()
    assert torch.equal(x, y)
    assert not recwarn.list


def test_where_there_is_a_recorder(monkeypatch):
    monkeypatch.delenv("LGANET_FAST_GRAPH", raising=False)
    assert steps.recorder_for(torch.device("cpu")) is None
    assert steps.recorder_for(torch.device("cuda")) is not None
    monkeypatch.setenv("LGANET_FAST_GRAPH", "0")
    assert steps.recorder_for(torch.device("cuda")) is None

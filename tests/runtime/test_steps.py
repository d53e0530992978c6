"""Steps that are recorded and replayed do what they do launch by launch."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lganet_fast.runtime import steps
from lganet_fast.runtime.steps import WARM, Repeated


def tensors_in(value):
    """The tensors of an argument."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [x for part in value for x in tensors_in(part)] if isinstance(value, list) else []


class Tape(TorchDispatchMode):
    """Keeps every operator with the tensors that it read and wrote, as a CUDA graph does."""

    def __init__(self):
        super().__init__()
        self.calls, self.before = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.before += [(x, x.clone()) for x in tensors_in(value)]
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.calls.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def undo(self):
        """Put back what was written: recording a step does not do it."""
        for x, value in reversed(self.before):
            x.copy_(value)

    @torch.no_grad()
    def replay(self):
        """Run everything again, from and into the same memory."""
        for func, args, kwargs, out in self.calls:
            new = func(*args, **kwargs)
            for old, value in zip(self.flat(out), self.flat(new), strict=True):
                if old.data_ptr() != value.data_ptr():
                    old.copy_(value)

    @staticmethod
    def flat(out):
        found = out if isinstance(out, (tuple, list)) else [out]
        return [x for x in found if isinstance(x, torch.Tensor)]


def record(step):
    """A recorder for the CPU."""
    with Tape() as tape:
        step()
    tape.undo()
    return tape.replay


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
    assert steps.recorder_for(torch.device("cpu")) is None
    assert steps.recorder_for(torch.device("cuda")) is not None
    monkeypatch.setenv("LGANET_FAST_GRAPH", "0")
    assert steps.recorder_for(torch.device("cuda")) is None

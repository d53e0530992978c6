"""Operators recorded on the CPU and repeated in the same memory, like a CUDA graph."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def tensors_in(value):
    """The tensors of an argument."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [x for part in value for x in tensors_in(part)] if isinstance(value, list) else []


class Tape(TorchDispatchMode):
    """Records every operator with the tensors that it reads and writes, like a CUDA graph."""

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
        """Restore the tensors: recording a CUDA graph does not change them."""
        for x, value in reversed(self.before):
            x.copy_(value)

    @torch.no_grad()
    def replay(self):
        """Repeat all operators in the same memory."""
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

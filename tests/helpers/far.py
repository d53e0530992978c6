"""A device without values: PyTorch's "meta" device in place of a CUDA device.

Its tensors have shapes but no values, so any read of a value fails, except those that `Watch`
allows and counts: copies to the CPU, and the number of true elements of a mask.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lganet_fast.ops import native

META = torch.device("meta")
CUDA_OPERATIONS = ("warp", "compose", "integrate", "local_ncc", "invert")  # compiled for CUDA
NO_LAUNCH = {
    *("empty", "empty_like", "empty_strided", "new_empty", "detach", "lift_fresh"),
    *("_unsafe_view", "_reshape_alias", "promote_types", "device"),
}
FOUND = 5  # true elements of every mask

needs_operators = pytest.mark.skipif(not native.LOADED, reason=f"no operators: {native.REASON}")


@pytest.fixture
def far(monkeypatch):
    """Operations choose on "meta" the paths of "cuda" with everything compiled."""
    monkeypatch.setitem(native.KERNELS, "meta", frozenset(CUDA_OPERATIONS))
    return META


class Watch(TorchDispatchMode):
    """Counts launches on the device, copies to it, and waits for it.

    Values copied back are ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.sent = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        tensors = [x for part in args for x in (part if isinstance(part, list) else [part])]
        there = [x for x in tensors if isinstance(x, torch.Tensor) and x.device == META]
        if name == "_to_copy" and there and kwargs.get("device", META) != META:
            self.waits["copy"] += 1
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if name == "nonzero" and there:
            self.waits[name] += 1
            return args[0].new_empty(FOUND, args[0].dim(), dtype=torch.int64)
        if name in ("_local_scalar_dense", "is_nonzero", "equal") and there:
            raise AssertionError(f"{name} waits for the device")
        out = func(*args, **kwargs)
        first = out[0] if isinstance(out, (tuple, list)) and out else out
        if isinstance(first, torch.Tensor):
            if name == "_to_copy" and first.device == META and not there:
                assert kwargs.get("non_blocking"), "the copy waits for the device"
                self.sent += 1
            elif first.device == META and not func.is_view and name not in NO_LAUNCH:
                self.launches[name] += 1
        elif there:
            self.launches[name] += 1
        return out

"""The rates of this machine for copies and for matrix products."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from .implementations import no_bfloat16
from .timing import wait


@dataclass(frozen=True)
class Rates:
    """Bytes read and written per second, and multiplications and additions per second."""

    bytes: float
    operations: float

    def floor(self, moved: float, operations: float) -> float:
        """The minimum of seconds for such work."""
        return max(moved / self.bytes, operations / self.operations)


@cache
def rates(device: str, dtype: torch.dtype) -> Rates:
    """Measured rates: the best of a few copies and of a few products, too large for the caches.

    A type that the device emulates is multiplied as float32, as in the operations; float32 on CUDA
    as TF32, as in PyTorch's convolutions.
    """
    dtype = torch.float32 if no_bfloat16(device) else dtype
    count, side = (2**25, 1536) if device == "cpu" else (2**29, 8192)
    source = torch.zeros(count, device=device)
    target = torch.empty_like(source)
    copy = best(lambda: target.copy_(source), device)
    a = torch.ones(side, side, device=device, dtype=dtype)
    matmul = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
    multiply = best(lambda: torch.mm(a, a), device)
    matmul.fp32_precision = before
    return Rates(2 * source.nbytes / copy, 2 * side**3 / multiply)


def best(call: Callable[[], object], device: str, rounds: int = 5) -> float:
    """The minimum of seconds of several calls, after one that is not timed."""
    call()
    found = []
    for _ in range(rounds):
        wait(device)
        started = time.perf_counter()
        call()
        wait(device)
        found.append(time.perf_counter() - started)
    return min(found)

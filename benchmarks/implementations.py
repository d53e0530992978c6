"""Ways shared by several cases: the package's backends, and torch.compile of the reference."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from lganet_fast.ops import BACKENDS
from lganet_fast.ops.dispatch import refusals
from lganet_fast.runtime import hardware

from .case import Call, Size, Way

BF16 = ("AVX-512 BF16", "AMX BF16", "BF16")


def always(call: Call) -> Way:
    """A way with the same function for every size, type and device."""
    return Way(lambda size, dtype, device: call)


def backends(operation: str, call: Call, compile: bool = False) -> dict[str, Way]:
    """The backends of the package. call: takes a backend.

    compile: add torch.compile of the reference, whose first call is slow.
    """
    found = {
        name: Way(
            lambda size, dtype, device, name=name: partial(call, backend=name),  # type: ignore[misc]
            lambda device, name=name: refusals(operation, device).get(name),  # type: ignore[misc]
        )
        for name in BACKENDS[1:]
    }
    if compile:
        found["compiled"] = compiled(lambda size, dtype, device: partial(call, backend="reference"))
    return found


def beside(published: Way, operation: str, call: Call, main: bool) -> dict[str, Way]:
    """The published way, then ours.

    main: add the reference and torch.compile of it, which are slow and measured at one size.
    """
    found = backends(operation, call, compile=main)
    if not main:
        del found["reference"]
    return {"published": published, **found}


def compiled(build: Callable[[Size, torch.dtype, str], Call]) -> Way:
    """torch.compile of another way."""

    def start(size: Size, dtype: torch.dtype, device: str) -> Call:
        torch.compiler.reset()
        call: Any = torch.compile(build(size, dtype, device), dynamic=False)
        return call

    return Way(start, no_compilation, slow_start=True)


def no_compilation(device: str) -> str | None:
    """Why torch.compile cannot run on the device, or None."""
    if device == "cpu":
        found = any(shutil.which(name) for name in ("c++", "g++", "clang++"))
        return None if found else "torch.compile needs a C++ compiler, none was found"
    return None if hardware.package_version("triton") else "torch.compile needs triton"


def no_bfloat16(device: str) -> str | None:
    """Why bfloat16 would be emulated on the device, or None."""
    if device != "cpu" or any((hardware.simd() or {}).get(name) for name in BF16):
        return None
    return "this processor has no bfloat16 instructions"

"""The Triton kernels, where they can run.

Triton itself is imported by the first call that needs it: on the CPU nothing does.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import torch

KERNELS = ("attention", "correlate")
INSTALLED = importlib.util.find_spec("triton") is not None


def kernels(operation: str) -> ModuleType:
    """The module of an operation's kernels and what launches them."""
    return importlib.import_module(f"lganet_fast.kernels.{operation}")


def refusal(operation: str, device: str) -> str | None:
    """Why no Triton kernel can run `operation` on `device`, or None where one can."""
    if operation not in KERNELS:
        return "it has no Triton kernel"
    if device != "cuda":
        return "it needs a CUDA device"
    if not INSTALLED:
        return "triton is not installed"
    if not torch.compiler.is_compiling() and torch.cuda.is_available():
        capability = torch.cuda.get_device_capability()
        if capability < (8, 0):
            return f"it needs compute capability 8.0, got {capability[0]}.{capability[1]}"
    return None

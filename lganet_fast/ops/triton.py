"""The Triton kernels, and the calls that they support.

The first call that needs Triton imports it: on the CPU no call does.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .operations import PATHS
from .torch_func import transforming

KERNELS = tuple(name for name, paths in PATHS.items() if paths.triton)
INSTALLED = importlib.util.find_spec("triton") is not None


def kernels(operation: str) -> ModuleType:
    """The module of an operation's kernels and what launches them."""
    return importlib.import_module(f"lganet_fast.kernels.{operation}")


def refusal(operation: str, device: str, **call: Any) -> str | None:
    """Why no Triton kernel can run `operation` on `device`, or None if one can.

    call: properties of the call, see `unfit`.
    """
    if operation not in KERNELS:
        return "it has no Triton kernel"
    if device != "cuda":
        return "it needs a CUDA device"
    if not INSTALLED:
        return "triton is not installed"
    if transforming():
        return "it does not support torch.func's transforms"
    return too_old() or unfit(**call)


def gradient_asked(*tensors: Tensor | None) -> bool:
    """Whether a gradient to any of the tensors may be requested."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def slower(
    operation: str, device: str, *, windows: int = 0, dtype: torch.dtype | None = None, **_: Any
) -> str | None:
    """Why "auto" leaves a call to PyTorch's own kernel, or None.

    windows: how many, 0 where that is not known; dtype: of tokens. Measured on an H200, 7128 tokens
    64 wide in one window: PyTorch's takes 0.74 ms in float32 and 0.08 ms in bfloat16, this one
    1.5 ms and 0.20 ms; the gradient in float32 1.8 ms against 9.4 ms.
    """
    if operation != "attention" or device != "cuda":
        return None
    if dtype == torch.float32:
        return "PyTorch's own is faster in float32"
    return "PyTorch's own is faster over one window" if windows == 1 else None


def too_old() -> str | None:
    """What the current device lacks; None if there is none, so that calls can be traced."""
    if not torch.cuda.is_available():
        return None
    # of the functions that say it, the one that torch.compile can trace
    device = torch.cuda.get_device_properties()
    if device.major >= 8:
        return None
    return f"it needs compute capability 8.0, got {device.major}.{device.minor}"


def unfit(
    *,
    dtype: torch.dtype | None = None,
    width: int = 1,
    windows: int = 0,
    channels: int = 1,
    radius: int = 1,
    voxels: int = 1,
    longest: int = 1,
    gradient: bool = False,
) -> str | None:
    """What the kernels are not made for: in attention's tokens, in the maps to correlate.

    dtype and width: of tokens, in any number of windows; channels: of maps, with the radius of the
    offsets; voxels: of either, in one item of the batch; longest: side of a volume that is resized;
    gradient: one is asked for of what has none.
    """
    limits = (
        (gradient, "it has no gradient"),
        (dtype == torch.float64, "it computes in float32, got float64"),
        (width > 128, f"tokens may be up to 128 wide, got {width}"),
        (radius > 2, f"it takes a radius of up to 2, got {radius}"),
        (channels > 64, f"it takes up to 64 channels, got {channels}"),
        (longest > 2**15, f"it takes sides of up to 32768 voxels, got {longest}"),
        (voxels >= 2**31, f"it takes fewer than 2^31 voxels, got {voxels}"),
    )
    return next((reason for exceeded, reason in limits if exceeded), None)

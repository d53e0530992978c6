"""The compiled operators, if this installation has them.

Importing the extension registers `torch.ops.lganet_fast.*`; each operation's file registers the
shape of its result and its gradient.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import triton
from .operations import PATHS, Paths
from .torch_func import no_double_backward, transformable

COMPILED = tuple(name for name, paths in PATHS.items() if paths.compiled == "extension")


def load() -> str | None:
    """Load the extension; returns why it cannot be used, or None."""
    try:
        importlib.import_module("lganet_fast._native")
    except ImportError as error:
        return NOTE.get("native") or str(error).splitlines()[0]
    return None


def read_note() -> dict[str, Any]:
    """The build's note: for "native" and "cuda", why they were not compiled, or None.

    "archs": the compute capabilities of the CUDA code, the last with "+PTX".
    """
    note = Path(__file__).parent.parent / "_build.json"
    return json.loads(note.read_text()) if note.exists() else {}


def kernels(device: str) -> frozenset[str]:
    """The operations that the loaded extension has for a kind of device."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    own = {"convolve": "convolve_maps"} if device == "cuda" else {}
    names = {name: own.get(name, name) for name in COMPILED if LOADED}
    there = {name: op for name, op in names.items() if hasattr(torch.ops.lganet_fast, op)}
    return frozenset(
        name for name, op in there.items() if has(f"lganet_fast::{op}", device.upper())
    )


NOTE = read_note()
REASON = load()
LOADED = REASON is None
KERNELS = {device: kernels(device) for device in ("cpu", "cuda")}


def missing(device: str) -> str | None:
    """Why the extension has nothing for a kind of device; None if it has something."""
    if REASON is not None:
        return REASON
    if KERNELS.get(device):
        return no_code() if device == "cuda" else None
    return NOTE.get(device) or f"it was compiled without operators for {device}"


def refusal(operation: str, device: str) -> str | None:
    """Why the compiled path cannot run `operation` on `device`, or None if it can."""
    compiled = PATHS.get(operation, Paths()).compiled
    if compiled == "pytorch":
        return None
    if REASON is not None:
        return REASON
    if compiled is None:
        return "it has no compiled kernel"
    operation = operation if compiled == "extension" else compiled
    if operation in KERNELS.get(device, ()):
        return (triton.too_old() or no_code()) if device == "cuda" else None
    return missing(device) or f"it has no compiled kernel for {device}"


def no_code() -> str | None:
    """Why the compiled code does not run on the current CUDA device; None if there is none.

    Machine code runs on devices of its major version, from its minor one on; PTX is translated by
    the driver for any later device.
    """
    archs = NOTE.get("archs")
    if not archs or not torch.cuda.is_available():
        return None
    device = torch.cuda.get_device_properties()  # which torch.compile can trace
    for arch in archs:
        major, minor = map(int, arch.removesuffix("+PTX").split("."))
        later = arch.endswith("+PTX") and (device.major, device.minor) >= (major, minor)
        if later or (device.major == major and device.minor >= minor):
            return None
    built = ", ".join(archs)
    return f"it was compiled for {built}, got {device.major}.{device.minor}"


def deterministic() -> bool:
    """Whether results must repeat bit for bit: on CUDA sums are then of whole numbers."""
    return torch.are_deterministic_algorithms_enabled()


def operator(
    name: str,
    backward: Callable[..., Any] = no_double_backward,
    setup_context: Callable[..., None] | None = None,
    run: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """The operator `lganet_fast::<name>`, its gradient registered for autograd and torch.func.

    Without a `backward`, differentiating it is an error instead of a wrong zero. run: calls it, if
    its arguments must be prepared.
    """
    torch.library.register_autograd(f"lganet_fast::{name}", backward, setup_context=setup_context)
    called = run or getattr(torch.ops.lganet_fast, name)
    return transformable(called, setup_context or keep_nothing, backward, name)


def keep_nothing(*_: Any) -> None:
    """The `remember` of a backward without a derivative."""

"""Choosing the implementation: one pure function decides and gives the reasons.

Order of precedence: the call's `backend=`, the innermost `use_backend(...)`, the environment
variable LGANET_FAST_BACKEND, then "auto", which never fails: it takes the fastest path that
supports the call and falls back to the reference.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from . import native, triton

BACKENDS = ("auto", "reference", "native", "triton")


class Scope(threading.local):
    """The backend of `use_backend` in this thread; unlike a ContextVar, torch.compile traces it."""

    def __init__(self) -> None:
        self.name: str | None = None  # in each thread: what is compiled asks whether it is there


_scope = Scope()


class Choice(NamedTuple):
    """The path that runs, and the reason for each faster path that does not."""

    backend: str
    refused: dict[str, str]


def requested_backend(backend: str | None = None) -> str:
    """The requested backend: of the call, else the scope, else the environment, else "auto"."""
    name = backend or _scope.name or os.environ.get("LGANET_FAST_BACKEND") or "auto"
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Run every operation inside the `with` block on one backend.

    Raises ValueError for a name other than "auto", "reference", "native", "triton".
    """
    before, _scope.name = _scope.name, requested_backend(backend)
    try:
        yield
    finally:
        _scope.name = before


def refusals(operation: str, device: str, **call: Any) -> dict[str, str]:
    """Faster backends that cannot run `operation` on `device`, with the reason.

    call: properties of the call for the Triton kernels, see `triton.unfit`.
    """
    reasons = {}
    if (reason := triton.refusal(operation, device, **call)) is not None:
        reasons["triton"] = reason
    if (reason := native.refusal(operation, device)) is not None:
        reasons["native"] = reason
    return reasons


def choose_backend(operation: str, device: str, backend: str | None = None, **call: Any) -> Choice:
    """Choose the path for one of `ops.OPERATIONS` on "cpu" or "cuda"; `call` as in `refusals`.

    Raises ValueError for an unknown backend, and RuntimeError where a named one cannot run.
    """
    asked = requested_backend(backend)
    refused = refusals(operation, device, **call)
    if asked in refused:
        raise RuntimeError(
            f"backend {asked!r} cannot run {operation} on {device}: {refused[asked]}"
        )
    if asked != "auto":
        return Choice(asked, refused)
    if (operation, device) == ("convolve", "cuda"):
        for name in ("triton", "native"):
            refused.setdefault(name, "cuDNN's runs unless another was measured to be faster")
    if "triton" not in refused and "native" not in refused:
        slower = triton.slower(operation, device, **call)
        if slower is None:
            return Choice("triton", refused)
        refused["triton"] = slower
    fastest = "triton" if "triton" not in refused else "native"
    return Choice(fastest if fastest not in refused else "reference", refused)


def explain(operation: str, device: str = "cpu", backend: str | None = None, **call: Any) -> str:
    """One line: which path the operation takes, and why not a faster one.

    call: properties of a call that a kernel may not support: `dtype`, `width`, `windows` and
    `voxels` of attention's tokens; `channels`, `radius` and `voxels` of correlated maps;
    `dtype`, `width`, `channels`, `longest` and `gradient` of the others' maps and tokens.
    """
    choice = choose_backend(operation, device, backend, **call)
    reasons = "; ".join(f"{name}: {why}" for name, why in choice.refused.items())
    return f"{operation} on {device}: {choice.backend}" + (f" ({reasons})" if reasons else "")

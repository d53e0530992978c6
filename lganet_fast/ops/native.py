"""The compiled operators, where this install has them.

Importing the extension registers `torch.ops.lganet_fast.*`; each operation's file adds what torch
must know of its own: the shape of the result and the gradient.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, NoReturn

import torch

HAS_CPU = ("warp", "compose", "integrate", "correlate", "local_ncc")


def load() -> str | None:
    """Load the extension; returns why it cannot be used, or None."""
    try:
        importlib.import_module("lganet_fast._native")
    except ImportError as error:
        note = Path(__file__).parent.parent / "_build.json"
        reason = json.loads(note.read_text())["native"] if note.exists() else None
        return reason or str(error).splitlines()[0]
    return None


REASON = load()
LOADED = REASON is None


def refusal(operation: str, device: str) -> str | None:
    """Why the compiled path cannot run `operation` on `device`, or None where it can."""
    if REASON is not None:
        return REASON
    if operation not in HAS_CPU:
        return "it has no compiled kernel"
    if device != "cpu":
        return f"it was compiled for the CPU, not for {device}"
    return None


def no_double_backward(*_: Any) -> NoReturn:
    """Refuse to differentiate a compiled backward."""
    raise RuntimeError(
        "the compiled operators have no second derivative: use backend='reference' for it"
    )


def forbid_double_backward(name: str) -> None:
    """Make differentiating the operator `lganet_fast::<name>` an error instead of a wrong zero."""
    torch.library.register_autograd(f"lganet_fast::{name}", no_double_backward)

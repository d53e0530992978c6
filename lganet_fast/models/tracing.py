"""Networks under torch.jit.trace, which records one call for volumes of one size."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.jit._trace import TracerWarning
from torch.overrides import TorchFunctionMode


class PlainSizes(TorchFunctionMode):
    """Sizes are numbers, where a trace would make them tensors of which the result depends."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run anything."""
        found = func(*args, **(kwargs or {}))
        return torch.Size(map(int, found)) if isinstance(found, torch.Size) else found


@contextmanager
def traced() -> Iterator[None]:
    """Within, a call can be traced: for its size, and to infer with.

    Without gradients, as what computes gradients cannot be recorded.
    """
    with PlainSizes(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)  # that the size will be constant
        yield

"""Results computed from weights alone, kept until the weights change: cast, folded, packed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.weak import WeakIdKeyDictionary

from .torch_func import tracing, transforming

Result = TypeVar("Result")


@dataclass(frozen=True)
class Kept:
    """A result, and the state of its weights."""

    state: tuple[Any, ...]
    result: Any
    made: tuple[Any, Any] | None  # the stream that makes it, and the event behind that

    def awaited(self, weight: Tensor) -> Any:
        """The result, behind which whatever the current stream does next comes.

        Inside a capture nothing is waited for: what ran before it on its stream has waited.
        """
        if self.made is not None and not torch.cuda.is_current_stream_capturing():
            stream = torch.cuda.current_stream(weight.device)
            if stream != self.made[0]:
                stream.wait_event(self.made[1])
        return self.result


_kept: WeakIdKeyDictionary = WeakIdKeyDictionary()  # first weight -> what was made of it
_lock = threading.Lock()
_anew = [0]  # how many `computed_anew` are under way


def derived(make: Callable[..., Result], *weights: Tensor, **options: Hashable) -> Result:
    """make(*weights, **options) without gradients, again only where a weight has changed.

    make: a function of a module, the same object at each call, without side effects. The result
    must not be written to; it is dropped with the first weight. If changes cannot be detected
    (weights made under torch.inference_mode) and during tracing, it is computed at each call;
    results of a CUDA graph's capture are not kept, since they exist only after a replay.
    """
    traced = torch.compiler.is_compiling() or tracing() or transforming()
    if traced or _anew[0] or any(w.is_inference() for w in weights):
        return made(make, *weights, **options)
    state = tuple((w._version, w.untyped_storage(), w.dtype, w.shape) for w in weights)
    key = (make, *map(id, weights[1:]), *sorted(options.items()))
    with _lock:
        found = _kept.setdefault(weights[0], {}).get(key)  # type: ignore[no-untyped-call]
    if found is not None and same(found.state, state):
        return found.awaited(weights[0])
    result = made(make, *weights, **options)
    event = None
    if weights[0].is_cuda and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        if torch.cuda.is_current_stream_capturing():
            return result
        stream = torch.cuda.current_stream(weights[0].device)
        event = stream, stream.record_event()
    with _lock:
        _kept[weights[0]][key] = Kept(state, result, event)
    return result


@torch.no_grad()
def made(make: Callable[..., Result], *weights: Tensor, **options: Hashable) -> Result:
    """The result, without gradients and outside autocast."""
    with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
        return make(*weights, **options)


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether weights are unchanged: their versions, memory, types and shapes."""
    return len(one) == len(other) and all(
        a[0] == b[0] and a[1]._cdata == b[1]._cdata and a[2:] == b[2:]
        for a, b in zip(one, other, strict=True)
    )


@contextmanager
def computed_anew() -> Iterator[None]:
    """In the block, in every thread, nothing is kept and no kept result is used.

    For the capture of CUDA graphs that run while the weights change.
    """
    _anew[0] += 1
    try:
        yield
    finally:
        _anew[0] -= 1


def count_fused(optimizer: Optimizer, *_: Any) -> None:
    """After a step: count the writes of fused optimisers, which do not change the versions."""
    for group in optimizer.param_groups:
        if group.get("fused"):
            increment_version(group["params"])


register_optimizer_step_post_hook(count_fused)

"""What is computed from weights alone, kept until they change: cast, folded and packed weights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

Result = TypeVar("Result")


@dataclass(frozen=True)
class Kept:
    """A result, and the state of the weights that it was made from."""

    state: tuple[Any, ...]
    result: Any


_kept: WeakIdKeyDictionary = WeakIdKeyDictionary()  # first source -> what was made of it
_lock = threading.Lock()


def derived(
    make: Callable[..., Result], *sources: Tensor | nn.Module, **options: Hashable
) -> Result:
    """make(*sources, **options) without gradients, again only where a weight has changed.

    make: a function of a module or class, the same object at each call, without side effects.
    sources: weights, or modules with all their parameters. The result must not be written to; it
    goes when the first source goes. Where changes cannot be told (weights made under
    torch.inference_mode) and while it is traced, it is computed at each call.
    """
    weights: list[Tensor] = []
    for source in sources:
        weights += [source] if isinstance(source, Tensor) else source.parameters()
    if torch.compiler.is_compiling() or any(w.is_inference() for w in weights):
        return made(make, *sources, **options)
    state = tuple((w._version, w.untyped_storage(), w.dtype, w.shape) for w in weights)
    key = (make, *map(id, sources[1:]), *sorted(options.items()))
    with _lock:
        found = _kept.setdefault(sources[0], {}).get(key)  # type: ignore[no-untyped-call]
    if found is not None and same(found.state, state):
        return found.result
    result = made(make, *sources, **options)
    with _lock:
        _kept[sources[0]][key] = Kept(state, result)
    return result


@torch.no_grad()
def made(make: Callable[..., Result], *sources: Tensor | nn.Module, **options: Hashable) -> Result:
    """The result, without gradients and outside autocast."""
    with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
        return make(*sources, **options)


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether weights are what they were: their versions, memory, types and shapes."""
    return len(one) == len(other) and all(
        a[0] == b[0] and a[1]._cdata == b[1]._cdata and a[2:] == b[2:]
        for a, b in zip(one, other, strict=True)
    )

"""What is computed from weights alone, kept until they change: cast, folded and packed weights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

Result = TypeVar("Result")


@dataclass(frozen=True)
class Kept:
    """A result, and the state of the weights that it was made from."""

    state: tuple[Any, ...]
    result: Any


_kept: WeakIdKeyDictionary = WeakIdKeyDictionary()  # first weight -> what was made of it
_lock = threading.Lock()


def derived(make: Callable[..., Result], *weights: Tensor, **options: Hashable) -> Result:
    """make(*weights, **options), computed again only where a weight has changed.

    make: a module's own function, without side effects. The result must not be written to. It goes
    when the first weight goes. Weights whose changes cannot be told (made under
    torch.inference_mode) are computed from at each call, and so is everything while it is traced.
    """
    if torch.compiler.is_compiling() or any(w.is_inference() for w in weights):
        return make(*weights, **options)
    state = tuple((w._version, w.untyped_storage(), w.dtype, w.shape) for w in weights)
    key = (make, *map(id, weights[1:]), *sorted(options.items()))
    with _lock:
        found = _kept.setdefault(weights[0], {}).get(key)
    if found is not None and same(found.state, state):
        return found.result
    with torch.no_grad():
        result = make(*(w.detach() for w in weights), **options)
    with _lock:
        _kept[weights[0]][key] = Kept(state, result)
    return result


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether weights are what they were: their versions, memory, types and shapes."""
    return all(
        a[0] == b[0] and a[1]._cdata == b[1]._cdata and a[2:] == b[2:]
        for a, b in zip(one, other, strict=True)
    )

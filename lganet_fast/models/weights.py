"""What a module computes with, looked at before every call: it takes a tenth of a millisecond."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

training, dtype, version = itemgetter("training"), attrgetter("dtype"), attrgetter("_version")


class Stand(NamedTuple):
    """Where all parameters and buffers lie, their types, and how often they were written to."""

    places: tuple[int, ...]
    types: frozenset[torch.dtype]
    version: int


class Weights:
    """What a module's result depends on beside its inputs.

    It holds the module's parts but not the module itself, so that the module may hold it.
    """

    def __init__(self, module: nn.Module) -> None:
        modules = list(module.modules())
        self.parts = [vars(m) for m in modules[1:]]
        self.below = [m._modules for m in modules]
        self.parameters = [m._parameters for m in modules]
        self.buffers = [m._buffers for m in modules]
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        self.hooks = [getattr(m, name) for m in modules for name in hooks]
        self.known = list(members(self.below))

    def are_of(self, module: nn.Module) -> bool:
        """Whether the module still consists of the parts that it had."""
        return module._modules is self.below[0] and list(members(self.below)) == self.known

    def stand(self) -> Stand | None:
        """How the weights stand; None where something else has a say in what the module computes.

        That is a part in training, a hook, a replaced `forward`, a parameter of another class than
        PyTorch's own, or one that may need a gradient now.
        """
        replaced = map(dict.__contains__, self.parts, repeat("forward"))
        if any(self.hooks) or any(map(training, self.parts)) or any(replaced):
            return None
        parameters = [x for x in members(self.parameters) if x is not None]
        buffers = [x for x in members(self.buffers) if x is not None]
        if {*map(type, parameters)} != {nn.Parameter} or {*map(type, buffers)} - {Tensor}:
            return None
        found = parameters + buffers
        if torch.is_grad_enabled() and any(x.requires_grad for x in found):
            return None
        try:
            places, types = tuple(map(Tensor.data_ptr, found)), frozenset(map(dtype, found))
            return Stand(places, types, sum(map(version, found)))
        except RuntimeError:  # made under torch.inference_mode: nothing counts what is written
            return None


def members(tables: Iterable[dict[str, Any]]) -> Iterator[Any]:
    """The values of many dictionaries, one after another."""
    return chain.from_iterable(map(dict.values, tables))

"""Recognising a file of published weights: its state dict and its method."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .network import Network, is_buffer
from .registry import names, network_class

WRAPPINGS = ("net", "state_dict", "model", "model_state")  # keys that scripts keep weights under
PREFIXES = ("module.", "net.", "model.", "_orig_mod.")  # of every name, by DataParallel and such
DEEPEST = 3  # wrappings inside one another
SIZE = (48, 48, 48)
KEYS = 6  # of a dict that an error names
SHOWN = 60  # characters of a name in an error


def state_in(path: str | os.PathLike[str], found: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict of a file, and its entry "config" about the network.

    found: the file's content. Prefixes common to all names are removed. Raises InputError.
    """
    about: dict[str, Any] = {}
    whole = found
    for _ in range(DEEPEST + 1):
        if not isinstance(found, dict) or all(isinstance(x, Tensor) for x in found.values()):
            break
        if isinstance(found.get("config"), dict):
            about = found["config"]
        found = next((found[key] for key in WRAPPINGS if isinstance(found.get(key), dict)), None)
    if not isinstance(found, dict) or not found or not all(isinstance(k, str) for k in found):
        keys = ", ".join(f'"{key}"' for key in WRAPPINGS)
        raise InputError(
            f"{path} holds {outline(whole)}, no state dict, neither bare nor under {keys}"
        )
    if not all(isinstance(x, Tensor) for x in found.values()):
        raise InputError(f"{path} holds a state dict with more than tensors in it")
    for name, x in found.items():
        if not plain(x):
            raise InputError(f"{path}: {name} is no plain tensor, with a number for each place")
    state: dict[str, Tensor] = dict(found)
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in state)), None):
        state = {name.removeprefix(prefix): x for name, x in state.items()}
    return state, about


def outline(found: Any) -> str:
    """A file's content in a few words."""
    if not isinstance(found, dict):
        return f"a {type(found).__name__}"
    if {"network", "settings", "generators"} <= found.keys():
        return "the state of a training, whose weights are in last.safetensors beside it"
    shown = ", ".join(repr(key)[:SHOWN] for key in list(found)[:KEYS])
    return f"a dict of {shown}" + (", ..." if len(found) > KEYS else "") if found else "nothing"


def plain(x: Tensor) -> bool:
    """Whether a tensor is dense and not larger than its memory."""
    if x.layout is not torch.strided or x.device.type != "cpu" or x.is_quantized:
        return False
    return x.numel() * x.element_size() <= x.untyped_storage().nbytes()


@cache
def parameters_of(method: str) -> frozenset[str]:
    """The names that a published state dict of a method has by default, without its buffers."""
    with torch.device("meta"):
        return frozenset(network_class(method)(SIZE).published_parameters())


def recognise(path: str | os.PathLike[str], found: Collection[str]) -> type[Network]:
    """The method whose published names best match those of a state dict.

    Raises InputError if no method has at least half of them.
    """

    def likeness(method: str) -> float:
        own, kind = parameters_of(method), network_class(method)
        here = {name for name in found if not is_buffer(kind, name)}
        return len(own & here) / len(own | here)

    nearest = max(names(), key=likeness)
    shared = len(parameters_of(nearest).intersection(found))
    kind = network_class(nearest)
    if 2 * shared < sum(not is_buffer(kind, name) for name in found) or not shared:
        try:
            kind.refuse_variant(found)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        known = f"{kind.title} has the most, {shared}" if shared else "none is known"
        raise InputError(
            f"{path} holds weights of none of {', '.join(names())}: of its {len(found)} names, "
            f"such as {next(iter(found))[:SHOWN]!r}, {known}"
        )
    return kind


def options_in(
    path: str | os.PathLike[str],
    kind: type[Network],
    state: Mapping[str, Tensor],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The constructor's options and size, from a published state dict."""
    shapes = {name: tuple(x.shape) for name, x in state.items()}
    size, options = None, {}
    with suppress(KeyError, ValueError, IndexError):  # what is missing or misshapen will be named
        size = kind.size_of(shapes)
    try:
        options = kind.options_of(shapes, about)
    except InputError as error:
        raise InputError(f"{path} looks like {kind.title}: {error}") from error
    except (KeyError, ValueError, IndexError):
        pass
    return {"size": size or SIZE, **options}

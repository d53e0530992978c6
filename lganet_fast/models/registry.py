"""The networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ..errors import InputError
from .network import Network

CLASSES = {  # by module
    "modet": "ModeT",
    "rdp": "RDP",
    "prnetpp": "PRNetPlusPlus",
    "corrmlp": "CorrMLP",
    "groupmorph": "GroupMorph",
    "voxelmorph": "VoxelMorph",
    "pivit": "PIViT",
    "pcnet": "PCNet",
    "lganet": "LGANet",
    "lganetpp": "LGANetPlusPlus",
    "lean": "Lean",
}


def names() -> list[str]:
    """The names for `create`."""
    return list(CLASSES)


def network_class(name: str) -> type[Network]:
    """The class of a network. Raises InputError for a name not in `names`."""
    if name not in CLASSES:
        raise InputError(f"a network must be one of {', '.join(CLASSES)}, got {name!r}")
    found: type[Network] = getattr(import_module(f".{name}", __package__), CLASSES[name])
    return found


def options(name: str) -> list[str]:
    """The options of a network's constructor."""
    return [key for key in inspect.signature(network_class(name)).parameters if key != "size"]


def create(name: str, size: Sequence[int], **chosen: Any) -> Network:
    """A network with random weights, in training mode.

    name: one of `names`. size: (H, W, D) of the volumes; most networks also accept any other.
    chosen: of its `options`. Raises InputError for invalid names and values.
    """
    allowed = options(name)
    for key in chosen:
        if key not in allowed:
            raise InputError(f"{name} has no option {key!r}; its options are {', '.join(allowed)}")
    return network_class(name)(size, **chosen)

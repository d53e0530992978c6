"""Checkpoints on disk: reading the published formats, reading and writing our lean format.

The lean format is a safetensors file with the parameters that affect the output, in float32. Its
header has the method's name and, as JSON, its options and a `Card`, which describes the input.
"""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError
from ..runtime.files import atomic, check_extension
from ..runtime.reading import reading
from .lganetpp import LGANetPlusPlus
from .network import SIMPLE_ITK, Network, Shape, is_buffer
from .published_format import with_dead
from .recognise import options_in, recognise, state_in
from .registry import names, network_class, options
from .sizes import fits

FORMAT = "lganet_fast 1"
ZIP = b"PK"  # what torch.save's files begin with
NAMED = 4  # names that an error lists before it only counts
IMPOSSIBLE = "of sizes or options that it cannot have"


@dataclass(frozen=True)
class Card:
    """A checkpoint's description; "unknown" for fields that were not recorded.

    spacing: voxel size in mm along the tensor's axes. intensity: the rule for the images' values.
    axis_order: the anatomical or file axes of H, W, D. data, command: how it was trained. licence:
    of the weights.
    """

    spacing: str = "unknown"
    intensity: str = "unknown"
    axis_order: str = "unknown"
    data: str = "unknown"
    command: str = "unknown"
    licence: str = "unknown"


PUBLISHED_CARD = Card(**SIMPLE_ITK)


@dataclass(frozen=True)
class Checkpoint:
    """A network in evaluation mode with its card."""

    model: Network
    card: Card


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a lean checkpoint (.safetensors) or a published one (of torch.save, or .safetensors).

    A published file contains a state dict, possibly wrapped by a training script; the method is
    recognised by the parameters' names (`models.recognise`). Its unused parameters and its buffers
    are checked and dropped, and nothing in the file is ever executed.
    Raises InputError, naming the entries, if a tensor is missing, unknown, of the wrong shape or
    not finite, and if the file cannot be read or is not a checkpoint.
    """
    with reading(f"checkpoint {path}"):
        if not Path(path).is_file():
            raise InputError(f"{path} is not a file")
        start = first_bytes(path)
    if start[8:] == b"{" or Path(path).suffix.lower() == ".safetensors":
        checkpoint = load_safetensors(path)
    else:
        checkpoint = published(path, *state_in(path, read_torch(path, "as a checkpoint")))
    checkpoint.model.eval()
    return checkpoint


def published(
    path: str | os.PathLike[str], state: Mapping[str, Tensor], about: Mapping[str, Any]
) -> Checkpoint:
    """The checkpoint of a published state dict, and of what its file says beside it."""
    kind = recognise(path, state)
    config = options_in(path, kind, state, about)
    with (
        reading(f"{path} looks like {kind.title}", IMPOSSIBLE),
        torch.device("meta"),  # no memory before it is known that the file fills it
    ):
        wanted = build(path, kind, config).published_parameters()
    compare(path, kind, wanted, {n: x for n, x in state.items() if not is_buffer(kind, n)})
    model = build(path, kind, config)
    model.load_state_dict(state)
    return Checkpoint(model, Card(**kind.published_card))


def read_torch(path: str | os.PathLike[str], what: str) -> Any:
    """Read a file of torch.save to the CPU and verify its checksums; nothing in it is executed.

    what: completes the message, "cannot read PATH ...". Raises InputError.
    """
    with reading(f"cannot read {path}", what):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                if damaged := file.testzip():
                    raise ValueError(f"{damaged} in it is damaged")
        elif first_bytes(path).startswith(ZIP):
            raise ValueError("it is cut short, or damaged at its end")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # which tells how to run what is in it
            wrong = "it is damaged, or not of torch.save, or holds more than tensors"
            raise ValueError(wrong) from error


def load_safetensors(path: str | os.PathLike[str]) -> Checkpoint:
    """Read the lean format, or a published state dict without wrappings."""
    with (
        reading(f"cannot read {path}", "as a checkpoint"),
        safe_open(path, framework="pt") as file,
    ):
        header = file.metadata() or {}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header.get("format", "pt") == "pt":
        return published(path, *state_in(path, state))
    if header["format"] != FORMAT:
        raise InputError(f'{path} must have the format "{FORMAT}", got "{header["format"]}"')
    with reading(os.fspath(path), "has a damaged header"):
        config = json.loads(header["architecture"])
        config["size"] = tuple(config["size"])
        card = Card(**json.loads(header["card"]))
        if not all(isinstance(value, str) for value in vars(card).values()):
            raise ValueError("its card must hold text alone")
        method = header.get("method", LGANetPlusPlus.name)
        if method not in names():
            raise ValueError(f"its method must be one of {', '.join(names())}, got {method!r}")
        kind = network_class(method)
        if strangers := [key for key in config if key not in ("size", *options(method))]:
            raise ValueError(f"its method is {kind.title}, which has no {listed(strangers)}")
        with torch.device("meta"):  # no memory before it is known that the file fills it
            empty = build(path, kind, config)
    compare(path, kind, {name: tuple(p.shape) for name, p in empty.named_parameters()}, state)
    model = build(path, kind, config)
    model.load_state_dict(state)
    return Checkpoint(model, card)


def build(path: str | os.PathLike[str], kind: type[Network], config: Mapping[str, Any]) -> Network:
    """Build the network of a checkpoint."""
    try:
        return kind(**config)
    except InputError as error:
        raise InputError(f"{path} looks like {kind.title} {IMPOSSIBLE}: {error}") from error


def compare(
    path: str | os.PathLike[str],
    kind: type[Network],
    wanted: Mapping[str, Shape],
    found: Mapping[str, Tensor],
) -> None:
    """Raise InputError naming every kind of wrong entry."""
    both = [name for name in wanted if name in found]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {wanted[name]}"
        for name in both
        if tuple(found[name].shape) != wanted[name]
    ]
    # A tensor of another shape may need far more memory than its file.
    fitting = [
        name
        for name in both
        if tuple(found[name].shape) == wanted[name] and found[name].is_floating_point()
    ]
    lists = {
        "missing": [name for name in wanted if name not in found],
        "not of this network": [name for name in found if name not in wanted],
        "misshapen": shapes,
        "not of real numbers": [name for name in both if not found[name].is_floating_point()],
        "not finite": [name for name in fitting if not found[name].float().isfinite().all()],
    }
    faults = [f"{len(names)} {what} ({listed(names)})" for what, names in lists.items() if names]
    if faults:
        right = len([name for name in both if tuple(found[name].shape) == wanted[name]])
        raise InputError(
            f"{path} looks like {kind.title} ({right} of {len(wanted)} tensors fit), but has "
            f"{'; '.join(faults)}"
        )


def first_bytes(path: str | os.PathLike[str]) -> bytes:
    """The first nine bytes, which identify a file's format."""
    with open(path, "rb") as file:
        return file.read(9)


def listed(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def save(model: Network, path: str | os.PathLike[str], card: Card | None = None) -> None:
    """Write a lean checkpoint, completely or not at all; `path` must end in .safetensors.

    Raises InputError if it cannot be written.
    """
    check_extension(path, (".safetensors",))
    state = {name: p.detach().float().cpu().contiguous() for name, p in model.named_parameters()}
    header = {
        "format": FORMAT,
        "method": model.name,
        "architecture": json.dumps(model.config),
        "card": json.dumps(asdict(card or Card())),
    }
    with atomic(path) as temporary:
        save_file(state, temporary, header)


def load_into(network: Network, path: str | os.PathLike[str]) -> None:
    """Load a file's weights, in any format of `load`, into a network.

    Raises InputError if they are of another network, or of one with other options.
    """
    found = load(path).model
    if found.name != network.name:
        raise InputError(f"{path} contains weights of {found.title}, not of {network.title}")
    compare(
        path,
        type(network),
        {name: tuple(p.shape) for name, p in network.named_parameters()},
        dict(found.named_parameters()),
    )
    network.load_state_dict(found.state_dict())


def export_published(
    model: LGANetPlusPlus,
    path: str | os.PathLike[str],
    size: tuple[int, int, int] | None = None,
) -> None:
    """Write a bare state dict that the published network for volumes of `size` loads strictly.

    size: (H, W, D), by default the model's. Unused parameters are written as zeros.
    Raises InputError for an ablated or a spatial model, and for a size unusable by that network.
    """
    only = {"lgam": True, "fifm": True, "msfm": True, "token_order": "published"}
    for name, value in only.items():
        if model.config[name] != value:
            raise InputError(f"the published network has no {name}={model.config[name]!r}")
    size = size or model.config["size"]
    if not fits(size, "published"):
        raise InputError(f"the published network cannot take volumes of {size}")
    with atomic(path) as temporary:
        torch.save(with_dead(model, size), temporary)

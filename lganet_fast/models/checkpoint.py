"""Checkpoints on disk: the published format in and out, and a lean one of our own.

The lean format is a safetensors file: the 6,602,260 live parameters, float32, and in its header, as
JSON, the architecture and what a user must know to feed the network, a `Card`.
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
from .published_format import Shape, is_grid, published_parameters, with_dead, without_dead
from .sizes import fits

FORMAT = "lganet_fast 1"
NAMED = 4  # names that an error lists before it only counts


@dataclass(frozen=True)
class Card:
    """What the numbers of a checkpoint do not say; "unknown" where nobody wrote it down.

    spacing: voxel size in mm along the tensor's axes. intensity: the rule that the images' values
    must follow. axis_order: the anatomical or file axes that H, W, D stand for. data, command: what
    it was trained on and how. licence: of the weights.
    """

    spacing: str = "unknown"
    intensity: str = "unknown"
    axis_order: str = "unknown"
    data: str = "unknown"
    command: str = "unknown"
    licence: str = "unknown"


PUBLISHED_CARD = Card(
    intensity="[0, 1], background 0", axis_order="z, y, x as SimpleITK hands arrays out"
)


@dataclass(frozen=True)
class Checkpoint:
    """A network in evaluation mode with its card."""

    model: LGANetPlusPlus
    card: Card


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a lean checkpoint (.safetensors) or a published one (any other name).

    A published file holds a state dict, bare or under "net"; its dead parameters and its grids are
    checked and dropped, and nothing in it is ever executed.
    Raises InputError, naming the entries, where a tensor is missing, unknown, misshapen or not
    finite, and where the file cannot be read or is no such checkpoint.
    """
    with reading(f"checkpoint {path}"):
        if not Path(path).is_file():
            raise InputError(f"{path} is not a file")
    read = load_lean if Path(path).suffix.lower() == ".safetensors" else load_published
    checkpoint = read(path)
    checkpoint.model.eval()
    return checkpoint


def load_published(path: str | os.PathLike[str]) -> Checkpoint:
    """Read the published format."""
    state = published_state(path)
    first = state.get("encoder.conv0.0.weight")
    if first is None or first.dim() != 5:
        raise InputError(f"{path} is no LGANet++ checkpoint: it has no encoder.conv0.0.weight")
    filters, in_channel = first.shape[:2]
    grid = state.get("transformer.0.grid")
    size = tuple(grid.shape[2:]) if grid is not None and grid.dim() == 5 else (48, 48, 48)
    with reading(os.fspath(path), "is for a network that cannot be"):
        wanted = published_parameters(in_channel, filters)
    compare(path, wanted, {name: x for name, x in state.items() if not is_grid(name)})
    model = build(path, {"size": size, "in_channel": in_channel, "filters": filters})
    model.load_state_dict(without_dead(state, model))
    return Checkpoint(model, PUBLISHED_CARD)


def published_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict in a file that torch.save wrote."""
    found = read_torch(path, "as a checkpoint")
    if isinstance(found, dict) and isinstance(found.get("net"), dict):
        found = found["net"]
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(x, Tensor) for name, x in found.items()
    ):
        raise InputError(f'{path} holds no state dict, neither bare nor under "net"')
    for name, x in found.items():
        if not plain(x):
            raise InputError(f"{path}: {name} is no plain tensor, with a number for each place")
    return found


def plain(x: Tensor) -> bool:
    """Whether a tensor is what it seems: not sparse, and not wider than its memory."""
    if x.layout is not torch.strided or x.device.type != "cpu" or x.is_quantized:
        return False
    return x.numel() * x.element_size() <= x.untyped_storage().nbytes()


def read_torch(path: str | os.PathLike[str], what: str) -> Any:
    """What torch.save wrote, on the CPU, its checksums compared; nothing in it is ever executed.

    what: completes the message, "cannot read PATH ...". Raises InputError.
    """
    with reading(f"cannot read {path}", what):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                if damaged := file.testzip():
                    raise ValueError(f"{damaged} in it is damaged")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # which tells how to run what is in it
            raise ValueError("it is damaged, or holds more than tensors") from error


def load_lean(path: str | os.PathLike[str]) -> Checkpoint:
    """Read the lean format."""
    with (
        reading(f"cannot read {path}", "as a checkpoint"),
        safe_open(path, framework="pt") as file,
    ):
        header = file.metadata() or {}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header.get("format") != FORMAT:
        raise InputError(f'{path} is not in the format "{FORMAT}", got "{header.get("format")}"')
    with reading(os.fspath(path), "has a damaged header"):
        config = json.loads(header["architecture"])
        config["size"] = tuple(config["size"])
        card = Card(**json.loads(header["card"]))
        if not all(isinstance(value, str) for value in vars(card).values()):
            raise ValueError("its card must hold text alone")
        with torch.device("meta"):  # no memory before it is known that the file fills it
            empty = build(path, config)
    compare(path, {name: tuple(p.shape) for name, p in empty.named_parameters()}, state)
    model = build(path, config)
    model.load_state_dict(state)
    return Checkpoint(model, card)


def build(path: str | os.PathLike[str], config: Mapping[str, Any]) -> LGANetPlusPlus:
    """The network that a checkpoint is for."""
    try:
        return LGANetPlusPlus(**config)
    except InputError as error:
        raise InputError(f"{path} is for a network that cannot be: {error}") from error


def compare(
    path: str | os.PathLike[str], wanted: Mapping[str, Shape], found: Mapping[str, Tensor]
) -> None:
    """Raise InputError naming every kind of entry that is not as wanted."""
    both = [name for name in wanted if name in found]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {wanted[name]}"
        for name in both
        if tuple(found[name].shape) != wanted[name]
    ]
    # Of another shape, a tensor may take far more memory to look at than its file.
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
        raise InputError(f"{path} does not fit LGANet++: {'; '.join(faults)}")


def listed(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def save(model: LGANetPlusPlus, path: str | os.PathLike[str], card: Card | None = None) -> None:
    """Write a lean checkpoint, whole or not at all; `path` must end in .safetensors.

    Raises InputError where it cannot be written.
    """
    check_extension(path, (".safetensors",))
    state = {name: p.detach().float().cpu().contiguous() for name, p in model.named_parameters()}
    header = {
        "format": FORMAT,
        "architecture": json.dumps(model.config),
        "card": json.dumps(asdict(card or Card())),
    }
    with atomic(path) as temporary:
        save_file(state, temporary, header)


def export_published(
    model: LGANetPlusPlus,
    path: str | os.PathLike[str],
    size: tuple[int, int, int] | None = None,
) -> None:
    """Write a bare state dict that the published network for volumes of `size` loads strictly.

    size: (H, W, D), by default the model's. Parameters that take no part are written as zeros.
    Raises InputError for an ablated or a spatial model and for a size that network cannot take.
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

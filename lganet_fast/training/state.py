"""The complete state of a run, from which it resumes exactly."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config.loading import SECTIONS, Config
from ..config.section import names
from ..errors import InputError
from ..models.checkpoint import read_torch
from ..runtime.files import atomic

FORMAT = "lganet_fast training 1"
SCHEDULE = ("epochs", "lr", "final_lr", "decay_from", "decay", "warm_up", "budget")
# Settings that may change when a run resumes: device, output, length and learning rate; never the
# data, the loss or the network.
FREE = {
    "data": ("root", "cache", "workers"),
    "train": (
        *("graph", "save_every", "save_minutes", "picture_every", "device", "threads"),
        *SCHEDULE,
    ),
    "model": ("checkpoint",),
}


def seed(number: int) -> None:
    """Seed every generator of this process."""
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of every generator of this process, in types that need no unpickling of code."""
    name, keys, *rest = np.random.get_state(legacy=True)
    state = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore every generator from `random_state`."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state, completely or not at all."""
    with atomic(path) as temporary:
        torch.save({"format": FORMAT, **state}, temporary)


def load(path: Path) -> dict[str, Any]:
    """Read a state. Raises InputError if the file is not a state or is damaged."""
    state = read_torch(path, "as a run to resume")
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f'{path} is not in the format "{FORMAT}"')
    return state


def settings(config: Config) -> dict[str, Any]:
    """The settings that a run depends on, "section.key" to value."""
    return {
        f"{title}.{name}": repr(value)
        for title in ("data", "synthetic", "model", "loss", "train")
        for name, value in vars(getattr(config, title)).items()
        if name not in FREE.get(title, ())
    }


def defaults() -> dict[str, str]:
    """The settings that have a default, "section.key" to value."""
    return {
        f"{title}.{key}": repr(getattr(SECTIONS[title](), key))
        for title in ("synthetic", "model", "loss", "train")
        for key in names(SECTIONS[title])
        if key not in FREE.get(title, ())
    }


def check_same(path: str | os.PathLike[str], before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise InputError, naming the difference, if a run would resume with other settings.

    A setting that the saved run does not know, of an earlier version, had its default.
    """
    before = {**defaults(), **before}
    changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
    if changed:
        changes = "; ".join(f"{k} was {before.get(k)}, is {now.get(k)}" for k in changed)
        raise InputError(f"{path} is of another run: {changes}")

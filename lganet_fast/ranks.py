"""Work shared out over the processes that torchrun started; a process alone does all of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from .errors import InputError

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # that a process which is done waits for the others


@dataclass(frozen=True)
class Ranks:
    """One process among `world` of them, `local_world` on its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that gathers, prints and writes what all have done."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """The part of a list, which all hold alike, that is for this process."""
        return list(items[self.rank :: self.world])

    def gather(self, part: list[T]) -> list[T]:
        """Every process's part, one after the other, once all have called this."""
        if self.world == 1:
            return part
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, part)
        return [item for one in parts for item in one]

    def device(self, name: str) -> str:
        """A device's name for this process: "auto" and "cuda" take a GPU each."""
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if self.world > 1 and name in ("auto", "cuda") and count:
            return f"cuda:{self.local_rank % count}"
        return name

    def threads(self, wanted: int | None) -> int | None:
        """CPU threads for this process: those wanted, else its part of the machine's."""
        if wanted or self.local_world == 1:
            return wanted or None
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        return max(1, cores // self.local_world)


@contextmanager
def joined() -> Iterator[Ranks]:
    """The processes that torchrun started, by the environment that it set; else this one alone.

    Raises InputError for an environment that makes no sense.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    try:
        rank, world, local, beside = (
            int(os.environ.get(name, default))
            for name, default in zip(names, (0, 1, 0, 1), strict=True)
        )
    except ValueError as error:
        raise InputError(f"{', '.join(names)} must be whole numbers: {error}") from error
    if not 0 <= rank < world:
        raise InputError(f"RANK must be from 0 to WORLD_SIZE - 1, got {rank} of {world}")
    ranks = Ranks(rank, world, local, beside)
    if world == 1 or dist.is_initialized():
        yield ranks
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield ranks
    finally:
        dist.destroy_process_group()
